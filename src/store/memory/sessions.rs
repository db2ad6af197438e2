//! Sessions and whose they are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::super::page::{decode_cursor, encode_cursor};
use super::super::sessions::SessionIdentity;
use super::super::{
    CreateOutcome, SessionEntry, SessionListQuery, SessionLookup, SessionPage, SessionUse,
};
use crate::auth::session::{
    Activity, EndReason, Millis, OnSessionLimit, Session, SessionEnd, SessionId, SessionStatus,
};

/// How long a session stays tellable after its end, in milliseconds.
const RETENTION_AFTER_END: Millis = 3_600_000;
/// How many ended sessions of one user are kept.
const MAX_ENDED_PER_USER: usize = 50;
/// How many addresses a session remembers.
const MAX_ADDRESSES: usize = 10;
/// How many sessions one page of everybody's looks at: all others wait meanwhile.
const MAX_SCANNED: usize = 2_000;

#[derive(Default)]
pub(super) struct Sessions {
    entries: HashMap<SessionId, SessionEntry>,
    /// The version of its user's identity that was last written to a session.
    identities: HashMap<SessionId, u64>,
    /// Each user's sessions, oldest first.
    users: HashMap<String, BTreeSet<(Millis, SessionId)>>,
    /// Everybody's, oldest first.
    order: BTreeSet<(Millis, SessionId)>,
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
        let mut alive = self.ids_of(&session.user);
        alive.retain(|id| self.expire_if_idle(id, idle, now));
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let excess = (alive.len() + 1).saturating_sub(max).min(alive.len());
        if excess > 0 && on_limit == OnSessionLimit::Reject {
            return CreateOutcome::LimitReached;
        }
        let evicted: Vec<SessionId> = alive.into_iter().take(excess).collect();
        for id in &evicted {
            self.revoke(*id, EndReason::Evicted, idle, now);
        }
        // One that is there stays as it is: nothing is brought back.
        if self.entry(&session.id, now).is_some() {
            return CreateOutcome::Created { evicted };
        }
        let place = (session.created_at, session.id);
        self.order.insert(place);
        self.users
            .entry(session.user.clone())
            .or_default()
            .insert(place);
        let entry = SessionEntry {
            session: session.clone(),
            activity: Activity::default(),
        };
        self.entries.insert(session.id, entry);
        CreateOutcome::Created { evicted }
    }

    /// The session as it is, unless it has had its time.
    pub(super) fn entry(&self, id: &SessionId, now: Millis) -> Option<&SessionEntry> {
        let entry = self.entries.get(id)?;
        (now < retained_until(&entry.session)).then_some(entry)
    }

    /// The session, if it is alive.
    pub(super) fn alive_mut(
        &mut self,
        id: SessionId,
        idle: Option<Duration>,
        now: Millis,
    ) -> Option<&mut SessionEntry> {
        let entry = self.entries.get_mut(&id)?;
        let status = entry.session.status(entry.activity.last_access, idle, now);
        (status == SessionStatus::Active).then_some(entry)
    }

    /// How the session stands.
    pub(super) fn look_up(
        &self,
        id: &SessionId,
        known: Option<&Arc<Session>>,
        last_access: Millis,
        idle: Option<Duration>,
        now: Millis,
    ) -> SessionLookup {
        let Some(SessionEntry { session, activity }) = self.entry(id, now) else {
            return SessionLookup::Missing;
        };
        let last = activity
            .last_access
            .max(last_access)
            .max(session.created_at);
        match session.status(last, idle, now) {
            SessionStatus::Active => {
                let same = known.filter(|known| known.revision == session.revision);
                let record = same.map_or_else(|| Arc::new(session.clone()), Arc::clone);
                SessionLookup::Active(record, last)
            }
            SessionStatus::Expired => SessionLookup::Expired(session.clone()),
            SessionStatus::Revoked => SessionLookup::Revoked(session.clone()),
        }
    }

    /// A user's sessions, oldest first.
    pub(super) fn ids_of(&self, user: &str) -> Vec<SessionId> {
        let places = self.users.get(user).into_iter().flatten();
        places.map(|(_, id)| *id).collect()
    }

    pub(super) fn of_user(&self, user: &str, now: Millis) -> Vec<SessionEntry> {
        let ids = self.ids_of(user);
        let entries = ids.iter().filter_map(|id| self.entry(id, now));
        entries.cloned().collect()
    }

    /// A page of everybody's sessions, newest first.
    pub(super) fn page(&self, wanted: SessionListQuery<'_>, now: Millis) -> SessionPage {
        let end = wanted.cursor.and_then(decode_cursor);
        let end = end.unwrap_or((Millis::MAX, SessionId([u8::MAX; 32])));
        let places = self.order.range(..end).rev().take(MAX_SCANNED);
        let mut entries = Vec::new();
        let mut last = None;
        for (created_at, id) in places {
            if entries.len() == wanted.limit {
                break;
            }
            last = Some((*created_at, *id));
            let entry = self.entry(id, now);
            entries.extend(entry.filter(|entry| wanted.matches(entry, now)).cloned());
        }
        let older = |last: &(Millis, SessionId)| self.order.range(..*last).next().is_some();
        SessionPage {
            total: entries.len(),
            entries,
            next_cursor: last.filter(older).map(|(at, id)| encode_cursor(at, &id)),
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

    pub(super) fn record_use(&mut self, used: &SessionUse, now: Millis) {
        if self.entry(&used.session, now).is_none() {
            return;
        }
        if let Some(SessionEntry { activity, .. }) = self.entries.get_mut(&used.session) {
            activity.request_count += used.requests;
            activity.last_access = activity.last_access.max(used.last_access);
            activity.ip_addresses.retain(|ip| *ip != used.address);
            activity.ip_addresses.insert(0, used.address);
            activity.ip_addresses.truncate(MAX_ADDRESSES);
        }
    }

    /// Drops those that have had their time; tells how many.
    pub(super) fn clean_up(&mut self, now: Millis) -> u64 {
        let before = self.entries.len();
        self.entries
            .retain(|_, entry| now < retained_until(&entry.session));
        for places in self.users.values_mut() {
            places.retain(|(_, id)| self.entries.contains_key(id));
        }
        self.users.retain(|_, places| !places.is_empty());
        self.order.retain(|(_, id)| self.entries.contains_key(id));
        self.identities
            .retain(|id, _| self.entries.contains_key(id));
        (before - self.entries.len()) as u64
    }

    /// How many are neither revoked nor past their absolute end.
    pub(super) fn count_active(&self, now: Millis) -> u64 {
        let alive = self.entries.values().filter(|entry| {
            let session = &entry.session;
            session.ended.is_none() && now < session.expires_at
        });
        alive.count() as u64
    }

    /// Whether the session is alive. If it has expired by being idle, that is made its end: no use
    /// that is told later brings it back.
    fn expire_if_idle(&mut self, id: &SessionId, idle: Option<Duration>, now: Millis) -> bool {
        let Some(SessionEntry { session, activity }) = self.entries.get_mut(id) else {
            return false;
        };
        match session.status(activity.last_access, idle, now) {
            SessionStatus::Active => return true,
            SessionStatus::Expired => session.expires_at = session.expires_at.min(now),
            SessionStatus::Revoked => {}
        }
        false
    }

    /// Drops those of a user's ended sessions that ended first, beyond what is kept.
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
            if let Some(places) = self.users.get_mut(user) {
                places.remove(&(created_at, id));
            }
        }
    }
}

/// When a session may be forgotten.
fn retained_until(session: &Session) -> Millis {
    match session.ended {
        Some(ended) => session.expires_at.max(ended.at + RETENTION_AFTER_END),
        None => session.expires_at + RETENTION_AFTER_END,
    }
}
