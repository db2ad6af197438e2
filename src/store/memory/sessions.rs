//! Sessions of the embedded engine, with indexes by user and by creation time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::super::page::{decode_cursor, encode_cursor};
use super::super::sessions::SessionIdentity;
use super::super::{
    CreateOutcome, SessionEntry, SessionListQuery, SessionLookup, SessionPage, SessionUse,
};
use super::api_keys::ApiKeyRecords;
use super::provider_tokens::ProviderTokens;
use crate::auth::session::{
    Activity, EndReason, Millis, OnSessionLimit, Session, SessionEnd, SessionId, SessionStatus,
};

/// Retention of a session after its end, in milliseconds.
const RETENTION_AFTER_END: Millis = 3_600_000;
/// Number of ended sessions kept per user.
const MAX_ENDED_PER_USER: usize = 50;
/// Number of addresses kept per session.
const MAX_ADDRESSES: usize = 10;
/// Number of sessions scanned per page of the list of all users; other operations wait meanwhile.
const MAX_SCANNED: usize = 2_000;

#[derive(Default)]
pub(super) struct Sessions {
    entries: HashMap<SessionId, SessionEntry>,
    /// Version of the user's identity that was last written to each session.
    identities: HashMap<SessionId, u64>,
    /// Each user's sessions, oldest first.
    users: HashMap<String, BTreeSet<(Millis, SessionId)>>,
    /// All users' sessions, oldest first.
    order: BTreeSet<(Millis, SessionId)>,
    pub(super) provider_tokens: ProviderTokens,
    pub(super) api_keys: ApiKeyRecords,
}

impl Sessions {
    pub(super) fn create(
        &mut self,
        session: &Session,
        max: u32,
        on_limit: OnSessionLimit,
        idle: Option<Duration>,
        now: Millis,
    ) -> CreateOutcome {
        let mut active = self.ids_of(&session.user);
        active.retain(|id| self.expire_if_idle(id, idle, now));
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let excess = (active.len() + 1).saturating_sub(max).min(active.len());
        if excess > 0 && on_limit == OnSessionLimit::Reject {
            return CreateOutcome::LimitReached;
        }
        let evicted: Vec<SessionId> = active.into_iter().take(excess).collect();
        for id in &evicted {
            self.revoke(*id, EndReason::Evicted, idle, now);
        }
        // An existing session is kept as it is: an ended one must not be revived.
        if self.entry(&session.id, now).is_some() {
            return CreateOutcome::Created { evicted };
        }
        let index_key = (session.created_at, session.id);
        self.order.insert(index_key);
        self.users
            .entry(session.user.clone())
            .or_default()
            .insert(index_key);
        let entry = SessionEntry {
            session: session.clone(),
            activity: Activity::default(),
        };
        self.entries.insert(session.id, entry);
        CreateOutcome::Created { evicted }
    }

    /// The session, unless its retention is over.
    pub(super) fn entry(&self, id: &SessionId, now: Millis) -> Option<&SessionEntry> {
        let entry = self.entries.get(id)?;
        (now < retained_until(&entry.session)).then_some(entry)
    }

    /// The session, if it is active.
    pub(super) fn active_mut(
        &mut self,
        id: SessionId,
        idle: Option<Duration>,
        now: Millis,
    ) -> Option<&mut SessionEntry> {
        let entry = self.entries.get_mut(&id)?;
        let status = entry.session.status(entry.activity.last_access, idle, now);
        (status == SessionStatus::Active).then_some(entry)
    }

    /// Looks a session up; an unchanged `cached` record is returned without a copy.
    pub(super) fn look_up(
        &self,
        id: &SessionId,
        cached: Option<&Arc<Session>>,
        last_access: Millis,
        idle: Option<Duration>,
        now: Millis,
    ) -> SessionLookup {
        let entry = match id.api_key() {
            Some(_) => self.api_keys.entry(id, now),
            None => self.entry(id, now),
        };
        let Some(SessionEntry { session, activity }) = entry else {
            return SessionLookup::Missing;
        };
        let last_access = activity
            .last_access
            .max(last_access)
            .max(session.created_at);
        match session.status(last_access, idle, now) {
            SessionStatus::Active => {
                let same = cached.filter(|cached| cached.revision == session.revision);
                let record = same.map_or_else(|| Arc::new(session.clone()), Arc::clone);
                SessionLookup::Active(record, last_access)
            }
            SessionStatus::Expired => SessionLookup::Expired(Arc::new(session.clone())),
            SessionStatus::Revoked => SessionLookup::Revoked(Arc::new(session.clone())),
        }
    }

    /// A user's sessions, oldest first.
    pub(super) fn ids_of(&self, user: &str) -> Vec<SessionId> {
        let index_keys = self.users.get(user).into_iter().flatten();
        index_keys.map(|(_, id)| *id).collect()
    }

    pub(super) fn of_user(&self, user: &str, now: Millis) -> Vec<SessionEntry> {
        let ids = self.ids_of(user);
        let entries = ids.iter().filter_map(|id| self.entry(id, now));
        entries.cloned().collect()
    }

    /// A page of all users' sessions, newest first.
    pub(super) fn page(&self, query: SessionListQuery<'_>, now: Millis) -> SessionPage {
        let end = query.cursor.and_then(decode_cursor);
        let end = end.unwrap_or((Millis::MAX, SessionId([u8::MAX; 32])));
        let scanned = self.order.range(..end).rev().take(MAX_SCANNED);
        let mut entries = Vec::new();
        let mut last = None;
        for (created_at, id) in scanned {
            if entries.len() == query.limit {
                break;
            }
            last = Some((*created_at, *id));
            let entry = self.entry(id, now);
            entries.extend(entry.filter(|entry| query.matches(entry, now)).cloned());
        }
        let has_older = |last: &(Millis, SessionId)| self.order.range(..*last).next().is_some();
        SessionPage {
            total: entries.len(),
            entries,
            next_cursor: last
                .filter(has_older)
                .map(|(created_at, id)| encode_cursor(created_at, &id)),
            now,
        }
    }

    pub(super) fn revoke(
        &mut self,
        id: SessionId,
        reason: EndReason,
        idle: Option<Duration>,
        now: Millis,
    ) -> bool {
        if !self.expire_if_idle(&id, idle, now) {
            return false;
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        entry.session.ended = Some(SessionEnd { at: now, reason });
        self.provider_tokens.drop_of(id);
        let user = entry.session.user.clone();
        self.prune_ended(&user);
        true
    }

    pub(super) fn set_identity(&mut self, ids: &[SessionId], identity: SessionIdentity<'_>) {
        for id in ids {
            let Some(SessionEntry { session, .. }) = self.entries.get_mut(id) else {
                continue;
            };
            let version = self.identities.entry(*id).or_default();
            if session.ended.is_none() && *version <= identity.version {
                *version = identity.version;
                session.email = identity.email.to_owned();
                session.name = identity.name.map(str::to_owned);
                session.roles = identity.roles.into();
                session.scopes = identity.scopes.into();
                session.revision += 1;
            }
        }
    }

    pub(super) fn record_use(&mut self, session_use: &SessionUse, now: Millis) {
        let SessionUse {
            session: id,
            last_access,
            requests,
            address,
        } = session_use;
        if self.entry(id, now).is_none() {
            return;
        }
        if let Some(SessionEntry { activity, .. }) = self.entries.get_mut(id) {
            activity.request_count += requests;
            activity.last_access = activity.last_access.max(*last_access);
            activity.ip_addresses.retain(|ip| ip != address);
            activity.ip_addresses.insert(0, *address);
            activity.ip_addresses.truncate(MAX_ADDRESSES);
        }
    }

    /// Drops sessions whose retention is over; returns their number.
    pub(super) fn clean_up(&mut self, now: Millis) -> u64 {
        let before = self.entries.len();
        self.entries
            .retain(|_, entry| now < retained_until(&entry.session));
        for index_keys in self.users.values_mut() {
            index_keys.retain(|(_, id)| self.entries.contains_key(id));
        }
        self.users.retain(|_, index_keys| !index_keys.is_empty());
        self.order.retain(|(_, id)| self.entries.contains_key(id));
        self.identities
            .retain(|id, _| self.entries.contains_key(id));
        let entries = &self.entries;
        self.provider_tokens.clean_up(|id| {
            let session = entries.get(id).map(|entry| &entry.session);
            session.is_some_and(|session| session.ended.is_none() && now < session.expires_at)
        });
        (before - self.entries.len()) as u64
    }

    /// Number of sessions neither revoked nor past their absolute expiry.
    pub(super) fn count_active(&self, now: Millis) -> u64 {
        let active = self.entries.values().filter(|entry| {
            let session = &entry.session;
            session.ended.is_none() && now < session.expires_at
        });
        active.count() as u64
    }

    /// Whether the session is active. A session that has expired by idleness is marked as expired,
    /// so that a use that is reported later does not revive it.
    fn expire_if_idle(&mut self, id: &SessionId, idle: Option<Duration>, now: Millis) -> bool {
        let Some(SessionEntry { session, activity }) = self.entries.get_mut(id) else {
            return false;
        };
        match session.status(activity.last_access, idle, now) {
            SessionStatus::Active => return true,
            SessionStatus::Expired => {
                session.expires_at = session.expires_at.min(now);
                self.provider_tokens.drop_of(*id);
            }
            SessionStatus::Revoked => {}
        }
        false
    }

    /// Drops a user's ended sessions beyond [`MAX_ENDED_PER_USER`]; those that ended first go first.
    fn prune_ended(&mut self, user: &str) {
        let mut ended: Vec<(Millis, Millis, SessionId)> = self
            .ids_of(user)
            .into_iter()
            .filter_map(|id| self.entries.get(&id))
            .filter_map(|SessionEntry { session, .. }| {
                let ended = session.ended?;
                Some((ended.at, session.created_at, session.id))
            })
            .collect();
        ended.sort_unstable();
        let excess = ended.len().saturating_sub(MAX_ENDED_PER_USER);
        for (_, created_at, id) in ended.into_iter().take(excess) {
            self.entries.remove(&id);
            self.identities.remove(&id);
            self.order.remove(&(created_at, id));
            if let Some(index_keys) = self.users.get_mut(user) {
                index_keys.remove(&(created_at, id));
            }
        }
    }
}

/// End of a session's retention.
fn retained_until(session: &Session) -> Millis {
    match session.ended {
        Some(ended) => session.expires_at.max(ended.at + RETENTION_AFTER_END),
        None => session.expires_at + RETENTION_AFTER_END,
    }
}
