//! Checks of a user before and after their session is opened.

use super::{AccountError, Accounts, SessionOrigin, SignedIn};
use crate::auth::session::{EndReason, Session};
use crate::database::User;
use crate::rejection::{CallbackFault, Reason, Refusal, Rejection};
use crate::settings::Reloadable;
use crate::settings::provider::UserStorage;

impl Accounts {
    /// Verifies that no logout at the provider has overtaken the sign-in: it would not have found the
    /// new session.
    pub(super) async fn confirm_not_logged_out(
        &self,
        session: &Session,
        origin: &SessionOrigin,
    ) -> Result<(), AccountError> {
        let SessionOrigin::Provider { start, .. } = origin else {
            return Ok(());
        };
        let overtaken = self.sessions.is_overtaken_by_logout(session, *start).await;
        match overtaken.inspect_err(|_| self.abandon(session))? {
            false => Ok(()),
            true => {
                self.end_session(session, EndReason::Backchannel, None, None)
                    .await?;
                Err(Rejection::from(CallbackFault::LoggedOut).into())
            }
        }
    }

    /// Verifies that the user did not change while the session was opened: a concurrent change
    /// would not have covered the new session.
    pub(super) async fn confirm_user_unchanged(
        &self,
        signed_in: &SignedIn,
    ) -> Result<(), AccountError> {
        let before = &signed_in.user;
        let session = &signed_in.session.session;
        if let Some(after) = self.database.user(&before.id).await?
            && !after.disabled
            && after.password_hash == before.password_hash
        {
            if after.updated_at == before.updated_at {
                return Ok(());
            }
            if self.has_identity_of(session).await? {
                return Ok(self.sessions.update_identity(&after.id).await?);
            }
        }
        self.end_session(session, EndReason::UserDisabled, None, None)
            .await?;
        Err(match session.provider {
            Some(_) => CallbackFault::ProviderUserDisabled.into(),
            None => Refusal::InvalidCredentials.into(),
        })
    }

    /// Whether the user still has the identity that opened a session, if one did.
    async fn has_identity_of(&self, session: &Session) -> Result<bool, AccountError> {
        if session.provider.is_none() {
            return Ok(true);
        }
        let identities = self.database.identities_of(&session.user).await?;
        Ok(identities.iter().any(|identity| identity.is_of(session)))
    }
}

/// Rejects a user whose ID reads like one of another source. Those of external users usually have the
/// prefix of their provider.
pub(super) fn check_user_id(
    settings: &Reloadable,
    user: &User,
    origin: &SessionOrigin,
) -> Result<(), Rejection> {
    let identity = &settings.identity;
    let has_prefix = match origin {
        SessionOrigin::Local => false,
        SessionOrigin::Provider { sign_in, .. } => {
            identity.provider(&sign_in.provider).is_some_and(
                |it| matches!(&it.users, UserStorage::External { prefix } if !prefix.is_empty()),
            )
        }
    };
    if has_prefix || !identity.reserved_prefixes.cover(&user.id) {
        return Ok(());
    }
    let reason = Reason::ReservedUserId;
    Err(Rejection::new(Refusal::InvalidCredentials, reason))
}
