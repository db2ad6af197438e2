//! Changes of users that their sessions and API keys may not follow yet, because the store did not respond or
//! the client of the call disconnected. They are applied in the background.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::{AccountError, Accounts};
use crate::auth::session::{EndReason, Millis, Session, SessionId};
use crate::database::User;

/// The users whose sessions and API keys may be as they were before a change.
#[derive(Default)]
pub(super) struct UnappliedChanges {
    users: Mutex<HashMap<String, Unapplied>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Unapplied {
    /// Sessions from before end if the password has changed. By the store's clock, as their beginnings.
    since: Millis,
    password: Option<NewPassword>,
}

/// A password that ends the sessions from before it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct NewPassword {
    /// What the user's row has once it is changed.
    pub(super) hash: String,
    /// The session that changes it.
    pub(super) kept: Option<SessionId>,
}

/// A change of a user in the database. Dropped without having been applied to the user's sessions and API
/// keys, it is applied in the background.
#[must_use]
pub(super) struct UserChange<'c> {
    accounts: &'c Accounts,
    user: Option<String>,
    password: Option<NewPassword>,
}

impl UserChange<'_> {
    /// Ends the change: sessions and API keys follow it, or there is nothing to follow.
    pub(super) fn complete(mut self) {
        self.user = None;
    }
}

impl Drop for UserChange<'_> {
    fn drop(&mut self) {
        let Some(user) = self.user.take() else {
            return;
        };
        tracing::warn!(
            user_id = user,
            "sessions and API keys do not follow a change of their user yet"
        );
        let mut users = self.accounts.unapplied_changes.users.lock();
        let earlier = users.get(&user).and_then(|it| it.password.clone());
        let unapplied = Unapplied {
            since: self.accounts.store.clock(),
            password: self.password.take().or(earlier),
        };
        users.insert(user, unapplied);
    }
}

impl UnappliedChanges {
    fn all(&self) -> Vec<(String, Unapplied)> {
        let users = self.users.lock();
        let users = users.iter().map(|(user, it)| (user.clone(), it.clone()));
        users.collect()
    }

    /// Removes a change, unless another one has been added meanwhile.
    fn remove(&self, user: &str, applied: &Unapplied) {
        let mut users = self.users.lock();
        if users.get(user) == Some(applied) {
            users.remove(user);
        }
    }
}

impl Accounts {
    /// Announces that a user is about to change in the database.
    pub(super) fn begin_change(&self, user: &str) -> UserChange<'_> {
        self.begin_password_change(user, None)
    }

    /// Announces that a user is about to change in the database, with the password if there is one.
    pub(super) fn begin_password_change(
        &self,
        user: &str,
        password: Option<NewPassword>,
    ) -> UserChange<'_> {
        UserChange {
            accounts: self,
            user: Some(user.to_owned()),
            password,
        }
    }

    /// Applies changes of users that sessions and API keys do not follow yet.
    pub async fn apply_pending_changes(&self) {
        if !self.store.is_up() {
            return;
        }
        for (user, unapplied) in self.unapplied_changes.all() {
            if let Err(error) = self.apply_again(&user, &unapplied).await {
                tracing::debug!(%error, user_id = user, "a change of a user is not applied yet");
                continue;
            }
            self.unapplied_changes.remove(&user, &unapplied);
            tracing::info!(
                user_id = user,
                "sessions and API keys follow a change of their user"
            );
        }
    }

    /// Has sessions, API keys and the cached profile follow the user's row, whatever has changed.
    async fn apply_again(&self, id: &str, unapplied: &Unapplied) -> Result<(), AccountError> {
        let user = self.database.user(id).await?;
        match user.filter(|user| !user.disabled) {
            None => {
                let keys = self.sessions.update_api_keys_of(id).await;
                self.end_user_sessions(id, None, EndReason::UserDisabled, None, None)
                    .await?;
                keys?;
            }
            Some(user) => {
                self.end_sessions_before_password(&user, unapplied).await?;
                self.sessions.update_identity(id).await?;
            }
        }
        Ok(self.store.invalidate_profile(id).await?)
    }

    async fn end_sessions_before_password(
        &self,
        user: &User,
        unapplied: &Unapplied,
    ) -> Result<(), AccountError> {
        let password = unapplied.password.as_ref();
        let Some(password) = password.filter(|it| user.password_hash.as_ref() == Some(&it.hash))
        else {
            return Ok(());
        };
        let is_earlier = |session: &Session| {
            session.created_at <= unapplied.since && Some(session.id) != password.kept
        };
        self.end_sessions_where(&user.id, is_earlier, EndReason::PasswordChanged, None)
            .await
    }
}
