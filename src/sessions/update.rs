//! Changes of sessions that are alive.

use std::time::Duration;

use super::source::SessionSource;
use super::{SessionError, Sessions};
use crate::auth::api_key::ApiKeyOwner;
use crate::auth::session::{SessionId, SessionStatus};
use crate::clock;
use crate::database::User;
use crate::store::{AmendOutcome, Amendment, SessionEntry, SessionIdentity, SessionUse};

impl Sessions {
    /// Changes what the holder of a session may change of it.
    ///
    /// # Errors
    /// When store or database does not respond; the store may have the change then.
    pub async fn patch(
        &self,
        id: SessionId,
        amendment: &Amendment,
        idle: Option<Duration>,
    ) -> Result<AmendOutcome, SessionError> {
        let amended = self.store.amend_session(id, amendment, idle).await?;
        if let SessionSource::Durable(durable) = self.source()
            && let AmendOutcome::Amended(entry) = &amended
        {
            durable.amend(&entry.session).await?;
        }
        Ok(amended)
    }

    /// Moves a session's idle expiry, as a use does. `None`: it is not alive.
    ///
    /// # Errors
    /// When neither store nor database responds.
    pub async fn extend(
        &self,
        id: SessionId,
        idle: Option<Duration>,
    ) -> Result<Option<SessionEntry>, SessionError> {
        let touched = self.store.touch(id, idle).await;
        let SessionSource::Durable(durable) = self.source() else {
            return Ok(touched?);
        };
        let entry = match touched {
            Ok(entry) => entry,
            Err(_) => self.find(id).await?.filter(|entry| {
                let last_access = entry.activity.last_access;
                entry
                    .session
                    .status(last_access, idle, clock::unix_millis())
                    == SessionStatus::Active
            }),
        };
        if let Some(entry) = &entry {
            durable.record_uses(&[SessionUse {
                session: id,
                last_access: clock::unix_millis().max(entry.activity.last_access),
                requests: 0,
                address: entry.session.ip,
            }]);
        }
        Ok(entry)
    }

    /// Replaces the email, name, roles and scopes of one session, whose user is in no table.
    ///
    /// # Errors
    /// When store or database does not respond; the change is to be repeated then.
    pub async fn set_external_identity(
        &self,
        id: SessionId,
        identity: ExternalIdentity<'_>,
    ) -> Result<(), SessionError> {
        let version = self.now().await?;
        if let SessionSource::Durable(durable) = self.source() {
            durable.set_identity(id, identity).await?;
        }
        let identity = SessionIdentity {
            version,
            email: identity.email,
            name: identity.name,
            roles: identity.roles,
            scopes: identity.scopes,
        };
        Ok(self.store.set_identity(&[id], identity).await?)
    }

    /// Copies a user's email, name, roles and scopes to all of their sessions and API keys; a session of a
    /// sign-in at a provider has those of its identity in addition. Of concurrent changes the last one in
    /// the database wins: the sessions are listed before the user is read, and none goes back to an earlier
    /// version.
    ///
    /// # Errors
    /// When store or database does not respond.
    pub async fn update_identity(&self, user: &str) -> Result<(), SessionError> {
        let keys = self.update_api_keys_of(user).await;
        self.update_sessions_of(user).await?;
        keys
    }

    /// Has the API keys of a user read again, whose roles, scopes or existence have changed.
    ///
    /// # Errors
    /// When it is not certain that the change is in force everywhere.
    pub async fn update_api_keys_of(&self, user: &str) -> Result<(), SessionError> {
        let owner = ApiKeyOwner::User(user.to_owned());
        self.api_keys.publish_owner(&owner).await
    }

    async fn update_sessions_of(&self, user: &str) -> Result<(), SessionError> {
        let sessions = self.store.unended_sessions(user).await;
        if let SessionSource::Durable(durable) = self.source() {
            durable.update_identity(user).await?;
        }
        let sessions = sessions?;
        let Some(user) = self.database.user(user).await? else {
            return Ok(());
        };
        // After the user: a later change of an identity then has a later version.
        let identities = self.database.identities_of(&user.id).await?;
        if identities.is_empty() {
            return Ok(self
                .store
                .set_identity(&sessions, identity_of(&user))
                .await?);
        }
        for id in sessions {
            if let Some(entry) = self.store.session(id).await? {
                let user = user.clone().in_session(&entry.session, &identities);
                self.store.set_identity(&[id], identity_of(&user)).await?;
            }
        }
        Ok(())
    }
}

/// What a session carries of a user who is in no table.
#[derive(Debug, Clone, Copy)]
pub struct ExternalIdentity<'a> {
    pub email: &'a str,
    pub name: Option<&'a str>,
    pub roles: &'a [String],
    pub scopes: &'a [String],
}

/// What sessions carry of a user.
pub fn identity_of(user: &User) -> SessionIdentity<'_> {
    SessionIdentity {
        version: user.updated_at,
        email: &user.email,
        name: user.name.as_deref(),
        roles: &user.roles,
        scopes: &user.scopes,
    }
}
