//! The revocations that are no session's end: tokens one by one, and people's tokens up to a second.
//! Where sessions outlive the store, so do these: written here before anybody hears of them, or as soon
//! as they are heard of, where a program has written them to the store.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};

use super::telling::{TOLD_AGAIN, Untold};
use super::{Durable, NoAnswer, PATIENCE};
use crate::auth::session::Millis;
use crate::directory::{self, KeptRevocation, Revoked};
use crate::store::{CUT_OFF_KEPT, Item, PersonHash, Revocation, Store, StoreError};

/// How long a cut-off is kept: as in the store.
const CUT_OFF_LIFE: Millis = CUT_OFF_KEPT.as_secs() * 1000;
/// Nothing is kept for longer than so many milliseconds: ten years.
const LONGEST: Millis = 3_653 * 86_400_000;
/// Every gateway hears the same. They write at different moments within this time: mostly one of them
/// does, and the others find it done.
const TOGETHER: Duration = Duration::from_millis(500);
/// The pause after an attempt to write them that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How many are dealt with at once.
const MANY: usize = 500;

/// What the database refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub token: bool,
    /// The second up to which the person's tokens without session are.
    pub cut_off: Option<u64>,
}

impl Durable {
    /// Refuses a token: here first, for so long from now.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn refuse_token(
        &self,
        key: &str,
        ttl: Duration,
        now: Millis,
    ) -> Result<(), directory::Error> {
        let ttl = Millis::try_from(ttl.as_millis()).unwrap_or(LONGEST);
        let revocation = KeptRevocation {
            revoked: Revoked::Token(key.to_owned()),
            made_at: now,
            until: now.saturating_add(ttl.min(LONGEST)),
        };
        self.directory.keep_revocation(&revocation, true).await
    }

    /// Refuses a person's tokens without session up to a second.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn refuse_person(
        &self,
        person: PersonHash,
        second: u64,
        now: Millis,
    ) -> Result<(), directory::Error> {
        let revocation = KeptRevocation {
            revoked: Revoked::Person(person, second),
            made_at: now,
            until: now.saturating_add(CUT_OFF_LIFE),
        };
        self.directory.keep_revocation(&revocation, true).await
    }

    /// What the database refuses, while the store may lack it: this token, and up to a second those of
    /// this person that have no session.
    ///
    /// # Errors
    /// When it does not answer, or may lack something itself.
    pub async fn refuses(
        &self,
        key: &str,
        person: Option<PersonHash>,
    ) -> Result<Refused, NoAnswer> {
        if !self.is_complete() {
            return Err(NoAnswer);
        }
        let asking = async {
            self.shared.not_silent()?;
            let turn = self.shared.turns.acquire().await;
            let _turn = turn.map_err(|_| NoAnswer)?;
            let asked = self.directory.refuses(key, person);
            asked.await.map_err(|error| {
                self.complain(&error);
                NoAnswer
            })
        };
        let (token, cut_off) = timeout(PATIENCE / 2, asking)
            .await
            .unwrap_or(Err(NoAnswer))?;
        Ok(Refused { token, cut_off })
    }

    /// Refuses a token no longer, as far as this goes.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn allow_token(&self, key: &str) -> Result<(), directory::Error> {
        self.directory.drop_revocation(key).await
    }

    /// Writes what others revoked, for ever.
    pub async fn keep_what_is_heard(self, store: Store) {
        let mut heard = store.subscribe();
        let mut waiting: HashSet<Revoked> = HashSet::new();
        loop {
            if waiting.is_empty() {
                match heard.recv().await {
                    Ok(revocation) => waiting.extend(revoked(revocation)),
                    // What was missed is found by the next clean-up.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
            if waiting.is_empty() || self.on().is_none() {
                waiting.clear();
                continue;
            }
            sleep(TOGETHER.mul_f64(rand::random_range(0.2..=1.0))).await;
            while let Ok(revocation) = heard.try_recv() {
                waiting.extend(revoked(revocation));
                if waiting.len() >= MANY {
                    break;
                }
            }
            let batch: Vec<Revoked> = waiting.drain().collect();
            if let Err(error) = self.keep_all(&store, &batch).await {
                tracing::warn!(%error, "revocations that were heard wait to be written to the database");
                waiting.extend(batch);
                sleep(PAUSE).await;
            }
        }
    }

    /// Writes what a clean-up came upon in the store: a program may have written it when nobody heard.
    ///
    /// # Errors
    /// When one of the two does not answer; the next clean-up comes upon it again.
    pub async fn keep_what_stands(&self, store: &Store, items: Vec<Item>) -> Result<(), Untold> {
        let (mut found, mut people) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::Session(_) => {}
                Item::Token(key) => found.extend(revoked(Revocation::Token(key))),
                Item::Person(person) => people.push(person),
            }
        }
        for step in people.chunks(MANY) {
            let there = store.look_up_people(step.iter().copied()).await?;
            let there = there.into_iter();
            found.extend(there.filter_map(|(person, at)| Some(Revoked::Person(person, at?))));
        }
        for step in found.chunks(MANY) {
            self.keep_all(store, step).await?;
        }
        Ok(())
    }

    /// Writes those that are not written.
    async fn keep_all(&self, store: &Store, heard: &[Revoked]) -> Result<(), Untold> {
        let unkept = self.directory.unkept_among(heard).await?;
        if unkept.is_empty() {
            return Ok(());
        }
        let now = store.now().await?;
        let tokens = unkept.iter().filter_map(|revoked| match revoked {
            Revoked::Token(key) => Some(key.as_str()),
            Revoked::Person(..) => None,
        });
        let tokens: Vec<&str> = tokens.collect();
        let lives = store.blacklisted_for(&tokens).await?;
        for revoked in &unkept {
            let left = match revoked {
                Revoked::Person(..) => Some(CUT_OFF_LIFE),
                Revoked::Token(key) => {
                    let left = lives.get(key.as_str()).ok_or(StoreError::Malformed)?;
                    left.map(|left| {
                        let left = Millis::try_from(left.as_millis()).unwrap_or(LONGEST);
                        left.min(LONGEST)
                    })
                }
            };
            let Some(left) = left else {
                // It was taken back.
                continue;
            };
            let revocation = KeptRevocation {
                revoked: revoked.clone(),
                made_at: now,
                until: now.saturating_add(left),
            };
            self.directory.keep_revocation(&revocation, false).await?;
        }
        Ok(())
    }

    /// Brings everything back to a store that has lost it.
    pub(super) async fn restore(&self, store: &Store, now: Millis) -> Result<(), Untold> {
        self.tell_revocations(store, 0, now).await
    }

    /// Tells a store that has come back, perhaps with an older state, what was revoked lately.
    pub(super) async fn tell_revocations_again(
        &self,
        store: &Store,
        now: Millis,
    ) -> Result<(), Untold> {
        let since = now.saturating_sub(TOLD_AGAIN);
        self.tell_revocations(store, since, now).await
    }

    async fn tell_revocations(
        &self,
        store: &Store,
        since: Millis,
        now: Millis,
    ) -> Result<(), Untold> {
        let mut after: Option<Revoked> = None;
        loop {
            let directory = &self.directory;
            let kept = directory
                .revocations_since(since, after.as_ref(), now)
                .await?;
            let Some(last) = kept.last() else {
                return Ok(());
            };
            after = Some(last.revoked.clone());
            store.restore(&told(&kept), now).await?;
        }
    }

    /// Tells the store of revocations that it was not told of.
    pub(super) async fn tell_untold_revocations(
        &self,
        store: &Store,
        now: Millis,
    ) -> Result<(), Untold> {
        loop {
            let untold = self.directory.untold_revocations().await?;
            if untold.is_empty() {
                return Ok(());
            }
            store.restore(&told(&untold), now).await?;
            self.directory.revocations_told(&untold).await?;
        }
    }
}

/// What is kept here of what is announced. A text with a NUL no database takes.
fn revoked(revocation: Revocation) -> Option<Revoked> {
    match revocation {
        Revocation::Session(_) => None,
        Revocation::Token(key) => (!key.contains('\0')).then_some(Revoked::Token(key)),
        Revocation::Person(person, second) => Some(Revoked::Person(person, second)),
    }
}

fn told(kept: &[KeptRevocation]) -> Vec<(Revocation, Millis)> {
    let told = kept.iter().map(|kept| {
        let revocation = match &kept.revoked {
            Revoked::Token(key) => Revocation::Token(key.clone()),
            Revoked::Person(person, second) => Revocation::Person(*person, *second),
        };
        (revocation, kept.until)
    });
    told.collect()
}
