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
use live::Reports;
use parking_lot::{Mutex, MutexGuard};
use profiles::Profiles;
pub use refresh::Refresh;
use refresh::Refreshes;
use sessions::Sessions;

use super::marker::Marker;
use super::news::PersonHash;
use super::revocations::CUT_OFF_KEPT;
use super::sessions::Identity;
use super::upkeep::Removed;
use super::{
    Counts, Created, Entry, Findings, Found, Grant, Inquiry, Page, Use, Wanted, system_clock,
};
use crate::auth::session::{EndReason, Millis, OnLimit, Session, SessionId};
use crate::limits::{Charge, Decision, Micros};

/// The whole store of one process.
#[derive(Default)]
pub(super) struct Memory {
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    /// The latest time seen: the clock never runs backwards here.
    latest: Micros,
    sessions: Sessions,
    refreshes: Refreshes,
    /// When each entry may be forgotten.
    blacklist: HashMap<String, Millis>,
    /// By person: the second up to which tokens without a session are refused.
    cut_offs: HashMap<PersonHash, u64>,
    marker: Option<Marker>,
    profiles: Profiles,
    live: Reports,
    journal: Journal,
    counters: Counters,
    counts: Option<Counts>,
}

impl Content {
    fn is_blacklisted(&self, key: &str, now: Millis) -> bool {
        self.blacklist.get(key).is_some_and(|until| now < *until)
    }

    /// The same entry, with the connections that are open now.
    fn with_live(&self, mut entry: Entry, now: Millis) -> Entry {
        entry.activity.live_connections = self.live.of(&entry.session.id, now);
        entry
    }
}

impl Memory {
    /// Takes the lock, and the time.
    fn enter(&self) -> (MutexGuard<'_, Content>, Micros) {
        let mut content = self.content.lock();
        content.latest = content.latest.max(system_clock());
        let now = content.latest;
        (content, now)
    }

    pub(super) fn now(&self) -> Micros {
        self.enter().1
    }

    pub(super) fn decide(&self, inquiry: &Inquiry<'_>, idle: Option<Duration>) -> Findings {
        let (mut content, now) = self.enter();
        content.decide(inquiry, idle, now)
    }

    pub(super) fn charge(&self, charges: &[Charge]) -> Vec<Decision> {
        let (mut content, now) = self.enter();
        let all: Vec<&Charge> = charges.iter().collect();
        let spend = !content.counters.refuse(&all, now);
        content.counters.settle(&all, spend, now)
    }

    pub(super) fn refund(&self, charges: &[Charge]) {
        let (mut content, now) = self.enter();
        content.counters.give_back(charges, now);
    }

    pub(super) fn peek(&self, charge: &Charge) -> Decision {
        let (content, now) = self.enter();
        content.counters.peek(charge, now)
    }

    pub(super) fn reset(&self, charge: &Charge) -> bool {
        self.enter().0.counters.reset(charge)
    }

    pub(super) fn create_session(
        &self,
        session: &Session,
        grant: Option<Grant>,
        max: u32,
        on_limit: OnLimit,
        idle: Option<Duration>,
    ) -> Created {
        let (mut content, now) = self.enter();
        let sessions = &mut content.sessions;
        let created = sessions.create(session, max, on_limit, idle, now / 1000);
        if let (Created::Created { .. }, Some(grant)) = (&created, grant) {
            content.refreshes.insert(session.id, Refresh::new(grant));
        }
        created
    }

    pub(super) fn session(&self, id: SessionId) -> Option<Entry> {
        let (content, now) = self.enter();
        let entry = content.sessions.entry(&id, now / 1000)?.clone();
        Some(content.with_live(entry, now / 1000))
    }

    pub(super) fn sessions_of(&self, user: &str, wanted: Wanted<'_>) -> Page {
        let (content, now) = self.enter();
        let now = now / 1000;
        let entries = content.sessions.of(user, now).into_iter();
        let entries = entries.map(|entry| content.with_live(entry, now)).collect();
        drop(content);
        Page::cut(entries, wanted, now)
    }

    pub(super) fn all_sessions(&self, wanted: Wanted<'_>) -> Page {
        let (content, now) = self.enter();
        let now = now / 1000;
        let page = content.sessions.all(wanted, now);
        let entries = page.entries.into_iter();
        Page {
            entries: entries.map(|entry| content.with_live(entry, now)).collect(),
            ..page
        }
    }

    pub(super) fn revoke(&self, id: SessionId, reason: EndReason, idle: Option<Duration>) -> bool {
        let (mut content, now) = self.enter();
        content.sessions.revoke(id, reason, idle, now / 1000)
    }

    pub(super) fn revoke_user(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        idle: Option<Duration>,
    ) -> Vec<SessionId> {
        let (mut content, now) = self.enter();
        let mut ids = content.sessions.ids_of(user);
        ids.retain(|id| {
            Some(*id) != except && content.sessions.revoke(*id, reason, idle, now / 1000)
        });
        ids
    }

    pub(super) fn ids_of(&self, user: &str) -> Vec<SessionId> {
        self.enter().0.sessions.ids_of(user)
    }

    pub(super) fn set_identity(&self, ids: &[SessionId], identity: Identity<'_>) {
        self.enter().0.sessions.set_identity(ids, identity);
    }

    pub(super) fn blacklist(&self, key: &str, ttl: Duration) {
        let (mut content, now) = self.enter();
        let until = (now / 1000).saturating_add(millis(ttl).max(1));
        content.blacklist.insert(key.to_owned(), until);
    }

    pub(super) fn unblacklist(&self, key: &str) -> bool {
        let (mut content, now) = self.enter();
        let until = content.blacklist.remove(key);
        until.is_some_and(|until| now / 1000 < until)
    }

    pub(super) fn are_blacklisted(&self, keys: &[&str]) -> Vec<bool> {
        let (content, now) = self.enter();
        let is_on = |key: &&str| content.is_blacklisted(key, now / 1000);
        keys.iter().map(is_on).collect()
    }

    pub(super) fn cut_off(&self, person: PersonHash, second: Option<u64>) -> u64 {
        let (mut content, now) = self.enter();
        let second = second.unwrap_or(now / 1_000_000);
        let kept = content.cut_offs.entry(person).or_default();
        *kept = (*kept).max(second);
        *kept
    }

    pub(super) fn cut_offs(&self, people: &[PersonHash]) -> Vec<Option<u64>> {
        let (content, _) = self.enter();
        let found = |person: &PersonHash| content.cut_offs.get(person).copied();
        people.iter().map(found).collect()
    }

    pub(super) fn record_uses(&self, uses: &[Use]) {
        let (mut content, now) = self.enter();
        for used in uses {
            content.sessions.record(used, now / 1000);
        }
    }

    /// `used` tells the latest use of a session that may not be written yet.
    pub(super) fn ended_among(
        &self,
        ids: &[SessionId],
        idle: Option<Duration>,
        used: impl Fn(SessionId) -> Millis,
    ) -> Vec<SessionId> {
        let (content, now) = self.enter();
        let mut ended = ids.to_vec();
        ended.retain(|id| {
            let found = content.sessions.find(id, None, used(*id), idle, now / 1000);
            !matches!(found, Found::Active(..))
        });
        ended
    }

    pub(super) fn clean_up(&self) -> (Counts, Removed) {
        let (mut content, now) = self.enter();
        let removed = content.clean_up(now);
        let counts = Counts {
            active_sessions: content.sessions.active(now / 1000),
            cached_profiles: content.profiles.count(),
            blacklisted_tokens: content.blacklist.len() as u64,
            at: now / 1000,
        };
        content.counts = Some(counts);
        (counts, removed)
    }

    pub(super) fn counts(&self) -> Option<Counts> {
        self.enter().0.counts
    }
}

impl Content {
    fn clean_up(&mut self, now: Micros) -> Removed {
        self.counters.clean_up(now);
        let second = now / 1_000_000;
        let now = now / 1000;
        let blacklisted = self.blacklist.len();
        self.blacklist.retain(|_, until| now < *until);
        let kept = CUT_OFF_KEPT.as_secs();
        self.cut_offs.retain(|_, cut| second < *cut + kept);
        self.profiles.clean_up(now);
        let sessions = self.sessions.clean_up(now);
        let known = &self.sessions;
        self.refreshes
            .retain(|id, refresh| now < refresh.kept_until() && known.entry(id, now).is_some());
        Removed {
            sessions,
            index_entries: sessions,
            blacklist: (blacklisted - self.blacklist.len()) as u64,
            live_reports: self.live.clean_up(now),
        }
    }

    /// Reads as the script `decide.lua` does.
    fn decide(&mut self, inquiry: &Inquiry<'_>, idle: Option<Duration>, now: Micros) -> Findings {
        let before: Vec<&Charge> = inquiry.before.iter().collect();
        let mut findings = Findings {
            now: now / 1000,
            session: Found::NotAsked,
            blacklisted: false,
            cut_off: None,
            decisions: Vec::new(),
        };
        if self.counters.refuse(&before, now) {
            findings.decisions = self.counters.settle(&before, false, now);
            return findings;
        }
        if let Some(id) = inquiry.session {
            let known = inquiry.known.as_ref();
            let sessions = &self.sessions;
            findings.session = sessions.find(&id, known, inquiry.last_access, idle, now / 1000);
        }
        findings.blacklisted = inquiry
            .blacklist_key
            .is_some_and(|key| self.is_blacklisted(key, now / 1000));
        findings.cut_off = inquiry
            .cut_off_of
            .and_then(|person| self.cut_offs.get(&person).copied());
        let passes = match &findings.session {
            Found::NotAsked => true,
            Found::Active(session, _) => inquiry.is_met_by(session),
            Found::Missing | Found::Expired(_) | Found::Revoked(_) => false,
        };
        if findings.blacklisted || inquiry.is_cut_off(findings.cut_off) || !passes {
            findings.decisions = self.counters.settle(&before, true, now);
            return findings;
        }
        let mut all = before;
        all.extend(
            inquiry
                .after
                .iter()
                .filter(|charge| match &findings.session {
                    Found::Active(session, _) => charge.limit.binds(&session.roles),
                    _ => true,
                }),
        );
        let spend = !self.counters.refuse(&all, now);
        findings.decisions = self.counters.settle(&all, spend, now);
        findings
    }
}

/// A duration as the engine counts.
fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
