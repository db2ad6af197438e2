//! The revocations that are no session's end: tokens one by one, and people's tokens up to a second.
//! Where sessions outlive the store, so do these: written here before anybody hears of them, or as soon
//! as they are heard of, where a program has written them to the store.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};

use super::super::SessionError;
use super::replay::REPLAY_WINDOW_MS;
use super::{DatabaseUnavailable, DurableSessions, LOOKUP_TIMEOUT};
use crate::auth::session::Millis;
use crate::database::{self, LoggedRevocation, RevocationSubject};
use crate::store::{CUT_OFF_TTL, CacheKey, Revocation, Store, StoreError, UserHash};

/// How long a cut-off is kept: as in the store.
const CUT_OFF_TTL_MS: Millis = CUT_OFF_TTL.as_secs() * 1000;
/// Nothing is kept for longer than so many milliseconds: ten years.
const MAX_TTL_MS: Millis = 3_653 * 86_400_000;
/// Every gateway hears the same. They write at different moments within this time: mostly one of them
/// does, and the others find it done.
const WRITE_JITTER: Duration = Duration::from_millis(500);
/// The pause after an attempt to write them that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How many are dealt with at once.
const BATCH_SIZE: usize = 500;

/// What the database refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sessions) struct RevocationLookup {
    pub(in crate::sessions) is_token_revoked: bool,
    /// The second up to which the person's tokens without session are.
    pub(in crate::sessions) cut_off: Option<u64>,
}

impl DurableSessions {
    /// Refuses a token: here first, for so long from now.
    ///
    /// # Errors
    /// When the database does not do it.
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

    /// Refuses a person's tokens without session up to a second.
    ///
    /// # Errors
    /// When the database does not do it.
    pub(in crate::sessions) async fn revoke_issued_before(
        &self,
        person: UserHash,
        second: u64,
        now: Millis,
    ) -> Result<(), database::Error> {
        let revocation = LoggedRevocation {
            subject: RevocationSubject::IssuedBefore(person, second),
            made_at: now,
            until: now.saturating_add(CUT_OFF_TTL_MS),
        };
        self.database.upsert_revocation(&revocation, true).await
    }

    /// What the database refuses, while the store may lack it: this token, and up to a second those of
    /// this person that have no session.
    ///
    /// # Errors
    /// When it does not answer, or may lack something itself.
    pub(in crate::sessions) async fn look_up_revocations(
        &self,
        key: &str,
        person: Option<UserHash>,
    ) -> Result<RevocationLookup, DatabaseUnavailable> {
        if !self.is_log_complete() {
            return Err(DatabaseUnavailable);
        }
        let asking = async {
            self.shared.check_not_paused()?;
            let turn = self.shared.lookup_slots.acquire().await;
            let _turn = turn.map_err(|_| DatabaseUnavailable)?;
            let asked = self.database.look_up_revocations(key, person);
            asked.await.map_err(|error| {
                self.note_failure(&error);
                DatabaseUnavailable
            })
        };
        let (token, cut_off) = timeout(LOOKUP_TIMEOUT / 2, asking)
            .await
            .unwrap_or(Err(DatabaseUnavailable))?;
        Ok(RevocationLookup {
            is_token_revoked: token,
            cut_off,
        })
    }

    /// Refuses a token no longer, as far as this goes.
    ///
    /// # Errors
    /// When the database does not do it.
    pub(in crate::sessions) async fn unrevoke_token(
        &self,
        key: &str,
    ) -> Result<(), database::Error> {
        self.database.delete_revocation(key).await
    }

    /// Writes what others revoked, for ever.
    pub(in crate::sessions) async fn record_announced_revocations(self, store: Store) {
        let mut heard = store.subscribe();
        let mut waiting: HashSet<RevocationSubject> = HashSet::new();
        loop {
            if waiting.is_empty() {
                match heard.recv().await {
                    Ok(revocation) => waiting.extend(loggable_revocation(revocation)),
                    // What was missed is found by the next clean-up.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
            if waiting.is_empty() || self.if_enabled().is_none() {
                waiting.clear();
                continue;
            }
            sleep(WRITE_JITTER.mul_f64(rand::random_range(0.2..=1.0))).await;
            while let Ok(revocation) = heard.try_recv() {
                waiting.extend(loggable_revocation(revocation));
                if waiting.len() >= BATCH_SIZE {
                    break;
                }
            }
            let batch: Vec<RevocationSubject> = waiting.drain().collect();
            if let Err(error) = self.record_missing(&store, &batch).await {
                tracing::warn!(%error, "revocations that were heard wait to be written to the database");
                waiting.extend(batch);
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Writes what a clean-up came upon in the store: a program may have written it when nobody heard.
    ///
    /// # Errors
    /// When one of the two does not answer; the next clean-up comes upon it again.
    pub(in crate::sessions) async fn record_existing_revocations(
        &self,
        store: &Store,
        items: Vec<CacheKey>,
    ) -> Result<(), SessionError> {
        let (mut found, mut people) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                CacheKey::Session(_) => {}
                CacheKey::Token(key) => found.extend(loggable_revocation(Revocation::Token(key))),
                CacheKey::User(person) => people.push(person),
            }
        }
        for step in people.chunks(BATCH_SIZE) {
            let there = store.look_up_cut_offs(step.iter().copied()).await?;
            let there = there.into_iter();
            found.extend(
                there.filter_map(|(person, at)| Some(RevocationSubject::IssuedBefore(person, at?))),
            );
        }
        for step in found.chunks(BATCH_SIZE) {
            self.record_missing(store, step).await?;
        }
        Ok(())
    }

    /// Writes those that are not written.
    async fn record_missing(
        &self,
        store: &Store,
        heard: &[RevocationSubject],
    ) -> Result<(), SessionError> {
        let unkept = self.database.missing_revocations(heard).await?;
        if unkept.is_empty() {
            return Ok(());
        }
        let now = store.now().await?;
        let tokens = unkept.iter().filter_map(|revoked| match revoked {
            RevocationSubject::Token(key) => Some(key.as_str()),
            RevocationSubject::IssuedBefore(..) => None,
        });
        let tokens: Vec<&str> = tokens.collect();
        let lives = store.blacklist_ttls(&tokens).await?;
        for revoked in &unkept {
            let left = match revoked {
                RevocationSubject::IssuedBefore(..) => Some(CUT_OFF_TTL_MS),
                RevocationSubject::Token(key) => {
                    let left = lives.get(key.as_str()).ok_or(StoreError::Malformed)?;
                    left.map(|left| {
                        let left = Millis::try_from(left.as_millis()).unwrap_or(MAX_TTL_MS);
                        left.min(MAX_TTL_MS)
                    })
                }
            };
            let Some(left) = left else {
                // It was taken back.
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

    /// Brings everything back to a store that has lost it.
    pub(super) async fn replay_all_revocations(
        &self,
        store: &Store,
        now: Millis,
    ) -> Result<(), SessionError> {
        self.replay_revocations_since(store, 0, now).await
    }

    /// Tells a store that has come back, perhaps with an older state, what was revoked lately.
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
            let directory = &self.database;
            let kept = directory
                .revocations_since(since, after.as_ref(), now)
                .await?;
            let Some(last) = kept.last() else {
                return Ok(());
            };
            after = Some(last.subject.clone());
            store
                .restore_revocations(&to_store_revocations(&kept), now)
                .await?;
        }
    }

    /// Tells the store of revocations that it was not told of.
    pub(super) async fn replay_pending_revocations(
        &self,
        store: &Store,
        now: Millis,
    ) -> Result<(), SessionError> {
        loop {
            let untold = self.database.pending_revocations().await?;
            if untold.is_empty() {
                return Ok(());
            }
            store
                .restore_revocations(&to_store_revocations(&untold), now)
                .await?;
            self.database.mark_revocations_replayed(&untold).await?;
        }
    }
}

/// What is kept here of what is announced. A text with a NUL no database takes.
fn loggable_revocation(revocation: Revocation) -> Option<RevocationSubject> {
    match revocation {
        Revocation::Session(_) => None,
        Revocation::Token(key) => (!key.contains('\0')).then_some(RevocationSubject::Token(key)),
        Revocation::IssuedBefore(person, second) => {
            Some(RevocationSubject::IssuedBefore(person, second))
        }
    }
}

fn to_store_revocations(kept: &[LoggedRevocation]) -> Vec<(Revocation, Millis)> {
    let told = kept.iter().map(|kept| {
        let revocation = match &kept.subject {
            RevocationSubject::Token(key) => Revocation::Token(key.clone()),
            RevocationSubject::IssuedBefore(person, second) => {
                Revocation::IssuedBefore(*person, *second)
            }
        };
        (revocation, kept.until)
    });
    told.collect()
}
