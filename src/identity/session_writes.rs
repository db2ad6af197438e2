//! Sessions in their two homes. Where they have the second one (`sessions.durable`), it is written
//! first and has the last word; the store is then told as well as it can be, and the rest of what it
//! missed is told later.

use std::time::Duration;

use super::{AccountError, Accounts};
use crate::auth::session::{EndReason, Millis, OnSessionLimit, Session, SessionId, SessionStatus};
use crate::clock;
use crate::database::DurableSession;
use crate::rejection::Refusal;
use crate::sessions::durable::DurableSessions;
use crate::settings::Reloadable;
use crate::store::{
    AmendOutcome, Amendment, CreateOutcome, InitialRefreshToken, RefreshRotation, RotationOutcome,
    RotationResult, SessionEntry, SessionListQuery, SessionPage, SessionUse, StoreError,
};

impl Accounts {
    /// Whether sessions outlive the store.
    pub fn is_durable(&self) -> bool {
        self.durable.if_enabled().is_some()
    }

    /// The store's clock; this gateway's while the store is away and sessions go on without it.
    ///
    /// # Errors
    /// When the store has to answer and does not.
    pub async fn now(&self) -> Result<Millis, StoreError> {
        match self.store.now().await {
            Err(_) if self.is_durable() => Ok(clock::unix_millis()),
            answer => answer,
        }
    }

    /// Reads one session, however it stands.
    ///
    /// # Errors
    /// When neither home can tell.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionEntry>, AccountError> {
        let found = self.store.session(id).await;
        let Some(durable) = self.durable.if_enabled() else {
            return Ok(found?);
        };
        if let Ok(Some(entry)) = found {
            return Ok(Some(entry));
        }
        match durable.look_up(id, None).await {
            Ok(Some(kept)) => Ok(Some(SessionEntry::from(DurableSession::clone(&kept)))),
            // The database has none: only the store could still have one.
            Ok(None) => Ok(found?),
            Err(_) => Err(StoreError::Unreachable.into()),
        }
    }

    /// Lists a user's sessions, newest first: those of both homes.
    ///
    /// # Errors
    /// When neither home answers.
    pub async fn list_sessions(
        &self,
        user: &str,
        wanted: SessionListQuery<'_>,
    ) -> Result<SessionPage, AccountError> {
        let Some(durable) = self.durable.if_enabled() else {
            return Ok(self.store.sessions_of(user, wanted).await?);
        };
        let all = SessionListQuery {
            status: None,
            address: None,
            limit: usize::MAX,
            cursor: None,
            ..wanted
        };
        let listed = self.store.sessions_of(user, all).await;
        let kept = match (durable.sessions_of(user).await, &listed) {
            (Ok(kept), _) => kept,
            (Err(_), Ok(_)) => Vec::new(),
            (Err(error), Err(_)) => return Err(error.into()),
        };
        let (mut entries, now) = match listed {
            Ok(page) => (page.entries, page.now),
            Err(_) => (Vec::new(), clock::unix_millis()),
        };
        for kept in kept {
            let known = |entry: &&mut SessionEntry| entry.session.id == kept.session.id;
            match entries.iter_mut().find(known) {
                Some(entry) => entry.session.ended = entry.session.ended.or(kept.session.ended),
                None => entries.push(kept.into()),
            }
        }
        Ok(SessionPage::from_entries(entries, wanted, now))
    }

    /// Writes a new session; gives those that had to go for it.
    pub(super) async fn create_session(
        &self,
        live: &Reloadable,
        session: &Session,
        grant: InitialRefreshToken,
    ) -> Result<Vec<SessionId>, AccountError> {
        let rules = &live.sessions;
        let (max, on_limit, idle) = (rules.max_per_user, rules.on_limit, rules.idle_timeout);
        let Some(durable) = self.durable.if_enabled() else {
            let created = self
                .store
                .create_session(session, Some(grant), max, on_limit, idle);
            return match created.await? {
                CreateOutcome::Created { evicted } => Ok(evicted),
                CreateOutcome::LimitReached => Err(Refusal::SessionLimitReached.into()),
            };
        };
        let kept = durable.create(session, grant, max, on_limit, idle).await?;
        let evicted = kept.ok_or(Refusal::SessionLimitReached)?;
        let none_evicted = OnSessionLimit::EvictOldest;
        let told = self
            .store
            .create_session(session, None, u32::MAX, none_evicted, idle);
        if told.await.is_err() {
            self.metrics.sessions_created.inc();
        }
        for id in &evicted {
            if let Err(error) = self
                .report_end_to_store(*id, EndReason::Evicted, idle)
                .await
            {
                // Nobody will hear of the new one, so it must not take anybody's place.
                let ended = self
                    .revoke_session(session.id, EndReason::Terminated, None)
                    .await;
                return Err(ended.err().unwrap_or_else(|| error.into()));
            }
        }
        Ok(evicted)
    }

    /// Ends one session; tells whether it was alive. Where a home fails, the other is told all the
    /// same.
    pub(super) async fn revoke_session(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<bool, AccountError> {
        let Some(durable) = self.durable.if_enabled() else {
            return Ok(self.store.revoke(id, reason, idle).await?);
        };
        let now = self.now().await?;
        let kept = durable.end(id, reason, idle, now).await;
        if let Ok(true) = kept {
            self.report_end_to_store(id, reason, idle).await?;
            return Ok(true);
        }
        let told = self.store.revoke(id, reason, idle).await;
        kept?;
        match told {
            Ok(was_alive) => Ok(was_alive),
            Err(error) if self.store.requires_replicas() => Err(error.into()),
            // It was over already, if it was ever there.
            Err(error) => match durable.look_up(id, None).await {
                Ok(Some(_)) => Ok(false),
                _ => Err(error.into()),
            },
        }
    }

    /// Ends all of a user's sessions but one; gives those that were alive.
    pub(super) async fn revoke_user_sessions(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<Vec<SessionId>, AccountError> {
        let Some(durable) = self.durable.if_enabled() else {
            return Ok(self.store.revoke_user(user, except, reason, idle).await?);
        };
        let now = self.now().await?;
        let kept = durable.end_all(user, except, reason, idle, now).await;
        let told = self.store.revoke_user(user, except, reason, idle).await;
        let safe = self.tolerate_store_error(&told);
        let (mut ended, told) = (kept?, told.unwrap_or_default());
        let untold: Vec<SessionId> = ended
            .iter()
            .filter(|id| !told.contains(id))
            .copied()
            .collect();
        self.store.announce_ended(&untold, reason);
        safe?;
        let only_there = told.into_iter().filter(|id| !ended.contains(id));
        let only_there: Vec<SessionId> = only_there.collect();
        ended.extend(only_there);
        Ok(ended)
    }

    /// Tells the store, or at least this gateway, of an end that is written.
    async fn report_end_to_store(
        &self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Result<(), StoreError> {
        let told = self.store.revoke(id, reason, idle).await;
        if !matches!(told, Ok(true) | Err(StoreError::Unreplicated)) {
            self.store.announce_ended(&[id], reason);
        }
        self.tolerate_store_error(&told)
    }

    /// Takes note of what the store could not be told. It is in the database, which is enough unless
    /// replicas must have it as well.
    pub(super) fn tolerate_store_error<T>(
        &self,
        told: &Result<T, StoreError>,
    ) -> Result<(), StoreError> {
        match told {
            Ok(_) => Ok(()),
            Err(error) => {
                if *error != StoreError::Unreplicated {
                    self.durable.mark_store_incomplete();
                }
                if self.store.requires_replicas() {
                    return Err(*error);
                }
                Ok(())
            }
        }
    }

    /// Turns a refresh token over.
    pub(super) async fn rotate_refresh(
        &self,
        id: SessionId,
        turnover: &RefreshRotation,
        idle: Option<Duration>,
    ) -> Result<RotationResult, AccountError> {
        if let Some(durable) = self.durable.if_enabled()
            && let Some(turned) = self
                .rotate_durable_refresh(durable, id, turnover, idle)
                .await?
        {
            return Ok(turned);
        }
        Ok(self.store.rotate_refresh(id, turnover, idle).await?)
    }

    async fn rotate_durable_refresh(
        &self,
        durable: &DurableSessions,
        id: SessionId,
        turnover: &RefreshRotation,
        idle: Option<Duration>,
    ) -> Result<Option<RotationResult>, AccountError> {
        let now = self.now().await?;
        let activity = match self.store.session(id).await {
            Ok(Some(entry)) => Some(entry.activity),
            Ok(None) | Err(_) => None,
        };
        let last_access = activity.as_ref().map_or(0, |seen| seen.last_access);
        let turned = durable
            .rotate_refresh(id, turnover, idle, now, last_access)
            .await?;
        let Some(mut turned) = turned else {
            return Ok(None);
        };
        if let Some(entry) = &mut turned.entry
            && let Some(activity) = activity
        {
            entry.activity = activity;
        }
        if matches!(
            turned.outcome,
            RotationOutcome::Rotated | RotationOutcome::Replayed
        ) {
            let used = SessionUse {
                session: id,
                last_access: now,
                requests: 1,
                address: turnover.address,
            };
            // A refresh is a use; it counts as one even if writing it fails.
            let _ = self.store.record_uses(std::slice::from_ref(&used)).await;
            durable.record_uses(&[used]);
            if let Some(entry) = &mut turned.entry {
                entry.activity.last_access = now;
                entry.activity.request_count += 1;
            }
        }
        Ok(Some(turned))
    }

    /// Tells whether this is the session's current refresh token.
    pub(super) async fn is_current_refresh(
        &self,
        id: SessionId,
        hash: [u8; 32],
    ) -> Result<bool, AccountError> {
        if let Some(durable) = self.durable.if_enabled()
            && let Some(holds) = durable.is_current_refresh_token(id, hash).await?
        {
            return Ok(holds);
        }
        Ok(self.store.is_current_refresh_token(id, hash).await?)
    }

    /// Changes a session that is alive, as [`crate::store::Store::amend_session`] does.
    ///
    /// # Errors
    /// When either home does not do it; the store may have done it then.
    pub async fn patch_session(
        &self,
        id: SessionId,
        amendment: &Amendment,
        idle: Option<Duration>,
    ) -> Result<AmendOutcome, AccountError> {
        let amended = self.store.amend_session(id, amendment, idle).await?;
        if let Some(durable) = self.durable.if_enabled()
            && let AmendOutcome::Amended(entry) = &amended
        {
            durable.amend(&entry.session).await?;
        }
        Ok(amended)
    }

    /// Moves a session's idle expiry, as [`crate::store::Store::touch`] does.
    ///
    /// # Errors
    /// When neither home does it.
    pub async fn extend_session(
        &self,
        id: SessionId,
        idle: Option<Duration>,
    ) -> Result<Option<SessionEntry>, AccountError> {
        let touched = self.store.touch(id, idle).await;
        let Some(durable) = self.durable.if_enabled() else {
            return Ok(touched?);
        };
        let entry = match touched {
            Ok(entry) => entry,
            Err(_) => self.session(id).await?.filter(|entry| {
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
}
