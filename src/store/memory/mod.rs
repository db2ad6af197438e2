//! Embedded engine: all state in this process, by the same rules as the scripts of the Redis engine.
//!
//! Nothing survives a restart. A single lock protects all state: every operation is short, and none
//! waits while it holds the lock.

mod acme_challenges;
mod amend;
mod api_keys;
mod counters;
mod journal;
mod open_connections;
mod profiles;
mod provider_logout;
mod provider_tokens;
mod refresh;
mod revocations;
mod sessions;

use std::collections::HashMap;
use std::time::Duration;

use acme_challenges::AcmeChallenges;
use counters::Counters;
use journal::Journal;
use open_connections::ConnectionReports;
use parking_lot::{Mutex, MutexGuard};
use profiles::Profiles;
use provider_logout::ProviderLogouts;
use refresh::RefreshTokenMap;
pub use refresh::RefreshTokens;
use sessions::Sessions;

use super::invalidation::UserHash;
use super::maintenance::RemovedCounts;
use super::marker::Marker;
use super::revocations::CUT_OFF_TTL;
use super::sessions::SessionIdentity;
use super::{
    CreateOutcome, InitialRefreshToken, Query, QueryResult, SessionEntry, SessionListQuery,
    SessionLookup, SessionPage, SessionUse, StoreCounts,
};
use crate::auth::session::{EndReason, Millis, OnSessionLimit, Session, SessionId};
use crate::clock;
use crate::limits::{Charge, Decision, Micros};

/// The whole store of one process.
#[derive(Default)]
pub(super) struct Memory {
    state: Mutex<MemoryState>,
}

#[derive(Default)]
struct MemoryState {
    /// Latest time read: time never runs backward here.
    latest: Micros,
    sessions: Sessions,
    refresh_tokens: RefreshTokenMap,
    /// Expiry of each entry.
    blacklist: HashMap<String, Millis>,
    /// Per user, the second up to which tokens without a session are rejected.
    cut_offs: HashMap<UserHash, u64>,
    marker: Option<Marker>,
    profiles: Profiles,
    provider_logouts: ProviderLogouts,
    acme_challenges: AcmeChallenges,
    open_connections: ConnectionReports,
    journal: Journal,
    counters: Counters,
    counts: Option<StoreCounts>,
}

impl MemoryState {
    fn is_blacklisted(&self, key: &str, now: Millis) -> bool {
        self.blacklist.get(key).is_some_and(|until| now < *until)
    }

    /// Adds the number of open connections to an entry.
    fn with_open_connections(&self, mut entry: SessionEntry, now: Millis) -> SessionEntry {
        entry.activity.live_connections = self.open_connections.count(&entry.session.id, now);
        entry
    }
}

impl Memory {
    /// Locks the state and reads the time.
    fn lock(&self) -> (MutexGuard<'_, MemoryState>, Micros) {
        let mut state = self.state.lock();
        state.latest = state.latest.max(clock::unix_micros());
        let now = state.latest;
        (state, now)
    }

    pub(super) fn now(&self) -> Micros {
        self.lock().1
    }

    pub(super) fn decide(&self, query: &Query<'_>, idle: Option<Duration>) -> QueryResult {
        let (mut state, now) = self.lock();
        state.decide(query, idle, now)
    }

    pub(super) fn charge(&self, charges: &[Charge]) -> Vec<Decision> {
        let (mut state, now) = self.lock();
        let all: Vec<&Charge> = charges.iter().collect();
        let spend = !state.counters.is_refused(&all, now);
        state.counters.settle(&all, spend, now)
    }

    /// The decisions of these limits if one of them refuses. Nothing is spent.
    pub(super) fn refusal(&self, charges: &[Charge]) -> Option<Vec<Decision>> {
        let (mut state, now) = self.lock();
        let all: Vec<&Charge> = charges.iter().collect();
        let is_refused = state.counters.is_refused(&all, now);
        is_refused.then(|| state.counters.settle(&all, false, now))
    }

    pub(super) fn refund(&self, charges: &[Charge]) {
        let (mut state, now) = self.lock();
        state.counters.refund(charges, now);
    }

    pub(super) fn peek(&self, charge: &Charge) -> Decision {
        let (state, now) = self.lock();
        state.counters.peek(charge, now)
    }

    pub(super) fn reset(&self, charge: &Charge) -> bool {
        self.lock().0.counters.reset(charge)
    }

    pub(super) fn create_session(
        &self,
        session: &Session,
        grant: Option<InitialRefreshToken>,
        max: u32,
        on_limit: OnSessionLimit,
        idle: Option<Duration>,
    ) -> CreateOutcome {
        let (mut state, now) = self.lock();
        let sessions = &mut state.sessions;
        let created = sessions.create(session, max, on_limit, idle, now / 1000);
        if let (CreateOutcome::Created { .. }, Some(grant)) = (&created, grant) {
            state
                .refresh_tokens
                .insert(session.id, RefreshTokens::new(grant));
        }
        created
    }

    pub(super) fn session(&self, id: SessionId) -> Option<SessionEntry> {
        let (state, now) = self.lock();
        let entry = state.sessions.entry(&id, now / 1000)?.clone();
        Some(state.with_open_connections(entry, now / 1000))
    }

    pub(super) fn sessions_of(&self, user: &str, query: SessionListQuery<'_>) -> SessionPage {
        let (state, now) = self.lock();
        let now = now / 1000;
        let entries = state.sessions.of_user(user, now).into_iter();
        let entries = entries
            .map(|entry| state.with_open_connections(entry, now))
            .collect();
        drop(state);
        SessionPage::from_entries(entries, query, now)
    }

    pub(super) fn all_sessions(&self, query: SessionListQuery<'_>) -> SessionPage {
        let (state, now) = self.lock();
        let now = now / 1000;
        let page = state.sessions.page(query, now);
        let entries = page.entries.into_iter();
        SessionPage {
            entries: entries
                .map(|entry| state.with_open_connections(entry, now))
                .collect(),
            ..page
        }
    }

    pub(super) fn revoke(&self, id: SessionId, reason: EndReason, idle: Option<Duration>) -> bool {
        let (mut state, now) = self.lock();
        state.sessions.revoke(id, reason, idle, now / 1000)
    }

    pub(super) fn revoke_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Vec<SessionId> {
        let (mut state, now) = self.lock();
        let mut ids = state.sessions.ids_of(user);
        ids.retain(|id| {
            Some(*id) != except && state.sessions.revoke(*id, reason, idle, now / 1000)
        });
        ids
    }

    pub(super) fn ids_of(&self, user: &str) -> Vec<SessionId> {
        self.lock().0.sessions.ids_of(user)
    }

    pub(super) fn set_identity(&self, ids: &[SessionId], identity: SessionIdentity<'_>) {
        self.lock().0.sessions.set_identity(ids, identity);
    }

    pub(super) fn blacklist(&self, key: &str, ttl: Duration) {
        let (mut state, now) = self.lock();
        let until = (now / 1000).saturating_add(millis(ttl).max(1));
        state.blacklist.insert(key.to_owned(), until);
    }

    pub(super) fn unblacklist(&self, key: &str) -> bool {
        let (mut state, now) = self.lock();
        let until = state.blacklist.remove(key);
        until.is_some_and(|until| now / 1000 < until)
    }

    pub(super) fn are_blacklisted(&self, keys: &[&str]) -> Vec<bool> {
        let (state, now) = self.lock();
        let is_blacklisted = |key: &&str| state.is_blacklisted(key, now / 1000);
        keys.iter().map(is_blacklisted).collect()
    }

    pub(super) fn cut_off(&self, user: UserHash, second: Option<u64>) -> u64 {
        let (mut state, now) = self.lock();
        let second = second.unwrap_or(now / 1_000_000);
        let cut_off = state.cut_offs.entry(user).or_default();
        *cut_off = (*cut_off).max(second);
        *cut_off
    }

    pub(super) fn cut_offs(&self, users: &[UserHash]) -> Vec<Option<u64>> {
        let (state, _) = self.lock();
        let cut_off = |user: &UserHash| state.cut_offs.get(user).copied();
        users.iter().map(cut_off).collect()
    }

    pub(super) fn record_uses(&self, uses: &[SessionUse]) {
        let (mut state, now) = self.lock();
        for session_use in uses {
            state.sessions.record_use(session_use, now / 1000);
        }
    }

    /// Returns the sessions that are not active.
    ///
    /// `last_access` returns the latest use of a session, which may not be written yet.
    pub(super) fn ended_among(
        &self,
        ids: &[SessionId],
        idle: Option<Duration>,
        last_access: impl Fn(SessionId) -> Millis,
    ) -> Vec<SessionId> {
        let (state, now) = self.lock();
        let mut ended = ids.to_vec();
        ended.retain(|id| {
            let lookup = state
                .sessions
                .look_up(id, None, last_access(*id), idle, now / 1000);
            !matches!(lookup, SessionLookup::Active(..))
        });
        ended
    }

    pub(super) fn clean_up(&self) -> (StoreCounts, RemovedCounts) {
        let (mut state, now) = self.lock();
        let removed = state.clean_up(now);
        let counts = StoreCounts {
            active_sessions: state.sessions.count_active(now / 1000),
            cached_profiles: state.profiles.count(),
            blacklisted_tokens: state.blacklist.len() as u64,
            at: now / 1000,
        };
        state.counts = Some(counts);
        (counts, removed)
    }

    pub(super) fn counts(&self) -> Option<StoreCounts> {
        self.lock().0.counts
    }
}

impl MemoryState {
    fn clean_up(&mut self, now: Micros) -> RemovedCounts {
        self.counters.clean_up(now);
        let second = now / 1_000_000;
        let now = now / 1000;
        let blacklisted = self.blacklist.len();
        self.blacklist.retain(|_, until| now < *until);
        let ttl = CUT_OFF_TTL.as_secs();
        self.cut_offs.retain(|_, cut_off| second < *cut_off + ttl);
        self.profiles.clean_up(now);
        self.sessions.api_keys.clean_up(now);
        self.provider_logouts.clean_up(now);
        self.acme_challenges.clean_up(now);
        let removed_sessions = self.sessions.clean_up(now);
        let sessions = &self.sessions;
        self.refresh_tokens.retain(|id, tokens| {
            now < tokens.retained_until() && sessions.entry(id, now).is_some()
        });
        RemovedCounts {
            sessions: removed_sessions,
            index_entries: removed_sessions,
            blacklist: (blacklisted - self.blacklist.len()) as u64,
            live_reports: self.open_connections.clean_up(now),
        }
    }

    /// Answers a query as the script `decide.lua` does.
    fn decide(&mut self, query: &Query<'_>, idle: Option<Duration>, now: Micros) -> QueryResult {
        let before: Vec<&Charge> = query.charges_before_auth.iter().collect();
        let mut result = QueryResult {
            now: now / 1000,
            session: SessionLookup::NotQueried,
            blacklisted: false,
            cut_off: None,
            decisions: Vec::new(),
        };
        if self.counters.is_refused(&before, now) {
            result.decisions = self.counters.settle(&before, false, now);
            return result;
        }
        if let Some(id) = query.session {
            let cached = query.cached.as_ref();
            let sessions = &self.sessions;
            result.session = sessions.look_up(&id, cached, query.last_access, idle, now / 1000);
        }
        result.blacklisted = query
            .blacklist_key
            .is_some_and(|key| self.is_blacklisted(key, now / 1000));
        result.cut_off = query
            .cut_off_user
            .and_then(|user| self.cut_offs.get(&user).copied());
        let passes = match &result.session {
            SessionLookup::NotQueried => true,
            SessionLookup::Active(session, _) => query.is_met_by(session),
            SessionLookup::Missing | SessionLookup::Expired(_) | SessionLookup::Revoked(_) => false,
        };
        if result.blacklisted || query.is_cut_off(result.cut_off) || !passes {
            result.decisions = self.counters.settle(&before, true, now);
            return result;
        }
        let mut all = before;
        all.extend(
            query
                .charges_after_auth
                .iter()
                .filter(|charge| match &result.session {
                    SessionLookup::Active(session, _) => charge.limit.applies_to(&session.roles),
                    _ => true,
                }),
        );
        let spend = !self.counters.is_refused(&all, now);
        result.decisions = self.counters.settle(&all, spend, now);
        result
    }
}

/// Converts a duration to milliseconds.
fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
