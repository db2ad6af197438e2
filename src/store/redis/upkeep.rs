//! Trimming and counting, once for the whole fleet, and trying whether the server takes writes.
//! Every key has a time to live: what is left to trim is what lies in keys that live on.

use std::time::{Duration, Instant};

use redis::Value;
use tokio::time::sleep;

use super::super::upkeep::{Removed, Turn};
use super::super::{Counts, Item, Probe, StoreError};
use super::keys::Kind;
use super::record::{self, Reading};
use super::{Redis, clock, fault, read};
use crate::auth::session::{Millis, Session, Status};

/// How many keys one step of a scan looks at.
const STEP: u32 = 500;
/// After each step it pauses for so many times as long as the step took.
const PAUSES: u32 = 19;
/// How long the counts are remembered, in seconds.
const COUNTS_KEPT: u32 = 86_400;
/// How long a turn lasts if it is not prolonged, in seconds.
const TURN: u32 = 60;

/// Where a scan of all keys goes on. At the beginning again: it is through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Of those that have keys.
    pub server: usize,
    /// What the server calls the place.
    pub cursor: u64,
}

impl Redis {
    pub(in super::super) async fn begin_clean_up(
        &self,
        period: Duration,
    ) -> Result<Option<Turn>, StoreError> {
        let now = self.now().await?;
        let last = self.counts().await?.map_or(0, |counts| counts.at);
        let period = Millis::try_from(period.as_millis()).unwrap_or(Millis::MAX);
        if now < last.saturating_add(period) {
            return Ok(None);
        }
        let turn = Turn(rand::random());
        let mut taking = redis::cmd("SET");
        taking.arg(self.keys.cleaning()).arg(turn.0);
        taking.arg("NX").arg("EX").arg(TURN);
        let taken = self.ask(&taking).await? != Value::Nil;
        Ok(taken.then_some(turn))
    }

    pub(in super::super) async fn end_clean_up(&self, turn: Turn) -> Result<(), StoreError> {
        let call = self.scripts.release.on(&[self.keys.cleaning()]);
        self.run(call.arg(turn.0)).await.map(drop)
    }

    pub(in super::super) async fn clean_up(
        &self,
        turn: &Turn,
        deadline: Duration,
        standing: &mut Vec<Item>,
    ) -> Result<(Counts, Removed), StoreError> {
        let (mut counts, mut removed) = (Counts::default(), Removed::default());
        let mut place = Place::default();
        loop {
            let started = Instant::now();
            let keys = self.scan(deadline, "", STEP, &mut place).await?;
            self.within(deadline, self.prolong(turn)).await?;
            standing.extend(keys.iter().filter_map(|key| self.keys.revoked(key)));
            let step = self.clean_up_step(&keys, &mut counts, &mut removed);
            self.within(deadline, step).await?;
            if place == Place::default() {
                break;
            }
            sleep(started.elapsed() * PAUSES).await;
        }
        counts.at = self.within(deadline, self.now()).await?;
        let mut writing = redis::cmd("SET");
        writing.arg(self.keys.counts()).arg(format!(
            "{} {} {} {}",
            counts.active_sessions, counts.cached_profiles, counts.blacklisted_tokens, counts.at
        ));
        writing.arg("EX").arg(COUNTS_KEPT);
        self.within(deadline, self.ask(&writing)).await?;
        Ok((counts, removed))
    }

    pub(in super::super) async fn standing(
        &self,
        deadline: Duration,
    ) -> Result<Vec<Item>, StoreError> {
        let (mut standing, mut place) = (Vec::new(), Place::default());
        loop {
            let keys = self.scan(deadline, "", STEP, &mut place).await?;
            standing.extend(keys.iter().filter_map(|key| self.keys.revoked(key)));
            if place == Place::default() {
                return Ok(standing);
            }
        }
    }

    /// A turn that was lost, because this gateway stood still for so long, is another's now.
    async fn prolong(&self, turn: &Turn) -> Result<(), StoreError> {
        let mut asking = redis::pipe();
        asking.cmd("GET").arg(self.keys.cleaning());
        asking.cmd("EXPIRE").arg(self.keys.cleaning()).arg(TURN);
        let holder = self.ask_all(&asking).await?.into_iter().next();
        let holder: Option<String> = read(holder.ok_or(StoreError::Malformed)?)?;
        if holder != Some(turn.0.to_string()) {
            return Err(StoreError::Refused);
        }
        Ok(())
    }

    async fn clean_up_step(
        &self,
        keys: &[String],
        counts: &mut Counts,
        removed: &mut Removed,
    ) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        calls.push(redis::cmd("TIME").into());
        let mut looked_at = Vec::new();
        for key in keys {
            let call = match self.keys.kind(key) {
                Some(Kind::Session) => {
                    let mut question = redis::cmd("GET");
                    question.arg(key);
                    question.into()
                }
                Some(Kind::User) => self.scripts.trim.on(&[key]),
                Some(Kind::Live) => self.scripts.trim_live.on(&[key]),
                Some(Kind::Profile) => {
                    counts.cached_profiles += 1;
                    continue;
                }
                Some(Kind::Blacklist) => {
                    counts.blacklisted_tokens += 1;
                    continue;
                }
                None => continue,
            };
            looked_at.push(key);
            calls.push(call);
        }
        let mut replies = self.run_all(calls).await?.into_iter();
        let now = replies.next().as_ref().and_then(clock);
        let now = now.ok_or(StoreError::Malformed)?;
        let mut active = Vec::new();
        for (key, reply) in looked_at.into_iter().zip(replies) {
            if fault::is_wrong_type(&reply) {
                continue;
            }
            match self.keys.kind(key) {
                Some(Kind::User) => removed.index_entries += read::<u64>(reply)?,
                Some(Kind::Live) => removed.live_reports += read::<u64>(reply)?,
                _ => active.extend(self.active(key, &fault::settled(reply)?, now)),
            }
        }
        counts.active_sessions += active.len() as u64;
        self.mend_indexes(&active).await
    }

    /// The session of a key, if it has neither ended nor expired.
    fn active(&self, key: &str, record: &Value, now: Millis) -> Option<Session> {
        match record::read(self.keys.session_id(key)?, record, &self.alike) {
            Reading::There(session) if session.status(now, None, now) == Status::Active => {
                Some(*session)
            }
            _ => None,
        }
    }

    /// Enters sessions again into indexes that were lost (deleted by hand, evicted): else a sign-out
    /// everywhere would miss them.
    async fn mend_indexes(&self, sessions: &[Session]) -> Result<(), StoreError> {
        let mut questions = redis::pipe();
        for session in sessions {
            let question = questions.cmd("HEXISTS");
            question.arg(self.keys.user(&session.user));
            question.arg(&session.id.0[..]);
        }
        let listed = self.ask_all(&questions).await?;
        // One of another type is mended as well.
        let lost = sessions
            .iter()
            .zip(&listed)
            .filter(|(_, listed)| **listed != Value::Int(1));
        let calls: Vec<_> = lost
            .map(|(session, _)| {
                let call = self.scripts.reenter.on(&[self.keys.user(&session.user)]);
                let call = call.arg(&session.id.0[..]).arg(session.created_at);
                call.arg(session.expires_at)
            })
            .collect();
        if !calls.is_empty() {
            tracing::warn!(
                sessions = calls.len(),
                "sessions were lost from their users' indexes"
            );
        }
        for reply in self.run_all(calls).await? {
            fault::settled(reply)?;
        }
        Ok(())
    }

    pub(in super::super) async fn counts(&self) -> Result<Option<Counts>, StoreError> {
        let reply = match self.ask(redis::cmd("GET").arg(self.keys.counts())).await {
            // Not ours: the next clean-up replaces it.
            Err(StoreError::Malformed) => return Ok(None),
            reply => reply?,
        };
        let text: Option<String> = read(reply)?;
        let text = text.unwrap_or_default();
        let numbers: Vec<u64> = text.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [active_sessions, cached_profiles, blacklisted_tokens, at] = numbers[..] else {
            return Ok(None);
        };
        Ok(Some(Counts {
            active_sessions,
            cached_profiles,
            blacklisted_tokens,
            at,
        }))
    }

    pub(in super::super) async fn probe(&self) -> Result<Probe, StoreError> {
        let key = self.keys.probe();
        let mut started = Instant::now();
        let mut writing = redis::cmd("SET");
        writing.arg(&key).arg(1).arg("PX").arg(10_000);
        let write = self.ask(&writing).await.map(|_| started.elapsed());
        started = Instant::now();
        let found: Option<u8> = read(self.ask(redis::cmd("GET").arg(&key)).await?)?;
        Ok(Probe {
            read: match (found, write) {
                (Some(1), _) | (None, Err(_)) => Ok(started.elapsed()),
                _ => Err(StoreError::Malformed),
            },
            write,
        })
    }

    /// Looks at about so many keys; gives those that begin with this word.
    pub(super) async fn scan(
        &self,
        deadline: Duration,
        word: &str,
        many: u32,
        place: &mut Place,
    ) -> Result<Vec<String>, StoreError> {
        let mut command = redis::cmd("SCAN");
        command
            .arg(place.cursor)
            .arg("MATCH")
            .arg(self.keys.pattern(word));
        command.arg("COUNT").arg(many);
        let road = self.road()?;
        if place.server >= road.servers() {
            // There are fewer by now.
            *place = Place::default();
            return Ok(Vec::new());
        }
        let asking = async {
            let reply = road.ask_server(place.server, &command).await;
            reply.map_err(|fault| fault.error)
        };
        let (next, keys) = read(self.within(deadline, asking).await?)?;
        place.cursor = next;
        if next == 0 {
            place.server = (place.server + 1) % road.servers().max(1);
        }
        Ok(keys)
    }
}
