//! Lists of sessions: one user's by their index, everybody's by a scan of the keys.

use std::time::Duration;

use super::super::page::{Wanted, newest_first};
use super::super::{Entry, Page, StoreError};
use super::Redis;
use super::keys::SESSION;
use super::upkeep::Place;
use crate::auth::session::SessionId;

/// How many keys one page of everybody's sessions looks at, roughly.
const KEYS: u32 = 4_000;
/// How many keys one step of it looks at, at most.
const STEP: u32 = 1_000;
/// How many sessions a cursor may carry along. A step gives a few too many at most.
const CARRIED: usize = 500;

impl Redis {
    pub(in super::super) async fn sessions_of(
        &self,
        user: &str,
        wanted: Wanted<'_>,
    ) -> Result<Page, StoreError> {
        let ids: Vec<SessionId> = self.index_of(user).await?.keys().copied().collect();
        let (now, entries) = self.entries("sessions_of", &ids).await?;
        let present = entries.into_iter().flatten().collect();
        Ok(Page::cut(present, wanted, now))
    }

    /// A step of a scan cannot be told to stop at the page's end: what is too much goes into the
    /// cursor, and to the next page.
    pub(in super::super) async fn all_sessions(
        &self,
        wanted: Wanted<'_>,
        deadline: Duration,
    ) -> Result<Page, StoreError> {
        let (mut place, mut ids) = wanted.cursor.and_then(parse_cursor).unwrap_or_default();
        let (mut found, mut looked_at, mut many) = (Vec::new(), 0, 0);
        let mut begun = place != Place::default() || !ids.is_empty();
        let now = loop {
            let (now, entries) = self
                .within(deadline, self.entries("all_sessions", &ids))
                .await?;
            let present = entries.into_iter().flatten();
            let entries: Vec<Entry> = present
                .filter(|entry| wanted.includes(entry, now))
                .collect();
            let missing = wanted.limit.saturating_sub(found.len() + entries.len());
            let missing = u32::try_from(missing).unwrap_or(STEP);
            // Where sessions are rare among the keys, the steps grow.
            many = if entries.is_empty() { many * 2 } else { 0 }.clamp(missing, STEP.max(missing));
            found.extend(entries);
            if missing == 0 || looked_at >= KEYS || (begun && place == Place::default()) {
                break now;
            }
            begun = true;
            looked_at += many;
            let keys = self.scan(deadline, SESSION, many, &mut place).await?;
            ids = keys
                .iter()
                .filter_map(|k| self.keys.session_id(k))
                .collect();
        };
        let carried = found.split_off(wanted.limit.min(found.len()));
        newest_first(&mut found);
        // A scan may give one twice.
        found.dedup_by_key(|entry| entry.session.id);
        Ok(Page {
            total: found.len(),
            entries: found,
            next_cursor: cursor(place, &carried),
            now,
        })
    }
}

/// Where the scan goes on (0: it is through), then the sessions that did not fit on the page.
fn cursor(place: Place, carried: &[Entry]) -> Option<String> {
    if place == Place::default() && carried.is_empty() {
        return None;
    }
    let mut cursor = match place.server {
        0 => place.cursor.to_string(),
        server => format!("{server}-{}", place.cursor),
    };
    for entry in carried {
        cursor += &format!(".{}", entry.session.id);
    }
    Some(cursor)
}

/// Whether this is a cursor that [`Redis::all_sessions`] gives out.
pub(in super::super) fn is_cursor(cursor: &str) -> bool {
    parse_cursor(cursor).is_some()
}

fn parse_cursor(cursor: &str) -> Option<(Place, Vec<SessionId>)> {
    let mut parts = cursor.split('.');
    let place = parts.next()?;
    let (server, cursor) = place.split_once('-').unwrap_or(("0", place));
    let place = Place {
        server: server.parse().ok()?,
        cursor: cursor.parse().ok()?,
    };
    let ids: Option<Vec<SessionId>> = parts.map(SessionId::parse).collect();
    let ids = ids.filter(|ids| ids.len() <= CARRIED)?;
    Some((place, ids))
}
