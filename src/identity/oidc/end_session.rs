//! Sign-out at a provider (OpenID Connect RP-Initiated Logout 1.0).

use url::Url;

use super::ProviderClient;

impl ProviderClient {
    /// The origin at which browsers end their session, as far as the metadata at hand names it.
    pub fn end_session_origin(&self) -> Option<String> {
        let url = self.metadata()?.end_session?;
        Some(url.origin().ascii_serialization())
    }

    /// Returns the address at which a browser ends its session at the provider.
    ///
    /// `None`: this is switched off, or the metadata at hand has no such endpoint. Nothing is fetched: a
    /// sign-out never waits for a provider.
    pub fn end_session_url(
        &self,
        post_logout_redirect_uri: &str,
        id_token_hint: Option<&str>,
    ) -> Option<Url> {
        if !self.settings().logout.at_provider {
            return None;
        }
        let mut url = self.metadata()?.end_session?;
        // Nothing depends on it: the page to which it returns shows the same without one.
        let state = hex::encode(rand::random::<[u8; 16]>());
        url.query_pairs_mut()
            .append_pair("client_id", &self.settings().client_id)
            .append_pair("post_logout_redirect_uri", post_logout_redirect_uri)
            .append_pair("state", &state)
            .extend_pairs(id_token_hint.map(|token| ("id_token_hint", token)));
        Some(url)
    }
}
