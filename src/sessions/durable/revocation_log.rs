//! Log of revocations other than ends of sessions: single tokens, and a user's tokens up to a
//! second. Where sessions outlive the store, so do these: they are logged before they are reported,
//! or, when another program has written them to the store, as soon as they are announced.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

use super::super::SessionError;
use super::replay::REPLAY_WINDOW_MS;
use super::{DatabaseUnavailable, DurableSessions};
use crate::auth::session::Millis;
use crate::database::{self, LoggedRevocation, RevocationSubject};
use crate::store::{CUT_OFF_TTL, CacheKey, Revocation, Store, StoreError, UserHash};

/// How long a cut-off is kept, as in the store.
const CUT_OFF_TTL_MS: Millis = CUT_OFF_TTL.as_secs() * 1000;
/// Maximum lifetime of an entry, in milliseconds: ten years.
const MAX_TTL_MS: Millis = 3_653 * 86_400_000;
/// Every gateway receives the same announcements. A random delay up to this time lets one of them
/// write and the others find the entry written.
const WRITE_JITTER: Duration = Duration::from_millis(500);
/// The pause after a failed write.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of revocations per batch.
const BATCH_SIZE: usize = 500;

/// The revocations in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sessions) struct RevocationLookup {
    pub(in crate::sessions) is_token_revoked: bool,
    /// The second up to which the user's tokens without a session are revoked.
    pub(in crate::sessions) cut_off: Option<u64>,
}

impl DurableSessions {
    /// Revokes a token for this long from now, first in the database.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn revoke_token(
        &self,
        key: &str,
        ttl: Duration,
        now: Millis,
    ) -> Result<(), database::Error> {
        let ttl = Millis::try_from(ttl.as_millis()).unwrap_or(MAX_TTL_MS);
        let revocation = LoggedRevocation {
            subject: RevocationSubject::Token(key.to_owned()),
            made_at: now,
            until: now.saturating_add(ttl.min(MAX_TTL_MS)),
        };
        self.database.upsert_revocation(&revocation, true).await
    }

    /// Revokes a user's tokens without a session up to a second.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn revoke_issued_before(
        &self,
        user: UserHash,
        second: u64,
        now: Millis,
    ) -> Result<(), database::Error> {
        let revocation = LoggedRevocation {
            subject: RevocationSubject::IssuedBefore(user, second),
            made_at: now,
            until: now.saturating_add(CUT_OFF_TTL_MS),
        };
        self.database.upsert_revocation(&revocation, true).await
    }

    /// Looks up the logged revocations while the store may lack them: of this token, and of this
    /// user's tokens without a session up to a second.
    ///
    /// # Errors
    /// The database does not respond, or may lack entries itself.
    pub(in crate::sessions) async fn look_up_revocations(
        &self,
        key: &str,
        user: Option<UserHash>,
    ) -> Result<RevocationLookup, DatabaseUnavailable> {
        if !self.is_log_complete() {
            return Err(DatabaseUnavailable);
        }
        let query = self.database.look_up_revocations(key, user);
        let (token, cut_off) = self.shared.rows.query(query).await?;
        Ok(RevocationLookup {
            is_token_revoked: token,
            cut_off,
        })
    }

    /// Takes back a token's revocation in the database.
    ///
    /// # Errors
    /// The database does not perform it.
    pub(in crate::sessions) async fn unrevoke_token(
        &self,
        key: &str,
    ) -> Result<(), database::Error> {
        self.database.delete_revocation(key).await
    }

    /// Logs announced revocations, forever.
    pub(in crate::sessions) async fn record_announced_revocations(self, store: Store) {
        let mut announced = store.subscribe();
        let mut waiting: HashSet<RevocationSubject> = HashSet::new();
        loop {
            if waiting.is_empty() {
                match announced.recv().await {
                    Ok(revocation) => waiting.extend(loggable_revocation(revocation)),
                    // The next clean-up finds missed announcements.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
            if waiting.is_empty() || self.if_enabled().is_none() {
                waiting.clear();
                continue;
            }
            sleep(WRITE_JITTER.mul_f64(rand::random_range(0.2..=1.0))).await;
            while let Ok(revocation) = announced.try_recv() {
                waiting.extend(loggable_revocation(revocation));
                if waiting.len() >= BATCH_SIZE {
                    break;
                }
            }
            let batch: Vec<RevocationSubject> = waiting.drain().collect();
            if let Err(error) = self.record_missing(&store, &batch).await {
                tracing::warn!(%error, "announced revocations wait to be written to the database");
                waiting.extend(batch);
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Logs revocations that a clean-up found in the store: their announcement may have been
    /// missed.
    ///
    /// # Errors
    /// Store or database does not respond; the next clean-up finds them again.
    pub(in crate::sessions) async fn record_existing_revocations(
        &self,
        store: &Store,
        items: Vec<CacheKey>,
    ) -> Result<(), SessionError> {
        let (mut found, mut users) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                CacheKey::Session(_) => {}
                CacheKey::Token(key) => found.extend(loggable_revocation(Revocation::Token(key))),
                CacheKey::User(user) => users.push(user),
            }
        }
        for step in users.chunks(BATCH_SIZE) {
            let cut_offs = store.look_up_cut_offs(step.iter().copied()).await?;
            let cut_offs = cut_offs.into_iter();
            found.extend(
                cut_offs.filter_map(|(user, at)| Some(RevocationSubject::IssuedBefore(user, at?))),
            );
        }
        for step in found.chunks(BATCH_SIZE) {
            self.record_missing(store, step).await?;
        }
        Ok(())
    }

    /// Logs the revocations that are not logged yet.
    async fn record_missing(
        &self,
        store: &Store,
        announced: &[RevocationSubject],
    ) -> Result<(), SessionError> {
        let missing = self.database.missing_revocations(announced).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let now = store.now().await?;
        let tokens = missing.iter().filter_map(|revoked| match revoked {
            RevocationSubject::Token(key) => Some(key.as_str()),
            RevocationSubject::IssuedBefore(..) => None,
        });
        let tokens: Vec<&str> = tokens.collect();
        let ttls = store.blacklist_ttls(&tokens).await?;
        for revoked in &missing {
            let left = match revoked {
                RevocationSubject::IssuedBefore(..) => Some(CUT_OFF_TTL_MS),
                RevocationSubject::Token(key) => {
                    let left = ttls.get(key.as_str()).ok_or(StoreError::Malformed)?;
                    left.map(|left| {
                        let left = Millis::try_from(left.as_millis()).unwrap_or(MAX_TTL_MS);
                        left.min(MAX_TTL_MS)
                    })
                }
            };
            let Some(left) = left else {
                // The revocation was taken back.
                continue;
            };
            let revocation = LoggedRevocation {
                subject: revoked.clone(),
                made_at: now,
                until: now.saturating_add(left),
            };
            self.database.upsert_revocation(&revocation, false).await?;
        }
        Ok(())
    }

    /// Replays all revocations to a store that has lost its data.
    pub(super) async fn replay_all_revocations(
        &self,
        store: &Store,
        now: Millis,
    ) -> Result<(), SessionError> {
        self.replay_revocations_since(store, 0, now).await
    }

    /// Replays recent revocations to a store that has come back, perhaps with an older state.
    pub(super) async fn replay_recent_revocations(
        &self,
        store: &Store,
        now: Millis,
    ) -> Result<(), SessionError> {
        let since = now.saturating_sub(REPLAY_WINDOW_MS);
        self.replay_revocations_since(store, since, now).await
    }

    async fn replay_revocations_since(
        &self,
        store: &Store,
        since: Millis,
        now: Millis,
    ) -> Result<(), SessionError> {
        let mut after: Option<RevocationSubject> = None;
        loop {
            let logged = self
                .database
                .revocations_since(since, after.as_ref(), now)
                .await?;
            let Some(last) = logged.last() else {
                return Ok(());
            };
            after = Some(last.subject.clone());
            store
                .restore_revocations(&to_store_revocations(&logged), now)
                .await?;
        }
    }

    /// Replays pending revocations to the store.
    pub(super) async fn replay_pending_revocations(
        &self,
        store: &Store,
        now: Millis,
    ) -> Result<(), SessionError> {
        loop {
            let pending = self.database.pending_revocations().await?;
            if pending.is_empty() {
                return Ok(());
            }
            store
                .restore_revocations(&to_store_revocations(&pending), now)
                .await?;
            self.database.mark_revocations_replayed(&pending).await?;
        }
    }
}

/// The part of an announced revocation that is logged. PostgreSQL stores no text with a NUL.
fn loggable_revocation(revocation: Revocation) -> Option<RevocationSubject> {
    match revocation {
        Revocation::Session(_) => None,
        Revocation::Token(key) => (!key.contains('\0')).then_some(RevocationSubject::Token(key)),
        Revocation::IssuedBefore(user, second) => {
            Some(RevocationSubject::IssuedBefore(user, second))
        }
    }
}

fn to_store_revocations(logged: &[LoggedRevocation]) -> Vec<(Revocation, Millis)> {
    let revocations = logged.iter().map(|logged| {
        let revocation = match &logged.subject {
            RevocationSubject::Token(key) => Revocation::Token(key.clone()),
            RevocationSubject::IssuedBefore(user, second) => {
                Revocation::IssuedBefore(*user, *second)
            }
        };
        (revocation, logged.until)
    });
    revocations.collect()
}
