//! Session lists: of one user by the user's index, of all users by a scan of the keys.

use std::time::Duration;

use super::maintenance::ScanPosition;
use crate::auth::session::SessionId;
use crate::store::page::{SessionListQuery, sort_newest_first};
use crate::store::redis::Redis;
use crate::store::redis::codec::keys::SESSION;
use crate::store::{SessionEntry, SessionPage, StoreError};
use crate::telemetry::metrics::StoreOperation;

/// Approximate number of keys scanned per page of the list of all users.
const KEYS_PER_PAGE: u32 = 4_000;
/// Largest number of keys scanned per step.
const SCAN_STEP: u32 = 1_000;
/// Largest number of sessions in a cursor: those of a scan step that did not fit on the page.
const MAX_CARRIED: usize = 500;

impl Redis {
    pub(in crate::store) async fn sessions_of(
        &self,
        user: &str,
        query: SessionListQuery<'_>,
    ) -> Result<SessionPage, StoreError> {
        let ids: Vec<SessionId> = self.user_index(user).await?.keys().copied().collect();
        let (now, entries) = self.entries(StoreOperation::SessionsOf, &ids).await?;
        let present = entries.into_iter().flatten().collect();
        Ok(SessionPage::from_entries(present, query, now))
    }

    /// Lists the sessions of all users.
    ///
    /// A scan step cannot stop at the end of the page: excess sessions are carried in the cursor to
    /// the next page.
    pub(in crate::store) async fn all_sessions(
        &self,
        query: SessionListQuery<'_>,
        deadline: Duration,
    ) -> Result<SessionPage, StoreError> {
        let (mut position, mut ids) = query.cursor.and_then(parse_cursor).unwrap_or_default();
        let (mut listed, mut scanned, mut count) = (Vec::new(), 0, 0);
        let mut has_begun = position != ScanPosition::default() || !ids.is_empty();
        let now = loop {
            let (now, entries) = self
                .with_deadline(deadline, self.entries(StoreOperation::AllSessions, &ids))
                .await?;
            let present = entries.into_iter().flatten();
            let entries: Vec<SessionEntry> =
                present.filter(|entry| query.matches(entry, now)).collect();
            let missing = query.limit.saturating_sub(listed.len() + entries.len());
            let missing = u32::try_from(missing).unwrap_or(SCAN_STEP);
            // If sessions are rare among the keys, the steps grow.
            count = if entries.is_empty() { count * 2 } else { 0 }
                .clamp(missing, SCAN_STEP.max(missing));
            listed.extend(entries);
            if missing == 0
                || scanned >= KEYS_PER_PAGE
                || (has_begun && position == ScanPosition::default())
            {
                break now;
            }
            has_begun = true;
            scanned += count;
            let keys = self.scan(deadline, SESSION, count, &mut position).await?;
            ids = keys
                .iter()
                .filter_map(|k| self.keys.session_id(k))
                .collect();
        };
        let carried = listed.split_off(query.limit.min(listed.len()));
        sort_newest_first(&mut listed);
        // A scan may return a key twice.
        listed.dedup_by_key(|entry| entry.session.id);
        Ok(SessionPage {
            total: listed.len(),
            entries: listed,
            next_cursor: encode_cursor(position, &carried),
            now,
        })
    }
}

/// Encodes the scan position (0: complete) and the sessions that did not fit on the page.
fn encode_cursor(position: ScanPosition, carried: &[SessionEntry]) -> Option<String> {
    if position == ScanPosition::default() && carried.is_empty() {
        return None;
    }
    let mut cursor = match position.server {
        0 => position.cursor.to_string(),
        server => format!("{server}-{}", position.cursor),
    };
    for entry in carried {
        cursor += &format!(".{}", entry.session.id);
    }
    Some(cursor)
}

/// Whether this is a cursor of [`Redis::all_sessions`].
pub(in crate::store) fn is_cursor(cursor: &str) -> bool {
    parse_cursor(cursor).is_some()
}

fn parse_cursor(cursor: &str) -> Option<(ScanPosition, Vec<SessionId>)> {
    let mut parts = cursor.split('.');
    let position = parts.next()?;
    let (server, cursor) = position.split_once('-').unwrap_or(("0", position));
    let position = ScanPosition {
        server: server.parse().ok()?,
        cursor: cursor.parse().ok()?,
    };
    let ids: Option<Vec<SessionId>> = parts.map(SessionId::parse).collect();
    let ids = ids.filter(|ids| ids.len() <= MAX_CARRIED)?;
    Some((position, ids))
}
