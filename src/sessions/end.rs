//! Ends of sessions.

use std::time::Duration;

use super::durable::DurableSessions;
use super::source::SessionSource;
use super::{SessionError, Sessions};
use crate::auth::session::{EndReason, SessionId};
use crate::store::StoreError;

impl Sessions {
    /// Ends one session; returns whether it was alive.
    ///
    /// # Errors
    /// It is not certain that it has ended everywhere. Where one of store and database fails, the
    /// end is recorded in the other.
    pub async fn end(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<bool, SessionError> {
        match self.source() {
            SessionSource::Store => Ok(self.store.revoke(id, reason, idle).await?),
            SessionSource::Durable(durable) => self.end_durable(durable, id, reason, idle).await,
        }
    }

    async fn end_durable(
        &self,
        durable: &DurableSessions,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<bool, SessionError> {
        let now = self.now().await?;
        let in_database = durable.end(id, reason, idle, now).await;
        if let Ok(true) = in_database {
            self.copy_end(id, reason, idle).await?;
            return Ok(true);
        }
        let in_store = self.store.revoke(id, reason, idle).await;
        in_database?;
        match in_store {
            Ok(was_alive) => Ok(was_alive),
            Err(error) if self.store.requires_replicas() => Err(error.into()),
            // Its row had ended before, if it has one.
            Err(error) => match durable.look_up(id, None).await {
                Ok(Some(_)) => Ok(false),
                _ => Err(error.into()),
            },
        }
    }

    /// Ends all of a user's sessions but one; returns those that were alive.
    ///
    /// # Errors
    /// As for [`Sessions::end`].
    pub async fn end_all(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<Vec<SessionId>, SessionError> {
        let SessionSource::Durable(durable) = self.source() else {
            return Ok(self.store.revoke_user(user, except, reason, idle).await?);
        };
        let now = self.now().await?;
        let in_database = durable.end_all(user, except, reason, idle, now).await;
        let in_store = self.store.revoke_user(user, except, reason, idle).await;
        let copied = self.tolerate_store_error(&in_store);
        let (mut ended, in_store) = (in_database?, in_store.unwrap_or_default());
        let unannounced = ended.iter().filter(|id| !in_store.contains(id)).copied();
        let unannounced: Vec<SessionId> = unannounced.collect();
        self.store.announce_ended(&unannounced, reason);
        copied?;
        let store_only = in_store.into_iter().filter(|id| !ended.contains(id));
        let store_only: Vec<SessionId> = store_only.collect();
        // A sign-in may have written its row after the user's rows were ended and its copy before the
        // store's were: a row that stays alive would revive the session once the store drops it.
        for id in &store_only {
            durable.end(*id, reason, idle, now).await?;
        }
        ended.extend(store_only);
        Ok(ended)
    }

    /// Copies an end from the database to the store; this gateway caches it in any case.
    pub(super) async fn copy_end(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<(), StoreError> {
        let copied = self.store.revoke(id, reason, idle).await;
        if !matches!(copied, Ok(true) | Err(StoreError::Unreplicated)) {
            self.store.announce_ended(&[id], reason);
        }
        self.tolerate_store_error(&copied)
    }

    /// Tolerates that the store misses what the database has, unless replicas must have it: it is
    /// replayed later.
    pub(super) fn tolerate_store_error<T>(
        &self,
        copied: &Result<T, StoreError>,
    ) -> Result<(), StoreError> {
        let Err(error) = copied else { return Ok(()) };
        if *error != StoreError::Unreplicated {
            self.durable.mark_store_incomplete();
        }
        match self.store.requires_replicas() {
            true => Err(*error),
            false => Ok(()),
        }
    }
}
