//! One page of a list of sessions.

use std::net::IpAddr;
use std::time::Duration;

use super::{Engine, SessionEntry, Store};
use crate::auth::session::{Millis, SessionId, SessionStatus};

/// Some sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// Newest first.
    pub entries: Vec<SessionEntry>,
    /// How many there are on all pages of a user's sessions. Of everybody's, how many on this one.
    pub total: usize,
    /// Where the next page begins, if there is one.
    pub next_cursor: Option<String>,
    /// The store's clock, for telling how the entries stand.
    pub now: Millis,
}

/// What a list is asked for.
#[derive(Debug, Clone, Copy)]
pub struct SessionListQuery<'a> {
    /// `None`: however they stand.
    pub status: Option<SessionStatus>,
    /// An address they were signed in or used from. `None`: from anywhere.
    pub address: Option<IpAddr>,
    /// The idle timeout, for telling how they stand.
    pub idle: Option<Duration>,
    /// How many at most.
    pub limit: usize,
    /// An earlier page's `next_cursor`; one that is none begins anew.
    pub cursor: Option<&'a str>,
}

impl SessionListQuery<'_> {
    /// Whether this is one of those that are wanted.
    pub(super) fn matches(&self, entry: &SessionEntry, now: Millis) -> bool {
        let SessionEntry { session, activity } = entry;
        let stands = || session.status(activity.last_access, self.idle, now);
        let seen_from = |ip| session.ip == ip || activity.ip_addresses.contains(&ip);
        self.address.is_none_or(seen_from) && self.status.is_none_or(|status| stands() == status)
    }
}

/// What sessions are sorted by, as text: when they were made (16 digits), then their id.
pub(super) fn encode_cursor(created_at: Millis, id: &SessionId) -> String {
    format!("{created_at:016}:{id}")
}

/// Reads a place back.
pub(super) fn decode_cursor(place: &str) -> Option<(Millis, SessionId)> {
    let (created_at, id) = place.split_once(':')?;
    Some((created_at.parse().ok()?, SessionId::parse(id)?))
}

impl SessionPage {
    /// Cuts the page that is wanted out of all entries.
    pub fn from_entries(
        mut entries: Vec<SessionEntry>,
        wanted: SessionListQuery<'_>,
        now: Millis,
    ) -> SessionPage {
        entries.retain(|entry| wanted.matches(entry, now));
        sort_newest_first(&mut entries);
        let total = entries.len();
        if let Some(cursor) = wanted.cursor.and_then(decode_cursor) {
            entries.retain(|entry| (entry.session.created_at, entry.session.id) < cursor);
        }
        let more = entries.len() > wanted.limit;
        entries.truncate(wanted.limit);
        let next_cursor = entries
            .last()
            .filter(|_| more)
            .map(|entry| encode_cursor(entry.session.created_at, &entry.session.id));
        SessionPage {
            entries,
            total,
            next_cursor,
            now,
        }
    }
}

impl Store {
    /// A cursor that [`Store::sessions_of`] gives out, and nothing else.
    pub fn parse_user_cursor(cursor: &str) -> Option<String> {
        let (created_at, id) = decode_cursor(cursor)?;
        Some(encode_cursor(created_at, &id)).filter(|place| place == cursor)
    }

    /// A cursor that [`Store::all_sessions`] gives out, and nothing else.
    pub fn parse_cursor(&self, cursor: &str) -> Option<String> {
        match &self.engine {
            Engine::Memory(_) => Store::parse_user_cursor(cursor),
            Engine::Redis(_) => super::redis::is_cursor(cursor).then(|| cursor.to_owned()),
        }
    }
}

/// Sorts entries by age.
pub(super) fn sort_newest_first(entries: &mut [SessionEntry]) {
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.session.created_at, entry.session.id)));
}
