//! Sign-out at the provider of a session that ends.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::own_origin;
use crate::api::ApiState;
use crate::api::presented_session::PresentedSession;
use crate::identity::oidc::ProviderClient;
use crate::pipeline::facts::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::routing::endpoints::SIGN_OUT_PAGE;
use crate::settings::Reloadable;

/// A session's provider.
pub(in crate::api) struct ProviderSignOut {
    provider: Arc<ProviderClient>,
    id_token: Option<SecretString>,
}

impl ProviderSignOut {
    /// Finds the provider before the session ends, because its tokens end with it. A failure costs no more
    /// than the sign-out there.
    pub(in crate::api) async fn prepare(
        state: &ApiState,
        snapshot: &Snapshot,
        presented: Option<&PresentedSession>,
    ) -> Option<ProviderSignOut> {
        snapshot.providers.iter().next()?;
        let session = presented?.session_id()?;
        let entry = state.sessions.find(session).await.ok()??;
        // The hint names the user.
        if !presented?.may_end(&entry.session) {
            return None;
        }
        let sign_in = entry.session.provider?;
        let provider = snapshot.providers.get(&sign_in.provider)?;
        Some(ProviderSignOut {
            provider: Arc::clone(provider),
            id_token: match provider.settings().tokens.keep {
                true => {
                    let settings = &snapshot.settings;
                    let (accounts, provider) = (&state.accounts, provider.settings());
                    accounts.id_token_hint(settings, provider, session).await
                }
                false => None,
            },
        })
    }

    /// The address at which the browser ends the provider's session, and from which it returns to the
    /// sign-out page.
    pub(in crate::api) fn url(&self, settings: &Reloadable, client: &Client) -> Option<String> {
        let origin = own_origin(settings, client).ok()?;
        let prefix = settings.api.as_ref().map_or("", |api| &api.prefix);
        let page = format!("{origin}{prefix}{SIGN_OUT_PAGE}");
        let id_token = self.id_token.as_ref().map(SecretString::expose_secret);
        let url = self.provider.end_session_url(&page, id_token)?;
        Some(url.into())
    }
}
