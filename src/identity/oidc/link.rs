//! The end of a flow that links an identity to a user who is signed in.

use super::proven_identity::ProvenIdentity;
use crate::auth::session::{SameSite, SessionId, SessionStatus, SessionToken};
use crate::identity::{AccountError, Accounts};
use crate::rejection::CallbackFault;
use crate::settings::Reloadable;
use crate::settings::provider::{Provider, ResponseMode, UserStorage};

impl Accounts {
    /// The user of the session that started to link. It must be the browser's, so that no one links
    /// an identity to the user of another browser.
    ///
    /// # Errors
    /// `FLOW_INVALID` if it is not or has ended, or an unavailable store.
    pub(super) async fn linking_user(
        &self,
        settings: &Reloadable,
        provider: &Provider,
        started_by: SessionId,
        browser: Option<&SessionToken>,
    ) -> Result<String, AccountError> {
        // A strict cookie does not come with a redirect of the provider's, a lax one not with its form.
        let is_withheld = match settings.sessions.cookie.same_site {
            SameSite::Strict => true,
            SameSite::Lax => provider.response_mode == ResponseMode::FormPost,
            SameSite::None => false,
        };
        let is_browsers = browser.map_or(is_withheld, |token| token.id() == started_by);
        if !is_browsers {
            return Err(CallbackFault::LinkingSessionGone.into());
        }
        let now = self.sessions.now().await?;
        let idle = settings.sessions.idle_timeout;
        let entry = self.sessions.find(started_by).await?;
        let entry = entry.filter(|entry| {
            let last_access = entry.activity.last_access;
            entry.session.status(last_access, idle, now) == SessionStatus::Active
        });
        let entry = entry.ok_or(CallbackFault::LinkingSessionGone)?;
        Ok(entry.session.user)
    }

    /// Links a proven identity to a user.
    pub(super) async fn link_proven(
        &self,
        provider: &Provider,
        user: &str,
        proven: &ProvenIdentity,
        ip: std::net::IpAddr,
    ) -> Result<(), AccountError> {
        if !matches!(provider.users, UserStorage::Database { .. }) {
            return Err(CallbackFault::LinkingSessionGone.into());
        }
        let asserted = proven.asserted(provider);
        self.link_identity(user, asserted, Some(ip)).await?;
        Ok(())
    }
}
