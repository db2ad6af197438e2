//! Pages of session lists.

use std::net::IpAddr;
use std::time::Duration;

use super::{Engine, SessionEntry, Store};
use crate::auth::session::{Millis, SessionId, SessionStatus};

/// One page of a session list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// Newest first.
    pub entries: Vec<SessionEntry>,
    /// Number of sessions on all pages of a user's list; in the list of all users, on this page.
    pub total: usize,
    /// Start of the next page, if there is one.
    pub next_cursor: Option<String>,
    /// The store's time, to derive the status of the entries.
    pub now: Millis,
}

/// Filter and position of a session list.
#[derive(Debug, Clone, Copy)]
pub struct SessionListQuery<'a> {
    /// `None`: any status.
    pub status: Option<SessionStatus>,
    /// Address from which the session was created or used. `None`: any address.
    pub address: Option<IpAddr>,
    /// The idle timeout, to derive the status.
    pub idle: Option<Duration>,
    /// Largest number of entries.
    pub limit: usize,
    /// `next_cursor` of an earlier page; an invalid one starts at the beginning.
    pub cursor: Option<&'a str>,
}

impl SessionListQuery<'_> {
    /// Whether an entry matches the filter.
    pub(super) fn matches(&self, entry: &SessionEntry, now: Millis) -> bool {
        let SessionEntry { session, activity } = entry;
        let has_status = |status| session.status(activity.last_access, self.idle, now) == status;
        let has_address = |ip| session.ip == ip || activity.ip_addresses.contains(&ip);
        self.address.is_none_or(has_address) && self.status.is_none_or(has_status)
    }
}

/// Encodes the sort key of a session: its creation time (16 digits) and its id.
pub(super) fn encode_cursor(created_at: Millis, id: &SessionId) -> String {
    format!("{created_at:016}:{id}")
}

/// Decodes the sort key of a session.
pub(super) fn decode_cursor(cursor: &str) -> Option<(Millis, SessionId)> {
    let (created_at, id) = cursor.split_once(':')?;
    Some((created_at.parse().ok()?, SessionId::parse(id)?))
}

impl SessionPage {
    /// Filters and sorts all entries, and returns the requested page.
    pub fn from_entries(
        mut entries: Vec<SessionEntry>,
        query: SessionListQuery<'_>,
        now: Millis,
    ) -> SessionPage {
        entries.retain(|entry| query.matches(entry, now));
        sort_newest_first(&mut entries);
        let total = entries.len();
        if let Some(cursor) = query.cursor.and_then(decode_cursor) {
            entries.retain(|entry| (entry.session.created_at, entry.session.id) < cursor);
        }
        let has_more = entries.len() > query.limit;
        entries.truncate(query.limit);
        let next_cursor = entries
            .last()
            .filter(|_| has_more)
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
    /// Accepts only cursors of the form that [`Store::sessions_of`] returns.
    pub fn parse_user_cursor(cursor: &str) -> Option<String> {
        let (created_at, id) = decode_cursor(cursor)?;
        Some(encode_cursor(created_at, &id)).filter(|canonical| canonical == cursor)
    }

    /// Accepts only cursors of the form that [`Store::all_sessions`] returns.
    pub fn parse_cursor(&self, cursor: &str) -> Option<String> {
        match &self.engine {
            Engine::Memory(_) => Store::parse_user_cursor(cursor),
            Engine::Redis(_) => super::redis::is_cursor(cursor).then(|| cursor.to_owned()),
        }
    }
}

/// Sorts entries by creation time, newest first.
pub(super) fn sort_newest_first(entries: &mut [SessionEntry]) {
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.session.created_at, entry.session.id)));
}
