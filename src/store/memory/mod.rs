//! The embedded engine: everything in this process, by the pure arithmetic and the same rules as
//! the scripts of the other engine. Nothing survives a restart.
//!
//! One lock around everything: each operation is short and none waits while it holds it.

mod amend;
mod counters;
mod journal;
mod live;
mod profiles;
mod refresh;
mod revocations;
mod sessions;

use std::collections::HashMap;
use std::time::Duration;

use counters::Counters;
use journal::Journal;
use live::ConnectionReports;
use parking_lot::{Mutex, MutexGuard};
use profiles::Profiles;
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
    content: Mutex<MemoryState>,
}

#[derive(Default)]
struct MemoryState {
    /// The latest time seen: the clock never runs backwards here.
    latest: Micros,
    sessions: Sessions,
    refresh_tokens: RefreshTokenMap,
    /// When each entry may be forgotten.
    blacklist: HashMap<String, Millis>,
    /// By person: the second up to which tokens without a session are refused.
    cut_offs: HashMap<UserHash, u64>,
    marker: Option<Marker>,
    profiles: Profiles,
    open_connections: ConnectionReports,
    journal: Journal,
    counters: Counters,
    counts: Option<StoreCounts>,
}

impl MemoryState {
    fn is_blacklisted(&self, key: &str, now: Millis) -> bool {
        self.blacklist.get(key).is_some_and(|until| now < *until)
    }

    /// The same entry, with the connections that are open now.
    fn with_open_connections(&self, mut entry: SessionEntry, now: Millis) -> SessionEntry {
        entry.activity.live_connections = self.open_connections.count(&entry.session.id, now);
        entry
    }
}

impl Memory {
    /// Takes the lock, and the time.
    fn lock(&self) -> (MutexGuard<'_, MemoryState>, Micros) {
        let mut content = self.content.lock();
        content.latest = content.latest.max(clock::unix_micros());
        let now = content.latest;
        (content, now)
    }

    pub(super) fn now(&self) -> Micros {
        self.lock().1
    }

    pub(super) fn decide(&self, inquiry: &Query<'_>, idle: Option<Duration>) -> QueryResult {
        let (mut content, now) = self.lock();
        content.decide(inquiry, idle, now)
    }

    pub(super) fn charge(&self, charges: &[Charge]) -> Vec<Decision> {
        let (mut content, now) = self.lock();
        let all: Vec<&Charge> = charges.iter().collect();
        let spend = !content.counters.is_refused(&all, now);
        content.counters.settle(&all, spend, now)
    }

    pub(super) fn refund(&self, charges: &[Charge]) {
        let (mut content, now) = self.lock();
        content.counters.give_back(charges, now);
    }

    pub(super) fn peek(&self, charge: &Charge) -> Decision {
        let (content, now) = self.lock();
        content.counters.peek(charge, now)
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
        let (mut content, now) = self.lock();
        let sessions = &mut content.sessions;
        let created = sessions.create(session, max, on_limit, idle, now / 1000);
        if let (CreateOutcome::Created { .. }, Some(grant)) = (&created, grant) {
            content
                .refresh_tokens
                .insert(session.id, RefreshTokens::new(grant));
        }
        created
    }

    pub(super) fn session(&self, id: SessionId) -> Option<SessionEntry> {
        let (content, now) = self.lock();
        let entry = content.sessions.entry(&id, now / 1000)?.clone();
        Some(content.with_open_connections(entry, now / 1000))
    }

    pub(super) fn sessions_of(&self, user: &str, wanted: SessionListQuery<'_>) -> SessionPage {
        let (content, now) = self.lock();
        let now = now / 1000;
        let entries = content.sessions.of_user(user, now).into_iter();
        let entries = entries
            .map(|entry| content.with_open_connections(entry, now))
            .collect();
        drop(content);
        SessionPage::from_entries(entries, wanted, now)
    }

    pub(super) fn all_sessions(&self, wanted: SessionListQuery<'_>) -> SessionPage {
        let (content, now) = self.lock();
        let now = now / 1000;
        let page = content.sessions.page(wanted, now);
        let entries = page.entries.into_iter();
        SessionPage {
            entries: entries
                .map(|entry| content.with_open_connections(entry, now))
                .collect(),
            ..page
        }
    }

    pub(super) fn revoke(&self, id: SessionId, reason: EndReason, idle: Option<Duration>) -> bool {
        let (mut content, now) = self.lock();
        content.sessions.revoke(id, reason, idle, now / 1000)
    }

    pub(super) fn revoke_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Vec<SessionId> {
        let (mut content, now) = self.lock();
        let mut ids = content.sessions.ids_of(user);
        ids.retain(|id| {
            Some(*id) != except && content.sessions.revoke(*id, reason, idle, now / 1000)
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
        let (mut content, now) = self.lock();
        let until = (now / 1000).saturating_add(millis(ttl).max(1));
        content.blacklist.insert(key.to_owned(), until);
    }

    pub(super) fn unblacklist(&self, key: &str) -> bool {
        let (mut content, now) = self.lock();
        let until = content.blacklist.remove(key);
        until.is_some_and(|until| now / 1000 < until)
    }

    pub(super) fn are_blacklisted(&self, keys: &[&str]) -> Vec<bool> {
        let (content, now) = self.lock();
        let is_on = |key: &&str| content.is_blacklisted(key, now / 1000);
        keys.iter().map(is_on).collect()
    }

    pub(super) fn cut_off(&self, person: UserHash, second: Option<u64>) -> u64 {
        let (mut content, now) = self.lock();
        let second = second.unwrap_or(now / 1_000_000);
        let kept = content.cut_offs.entry(person).or_default();
        *kept = (*kept).max(second);
        *kept
    }

    pub(super) fn cut_offs(&self, people: &[UserHash]) -> Vec<Option<u64>> {
        let (content, _) = self.lock();
        let found = |person: &UserHash| content.cut_offs.get(person).copied();
        people.iter().map(found).collect()
    }

    pub(super) fn record_uses(&self, uses: &[SessionUse]) {
        let (mut content, now) = self.lock();
        for used in uses {
            content.sessions.record_use(used, now / 1000);
        }
    }

    /// `used` tells the latest use of a session that may not be written yet.
    pub(super) fn ended_among(
        &self,
        ids: &[SessionId],
        idle: Option<Duration>,
        used: impl Fn(SessionId) -> Millis,
    ) -> Vec<SessionId> {
        let (content, now) = self.lock();
        let mut ended = ids.to_vec();
        ended.retain(|id| {
            let found = content
                .sessions
                .look_up(id, None, used(*id), idle, now / 1000);
            !matches!(found, SessionLookup::Active(..))
        });
        ended
    }

    pub(super) fn clean_up(&self) -> (StoreCounts, RemovedCounts) {
        let (mut content, now) = self.lock();
        let removed = content.clean_up(now);
        let counts = StoreCounts {
            active_sessions: content.sessions.count_active(now / 1000),
            cached_profiles: content.profiles.count(),
            blacklisted_tokens: content.blacklist.len() as u64,
            at: now / 1000,
        };
        content.counts = Some(counts);
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
        let kept = CUT_OFF_TTL.as_secs();
        self.cut_offs.retain(|_, cut| second < *cut + kept);
        self.profiles.clean_up(now);
        let sessions = self.sessions.clean_up(now);
        let known = &self.sessions;
        self.refresh_tokens
            .retain(|id, refresh| now < refresh.retained_until() && known.entry(id, now).is_some());
        RemovedCounts {
            sessions,
            index_entries: sessions,
            blacklist: (blacklisted - self.blacklist.len()) as u64,
            live_reports: self.open_connections.clean_up(now),
        }
    }

    /// Reads as the script `decide.lua` does.
    fn decide(&mut self, inquiry: &Query<'_>, idle: Option<Duration>, now: Micros) -> QueryResult {
        let before: Vec<&Charge> = inquiry.charges_before_auth.iter().collect();
        let mut findings = QueryResult {
            now: now / 1000,
            session: SessionLookup::NotQueried,
            blacklisted: false,
            cut_off: None,
            decisions: Vec::new(),
        };
        if self.counters.is_refused(&before, now) {
            findings.decisions = self.counters.settle(&before, false, now);
            return findings;
        }
        if let Some(id) = inquiry.session {
            let known = inquiry.cached.as_ref();
            let sessions = &self.sessions;
            findings.session = sessions.look_up(&id, known, inquiry.last_access, idle, now / 1000);
        }
        findings.blacklisted = inquiry
            .blacklist_key
            .is_some_and(|key| self.is_blacklisted(key, now / 1000));
        findings.cut_off = inquiry
            .cut_off_user
            .and_then(|person| self.cut_offs.get(&person).copied());
        let passes = match &findings.session {
            SessionLookup::NotQueried => true,
            SessionLookup::Active(session, _) => inquiry.is_met_by(session),
            SessionLookup::Missing | SessionLookup::Expired(_) | SessionLookup::Revoked(_) => false,
        };
        if findings.blacklisted || inquiry.is_cut_off(findings.cut_off) || !passes {
            findings.decisions = self.counters.settle(&before, true, now);
            return findings;
        }
        let mut all = before;
        all.extend(
            inquiry
                .charges_after_auth
                .iter()
                .filter(|charge| match &findings.session {
                    SessionLookup::Active(session, _) => charge.limit.applies_to(&session.roles),
                    _ => true,
                }),
        );
        let spend = !self.counters.is_refused(&all, now);
        findings.decisions = self.counters.settle(&all, spend, now);
        findings
    }
}

/// A duration as the engine counts.
fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
