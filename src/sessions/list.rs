//! One session, and lists of them.

use super::durable::DurableSessions;
use super::source::SessionSource;
use super::{SessionError, Sessions};
use crate::auth::session::SessionId;
use crate::clock;
use crate::database::DurableSession;
use crate::store::{SessionEntry, SessionListQuery, SessionPage, StoreError};

impl Sessions {
    /// Reads one session, whatever its status.
    ///
    /// # Errors
    /// When it is not certain whether there is one.
    pub async fn find(&self, id: SessionId) -> Result<Option<SessionEntry>, SessionError> {
        let in_store = self.store.session(id).await;
        let durable = match self.source() {
            SessionSource::Store => return Ok(in_store?),
            SessionSource::Durable(durable) => durable,
        };
        if let Ok(Some(entry)) = in_store {
            return Ok(Some(entry));
        }
        match durable.look_up(id, None).await {
            Ok(Some(row)) => Ok(Some(SessionEntry::from(DurableSession::clone(&row)))),
            // Without a row, only the store could have one.
            Ok(None) => Ok(in_store?),
            Err(_) => Err(StoreError::Unreachable.into()),
        }
    }

    /// Lists a user's sessions, newest first.
    ///
    /// # Errors
    /// When neither store nor database responds.
    pub async fn list(
        &self,
        user: &str,
        query: SessionListQuery<'_>,
    ) -> Result<SessionPage, SessionError> {
        match self.source() {
            SessionSource::Store => Ok(self.store.sessions_of(user, query).await?),
            SessionSource::Durable(durable) => self.list_durable(durable, user, query).await,
        }
    }

    /// Merges what the store and the database list.
    async fn list_durable(
        &self,
        durable: &DurableSessions,
        user: &str,
        query: SessionListQuery<'_>,
    ) -> Result<SessionPage, SessionError> {
        let everything = SessionListQuery {
            status: None,
            address: None,
            limit: usize::MAX,
            cursor: None,
            ..query
        };
        let listed = self.store.sessions_of(user, everything).await;
        let rows = match (durable.sessions_of(user).await, &listed) {
            (Ok(rows), _) => rows,
            (Err(_), Ok(_)) => Vec::new(),
            (Err(error), Err(_)) => return Err(error.into()),
        };
        let (mut entries, now) = match listed {
            Ok(page) => (page.entries, page.now),
            Err(_) => (Vec::new(), clock::unix_millis()),
        };
        for row in rows {
            let same = |entry: &&mut SessionEntry| entry.session.id == row.session.id;
            match entries.iter_mut().find(same) {
                Some(entry) => entry.session.ended = entry.session.ended.or(row.session.ended),
                None => entries.push(row.into()),
            }
        }
        Ok(SessionPage::from_entries(entries, query, now))
    }

    /// Lists the sessions of all users that the store holds, as [`crate::store::Store::all_sessions`] does.
    ///
    /// # Errors
    /// When the store does not respond.
    pub async fn list_all(&self, query: SessionListQuery<'_>) -> Result<SessionPage, StoreError> {
        self.store.all_sessions(query).await
    }
}
