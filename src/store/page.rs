//! One page of a list of sessions.

use std::net::IpAddr;
use std::time::Duration;

use super::{Engine, Entry, Store};
use crate::auth::session::{Millis, SessionId, Status};

/// Some sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Newest first.
    pub entries: Vec<Entry>,
    /// How many there are on all pages of a user's sessions. Of everybody's, how many on this one.
    pub total: usize,
    /// Where the next page begins, if there is one.
    pub next_cursor: Option<String>,
    /// The store's clock, for telling how the entries stand.
    pub now: Millis,
}

/// What a list is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `None`: however they stand.
    pub status: Option<Status>,
    /// An address they were signed in or used from. `None`: from anywhere.
    pub address: Option<IpAddr>,
    /// The idle timeout, for telling how they stand.
    pub idle: Option<Duration>,
    /// How many at most.
    pub limit: usize,
    /// An earlier page's `next_cursor`; one that is none begins anew.
    pub cursor: Option<&'a str>,
}

impl Wanted<'_> {
    /// Whether this is one of those that are wanted.
    pub(super) fn includes(&self, entry: &Entry, now: Millis) -> bool {
        let Entry { session, activity } = entry;
        let stands = || session.status(activity.last_access, self.idle, now);
        let seen_from = |ip| session.ip == ip || activity.ip_addresses.contains(&ip);
        self.address.is_none_or(seen_from) && self.status.is_none_or(|status| stands() == status)
    }
}

/// What sessions are sorted by, as text: when they were made (16 digits), then their id.
pub(super) fn place(created_at: Millis, id: &SessionId) -> String {
    format!("{created_at:016}:{id}")
}

/// Reads a place back.
pub(super) fn parse_place(place: &str) -> Option<(Millis, SessionId)> {
    let (created_at, id) = place.split_once(':')?;
    Some((created_at.parse().ok()?, SessionId::parse(id)?))
}

impl Page {
    /// Cuts the page that is wanted out of all entries.
    pub fn cut(mut entries: Vec<Entry>, wanted: Wanted<'_>, now: Millis) -> Page {
        entries.retain(|entry| wanted.includes(entry, now));
        newest_first(&mut entries);
        let total = entries.len();
        if let Some(cursor) = wanted.cursor.and_then(parse_place) {
            entries.retain(|entry| (entry.session.created_at, entry.session.id) < cursor);
        }
        let more = entries.len() > wanted.limit;
        entries.truncate(wanted.limit);
        let next_cursor = entries
            .last()
            .filter(|_| more)
            .map(|entry| place(entry.session.created_at, &entry.session.id));
        Page {
            entries,
            total,
            next_cursor,
            now,
        }
    }
}

impl Store {
    /// A cursor that [`Store::sessions_of`] gives out, and nothing else.
    pub fn is_cursor_of_user(cursor: &str) -> Option<String> {
        let (created_at, id) = parse_place(cursor)?;
        Some(place(created_at, &id)).filter(|place| place == cursor)
    }

    /// A cursor that [`Store::all_sessions`] gives out, and nothing else.
    pub fn is_cursor_of_all(&self, cursor: &str) -> Option<String> {
        match &self.engine {
            Engine::Memory(_) => Store::is_cursor_of_user(cursor),
            Engine::Redis(_) => super::redis::is_cursor(cursor).then(|| cursor.to_owned()),
        }
    }
}

/// Sorts entries by age.
pub(super) fn newest_first(entries: &mut [Entry]) {
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.session.created_at, entry.session.id)));
}
