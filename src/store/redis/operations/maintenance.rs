//! Trimming and counting, once for the whole fleet, and trying whether the server takes writes.
//! Every key has a time to live: what is left to trim is what lies in keys that live on.

use std::time::Duration;

use redis::Value;
use tokio::time::sleep;

use crate::auth::session::{Millis, Session, SessionStatus};
use crate::clock;
use crate::store::maintenance::{CleanUpLease, RemovedCounts};
use crate::store::redis::codec::keys::KeyKind;
use crate::store::redis::codec::record;
use crate::store::redis::codec::record::DecodedRecord;
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply, parse_time};
use crate::store::{CacheKey, ProbeResult, StoreCounts, StoreError};

/// How many keys one step of a scan looks at.
const SCAN_STEP: u32 = 500;
/// After each step it pauses for so many times as long as the step took.
const PAUSE_FACTOR: u32 = 19;
/// How long the counts are remembered, in seconds.
const COUNTS_TTL_SECONDS: u32 = 86_400;
/// How long a turn lasts if it is not prolonged, in seconds.
const LEASE_TTL_SECONDS: u32 = 60;

/// Where a scan of all keys goes on. At the beginning again: it is through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store::redis) struct ScanPosition {
    /// Of those that have keys.
    pub server: usize,
    /// What the server calls the place.
    pub cursor: u64,
}

impl Redis {
    pub(in crate::store) async fn begin_clean_up(
        &self,
        period: Duration,
    ) -> Result<Option<CleanUpLease>, StoreError> {
        let now = self.now().await?;
        let last = self.counts().await?.map_or(0, |counts| counts.at);
        let period = Millis::try_from(period.as_millis()).unwrap_or(Millis::MAX);
        if now < last.saturating_add(period) {
            return Ok(None);
        }
        let turn = CleanUpLease(rand::random());
        let mut taking = redis::cmd("SET");
        taking.arg(self.keys.clean_up_lease()).arg(turn.0);
        taking.arg("NX").arg("EX").arg(LEASE_TTL_SECONDS);
        let taken = self.execute(&taking).await? != Value::Nil;
        Ok(taken.then_some(turn))
    }

    pub(in crate::store) async fn end_clean_up(
        &self,
        turn: CleanUpLease,
    ) -> Result<(), StoreError> {
        let call = self.scripts.release.call(&[self.keys.clean_up_lease()]);
        self.run(call.arg(turn.0)).await.map(drop)
    }

    pub(in crate::store) async fn clean_up(
        &self,
        turn: &CleanUpLease,
        deadline: Duration,
        standing: &mut Vec<CacheKey>,
    ) -> Result<(StoreCounts, RemovedCounts), StoreError> {
        let (mut counts, mut removed) = (StoreCounts::default(), RemovedCounts::default());
        let mut place = ScanPosition::default();
        loop {
            let started = clock::monotonic();
            let keys = self.scan(deadline, "", SCAN_STEP, &mut place).await?;
            self.with_deadline(deadline, self.extend_clean_up_lease(turn))
                .await?;
            standing.extend(keys.iter().filter_map(|key| self.keys.revocation_item(key)));
            let step = self.clean_up_step(&keys, &mut counts, &mut removed);
            self.with_deadline(deadline, step).await?;
            if place == ScanPosition::default() {
                break;
            }
            sleep(started.elapsed() * PAUSE_FACTOR).await;
        }
        counts.at = self.with_deadline(deadline, self.now()).await?;
        let mut writing = redis::cmd("SET");
        writing.arg(self.keys.counts()).arg(format!(
            "{} {} {} {}",
            counts.active_sessions, counts.cached_profiles, counts.blacklisted_tokens, counts.at
        ));
        writing.arg("EX").arg(COUNTS_TTL_SECONDS);
        self.with_deadline(deadline, self.execute(&writing)).await?;
        Ok((counts, removed))
    }

    pub(in crate::store) async fn list_revocations(
        &self,
        deadline: Duration,
    ) -> Result<Vec<CacheKey>, StoreError> {
        let (mut standing, mut place) = (Vec::new(), ScanPosition::default());
        loop {
            let keys = self.scan(deadline, "", SCAN_STEP, &mut place).await?;
            standing.extend(keys.iter().filter_map(|key| self.keys.revocation_item(key)));
            if place == ScanPosition::default() {
                return Ok(standing);
            }
        }
    }

    /// A turn that was lost, because this gateway stood still for so long, is another's now.
    async fn extend_clean_up_lease(&self, turn: &CleanUpLease) -> Result<(), StoreError> {
        let mut asking = redis::pipe();
        asking.cmd("GET").arg(self.keys.clean_up_lease());
        asking
            .cmd("EXPIRE")
            .arg(self.keys.clean_up_lease())
            .arg(LEASE_TTL_SECONDS);
        let holder = self.execute_all(&asking).await?.into_iter().next();
        let holder: Option<String> = decode_reply(holder.ok_or(StoreError::Malformed)?)?;
        if holder != Some(turn.0.to_string()) {
            return Err(StoreError::Refused);
        }
        Ok(())
    }

    async fn clean_up_step(
        &self,
        keys: &[String],
        counts: &mut StoreCounts,
        removed: &mut RemovedCounts,
    ) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        calls.push(redis::cmd("TIME").into());
        let mut looked_at = Vec::new();
        for key in keys {
            let call = match self.keys.kind(key) {
                Some(KeyKind::Session) => {
                    let mut question = redis::cmd("GET");
                    question.arg(key);
                    question.into()
                }
                Some(KeyKind::User) => self.scripts.trim.call(&[key]),
                Some(KeyKind::Live) => self.scripts.trim_live.call(&[key]),
                Some(KeyKind::Profile) => {
                    counts.cached_profiles += 1;
                    continue;
                }
                Some(KeyKind::Blacklist) => {
                    counts.blacklisted_tokens += 1;
                    continue;
                }
                None => continue,
            };
            looked_at.push(key);
            calls.push(call);
        }
        let mut replies = self.run_all(calls).await?.into_iter();
        let now = replies.next().as_ref().and_then(parse_time);
        let now = now.ok_or(StoreError::Malformed)?;
        let mut active = Vec::new();
        for (key, reply) in looked_at.into_iter().zip(replies) {
            if exchange_error::is_wrong_type(&reply) {
                continue;
            }
            match self.keys.kind(key) {
                Some(KeyKind::User) => removed.index_entries += decode_reply::<u64>(reply)?,
                Some(KeyKind::Live) => removed.live_reports += decode_reply::<u64>(reply)?,
                _ => active.extend(self.decode_active(
                    key,
                    &exchange_error::reject_server_error(reply)?,
                    now,
                )),
            }
        }
        counts.active_sessions += active.len() as u64;
        self.repair_indexes(&active).await
    }

    /// The session of a key, if it has neither ended nor expired.
    fn decode_active(&self, key: &str, record: &Value, now: Millis) -> Option<Session> {
        match record::decode_reply(self.keys.session_id(key)?, record, &self.interner) {
            DecodedRecord::Present(session)
                if session.status(now, None, now) == SessionStatus::Active =>
            {
                Some(*session)
            }
            _ => None,
        }
    }

    /// Enters sessions again into indexes that were lost (deleted by hand, evicted): else a sign-out
    /// everywhere would miss them.
    async fn repair_indexes(&self, sessions: &[Session]) -> Result<(), StoreError> {
        let mut questions = redis::pipe();
        for session in sessions {
            let question = questions.cmd("HEXISTS");
            question.arg(self.keys.user(&session.user));
            question.arg(&session.id.0[..]);
        }
        let listed = self.execute_all(&questions).await?;
        // One of another type is mended as well.
        let lost = sessions
            .iter()
            .zip(&listed)
            .filter(|(_, listed)| **listed != Value::Int(1));
        let calls: Vec<_> = lost
            .map(|(session, _)| {
                let call = self.scripts.reenter.call(&[self.keys.user(&session.user)]);
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
            exchange_error::reject_server_error(reply)?;
        }
        Ok(())
    }

    pub(in crate::store) async fn counts(&self) -> Result<Option<StoreCounts>, StoreError> {
        let reply = match self
            .execute(redis::cmd("GET").arg(self.keys.counts()))
            .await
        {
            // Not ours: the next clean-up replaces it.
            Err(StoreError::Malformed) => return Ok(None),
            reply => reply?,
        };
        let text: Option<String> = decode_reply(reply)?;
        let text = text.unwrap_or_default();
        let numbers: Vec<u64> = text.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [active_sessions, cached_profiles, blacklisted_tokens, at] = numbers[..] else {
            return Ok(None);
        };
        Ok(Some(StoreCounts {
            active_sessions,
            cached_profiles,
            blacklisted_tokens,
            at,
        }))
    }

    pub(in crate::store) async fn probe(&self) -> Result<ProbeResult, StoreError> {
        let key = self.keys.probe();
        let mut started = clock::monotonic();
        let mut writing = redis::cmd("SET");
        writing.arg(&key).arg(1).arg("PX").arg(10_000);
        let write = self.execute(&writing).await.map(|_| started.elapsed());
        started = clock::monotonic();
        let found: Option<u8> = decode_reply(self.execute(redis::cmd("GET").arg(&key)).await?)?;
        Ok(ProbeResult {
            read: match (found, write) {
                (Some(1), _) | (None, Err(_)) => Ok(started.elapsed()),
                _ => Err(StoreError::Malformed),
            },
            write,
        })
    }

    /// Looks at about so many keys; gives those that begin with this word.
    pub(in crate::store::redis) async fn scan(
        &self,
        deadline: Duration,
        word: &str,
        many: u32,
        place: &mut ScanPosition,
    ) -> Result<Vec<String>, StoreError> {
        let mut command = redis::cmd("SCAN");
        command
            .arg(place.cursor)
            .arg("MATCH")
            .arg(self.keys.scan_pattern(word));
        command.arg("COUNT").arg(many);
        let road = self.client()?;
        if place.server >= road.server_count() {
            // There are fewer by now.
            *place = ScanPosition::default();
            return Ok(Vec::new());
        }
        let asking = async {
            let reply = road.execute_on_server(place.server, &command).await;
            reply.map_err(|fault| fault.error)
        };
        let (next, keys) = decode_reply(self.with_deadline(deadline, asking).await?)?;
        place.cursor = next;
        if next == 0 {
            place.server = (place.server + 1) % road.server_count().max(1);
        }
        Ok(keys)
    }
}
