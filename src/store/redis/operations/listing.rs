//! Lists of sessions: one user's by their index, everybody's by a scan of the keys.

use std::time::Duration;

use super::maintenance::ScanPosition;
use crate::auth::session::SessionId;
use crate::store::page::{SessionListQuery, sort_newest_first};
use crate::store::redis::Redis;
use crate::store::redis::codec::keys::SESSION;
use crate::store::{SessionEntry, SessionPage, StoreError};
use crate::telemetry::metrics::StoreOperation;

/// How many keys one page of everybody's sessions looks at, roughly.
const KEYS_PER_PAGE: u32 = 4_000;
/// How many keys one step of it looks at, at most.
const SCAN_STEP: u32 = 1_000;
/// How many sessions a cursor may carry along. A step gives a few too many at most.
const MAX_CARRIED: usize = 500;

impl Redis {
    pub(in crate::store) async fn sessions_of(
        &self,
        user: &str,
        wanted: SessionListQuery<'_>,
    ) -> Result<SessionPage, StoreError> {
        let ids: Vec<SessionId> = self.user_index(user).await?.keys().copied().collect();
        let (now, entries) = self.entries(StoreOperation::SessionsOf, &ids).await?;
        let present = entries.into_iter().flatten().collect();
        Ok(SessionPage::from_entries(present, wanted, now))
    }

    /// A step of a scan cannot be told to stop at the page's end: what is too much goes into the
    /// cursor, and to the next page.
    pub(in crate::store) async fn all_sessions(
        &self,
        wanted: SessionListQuery<'_>,
        deadline: Duration,
    ) -> Result<SessionPage, StoreError> {
        let (mut place, mut ids) = wanted.cursor.and_then(parse_cursor).unwrap_or_default();
        let (mut found, mut looked_at, mut many) = (Vec::new(), 0, 0);
        let mut begun = place != ScanPosition::default() || !ids.is_empty();
        let now = loop {
            let (now, entries) = self
                .with_deadline(deadline, self.entries(StoreOperation::AllSessions, &ids))
                .await?;
            let present = entries.into_iter().flatten();
            let entries: Vec<SessionEntry> =
                present.filter(|entry| wanted.matches(entry, now)).collect();
            let missing = wanted.limit.saturating_sub(found.len() + entries.len());
            let missing = u32::try_from(missing).unwrap_or(SCAN_STEP);
            // Where sessions are rare among the keys, the steps grow.
            many = if entries.is_empty() { many * 2 } else { 0 }
                .clamp(missing, SCAN_STEP.max(missing));
            found.extend(entries);
            if missing == 0
                || looked_at >= KEYS_PER_PAGE
                || (begun && place == ScanPosition::default())
            {
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
        sort_newest_first(&mut found);
        // A scan may give one twice.
        found.dedup_by_key(|entry| entry.session.id);
        Ok(SessionPage {
            total: found.len(),
            entries: found,
            next_cursor: encode_cursor(place, &carried),
            now,
        })
    }
}

/// Where the scan goes on (0: it is through), then the sessions that did not fit on the page.
fn encode_cursor(place: ScanPosition, carried: &[SessionEntry]) -> Option<String> {
    if place == ScanPosition::default() && carried.is_empty() {
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
pub(in crate::store) fn is_cursor(cursor: &str) -> bool {
    parse_cursor(cursor).is_some()
}

fn parse_cursor(cursor: &str) -> Option<(ScanPosition, Vec<SessionId>)> {
    let mut parts = cursor.split('.');
    let place = parts.next()?;
    let (server, cursor) = place.split_once('-').unwrap_or(("0", place));
    let place = ScanPosition {
        server: server.parse().ok()?,
        cursor: cursor.parse().ok()?,
    };
    let ids: Option<Vec<SessionId>> = parts.map(SessionId::parse).collect();
    let ids = ids.filter(|ids| ids.len() <= MAX_CARRIED)?;
    Some((place, ids))
}
