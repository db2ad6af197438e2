//! The tokens of a session that signs out.

use secrecy::SecretString;

use super::record::KeptTokens;
use crate::auth::session::SessionId;
use crate::identity::Accounts;
use crate::settings::Reloadable;
use crate::settings::provider::Provider;

impl Accounts {
    /// The ID token that a session keeps: a hint for the sign-out at its provider, even if it has expired.
    /// A failure costs no more than the hint.
    pub async fn id_token_hint(
        &self,
        settings: &Reloadable,
        provider: &Provider,
        session: SessionId,
    ) -> Option<SecretString> {
        let keys = settings.encryption.as_ref()?;
        let sealed = self.sessions.provider_tokens(session).await.ok()??;
        let (tokens, _) = KeptTokens::open(keys, session, &sealed.sealed)?;
        tokens.are_of(provider).then_some(tokens.id_token)?
    }
}
