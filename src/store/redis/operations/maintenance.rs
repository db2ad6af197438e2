//! Clean-up and counts, once for the fleet, and the probe.
//!
//! Every key has a TTL; the clean-up removes expired entries within keys that live on.

use std::time::Duration;

use redis::Value;
use tokio::time::sleep;

use crate::auth::session::{Millis, Session, SessionId, SessionStatus};
use crate::clock;
use crate::store::maintenance::{CleanUpLease, RemovedCounts};
use crate::store::redis::codec::keys::KeyKind;
use crate::store::redis::codec::record;
use crate::store::redis::codec::record::DecodedRecord;
use crate::store::redis::codec::scripts::ScriptCall;
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply, parse_time};
use crate::store::{CacheKey, ProbeResult, StoreCounts, StoreError};

/// Number of keys that one step of a scan covers.
const SCAN_STEP: u32 = 500;
/// Pause after each step, as a multiple of the step's duration.
const PAUSE_FACTOR: u32 = 19;
/// TTL of the counts, in seconds.
const COUNTS_TTL_SECONDS: u32 = 86_400;
/// TTL of the clean-up lease after its last extension, in seconds.
const LEASE_TTL_SECONDS: u32 = 60;

/// Position of a scan of all keys; the default position again: the scan is complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store::redis) struct ScanPosition {
    /// Index of the server.
    pub server: usize,
    /// The server's cursor.
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
        let lease = CleanUpLease(rand::random());
        let mut command = redis::cmd("SET");
        command.arg(self.keys.clean_up_lease()).arg(lease.0);
        command.arg("NX").arg("EX").arg(LEASE_TTL_SECONDS);
        let acquired = self.execute(&command).await? != Value::Nil;
        Ok(acquired.then_some(lease))
    }

    pub(in crate::store) async fn end_clean_up(
        &self,
        lease: CleanUpLease,
    ) -> Result<(), StoreError> {
        let call = self.scripts.release.call(&[self.keys.clean_up_lease()]);
        self.run(call.arg(lease.0)).await.map(drop)
    }

    pub(in crate::store) async fn clean_up(
        &self,
        lease: &CleanUpLease,
        deadline: Duration,
        revocations: &mut Vec<CacheKey>,
    ) -> Result<(StoreCounts, RemovedCounts), StoreError> {
        let (mut counts, mut removed) = (StoreCounts::default(), RemovedCounts::default());
        let mut position = ScanPosition::default();
        loop {
            let started = clock::monotonic();
            let keys = self.scan(deadline, "", SCAN_STEP, &mut position).await?;
            self.with_deadline(deadline, self.extend_clean_up_lease(lease))
                .await?;
            revocations.extend(keys.iter().filter_map(|key| self.keys.revocation_item(key)));
            let step = self.clean_up_step(&keys, &mut counts, &mut removed);
            self.with_deadline(deadline, step).await?;
            if position == ScanPosition::default() {
                break;
            }
            sleep(started.elapsed() * PAUSE_FACTOR).await;
        }
        counts.at = self.with_deadline(deadline, self.now()).await?;
        let mut command = redis::cmd("SET");
        command.arg(self.keys.counts()).arg(format!(
            "{} {} {} {}",
            counts.active_sessions, counts.cached_profiles, counts.blacklisted_tokens, counts.at
        ));
        command.arg("EX").arg(COUNTS_TTL_SECONDS);
        self.with_deadline(deadline, self.execute(&command)).await?;
        Ok((counts, removed))
    }

    pub(in crate::store) async fn list_revocations(
        &self,
        deadline: Duration,
    ) -> Result<Vec<CacheKey>, StoreError> {
        let (mut revocations, mut position) = (Vec::new(), ScanPosition::default());
        loop {
            let keys = self.scan(deadline, "", SCAN_STEP, &mut position).await?;
            revocations.extend(keys.iter().filter_map(|key| self.keys.revocation_item(key)));
            if position == ScanPosition::default() {
                return Ok(revocations);
            }
        }
    }

    /// Extends the lease; fails if it has expired because this gateway was stalled.
    async fn extend_clean_up_lease(&self, lease: &CleanUpLease) -> Result<(), StoreError> {
        let mut commands = redis::pipe();
        commands.cmd("GET").arg(self.keys.clean_up_lease());
        commands
            .cmd("EXPIRE")
            .arg(self.keys.clean_up_lease())
            .arg(LEASE_TTL_SECONDS);
        let holder = self.execute_all(&commands).await?.into_iter().next();
        let holder: Option<String> = decode_reply(holder.ok_or(StoreError::Malformed)?)?;
        if holder != Some(lease.0.to_string()) {
            return Err(StoreError::Refused);
        }
        Ok(())
    }

    /// Reads a session, or removes what has expired of other data; `None`: nothing to do.
    fn clean_up_call(&self, kind: Option<KeyKind>, key: &String) -> Option<ScriptCall> {
        match kind? {
            KeyKind::Session => {
                let mut command = redis::cmd("GET");
                command.arg(key);
                Some(command.into())
            }
            KeyKind::User => Some(self.scripts.trim.call(&[key])),
            KeyKind::Live => Some(self.scripts.trim_live.call(&[key])),
            KeyKind::Profile | KeyKind::Blacklist => None,
        }
    }

    async fn clean_up_step(
        &self,
        keys: &[String],
        counts: &mut StoreCounts,
        removed: &mut RemovedCounts,
    ) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        calls.push(redis::cmd("TIME").into());
        let mut processed = Vec::new();
        for key in keys {
            match self.keys.kind(key) {
                Some(KeyKind::Profile) => counts.cached_profiles += 1,
                Some(KeyKind::Blacklist) => counts.blacklisted_tokens += 1,
                kind => {
                    let Some(call) = self.clean_up_call(kind, key) else {
                        continue;
                    };
                    processed.push(key);
                    calls.push(call);
                }
            }
        }
        let mut replies = self.run_all(calls).await?.into_iter();
        let now = replies.next().as_ref().and_then(parse_time);
        let now = now.ok_or(StoreError::Malformed)?;
        let (mut active, mut expired) = (Vec::new(), Vec::new());
        for (key, reply) in processed.into_iter().zip(replies) {
            if exchange_error::is_wrong_type(&reply) {
                continue;
            }
            match self.keys.kind(key) {
                Some(KeyKind::User) => removed.index_entries += decode_reply::<u64>(reply)?,
                Some(KeyKind::Live) => removed.live_reports += decode_reply::<u64>(reply)?,
                _ => {
                    let record = exchange_error::reject_server_error(reply)?;
                    match self.decode_with_status(key, &record, now) {
                        Some((session, SessionStatus::Active)) => active.push(session),
                        Some((session, SessionStatus::Expired)) if session.provider.is_some() => {
                            expired.push(session.id);
                        }
                        _ => {}
                    }
                }
            }
        }
        counts.active_sessions += active.len() as u64;
        self.drop_tokens_of_expired(&expired).await?;
        self.repair_indexes(&active).await
    }

    /// The session of a key, and its status, whatever its use.
    fn decode_with_status(
        &self,
        key: &str,
        record: &Value,
        now: Millis,
    ) -> Option<(Session, SessionStatus)> {
        match record::decode_reply(self.keys.session_id(key)?, record, &self.interner) {
            DecodedRecord::Present(session) => {
                let status = session.status(now, None, now);
                Some((*session, status))
            }
            _ => None,
        }
    }

    /// Drops the provider tokens of sessions that have expired.
    async fn drop_tokens_of_expired(&self, sessions: &[SessionId]) -> Result<(), StoreError> {
        let calls = sessions
            .iter()
            .map(|id| self.end_call(id, None, None, false));
        let replies = self.run_all(calls.collect()).await?;
        for (id, reply) in sessions.iter().zip(replies) {
            self.parse_end_reply(*id, reply)?;
        }
        Ok(())
    }

    /// Restores sessions in indexes that were deleted by hand or evicted.
    ///
    /// A sign-out from all sessions would miss them otherwise.
    async fn repair_indexes(&self, sessions: &[Session]) -> Result<(), StoreError> {
        let mut commands = redis::pipe();
        for session in sessions {
            let command = commands.cmd("HEXISTS");
            command.arg(self.keys.user(&session.user));
            command.arg(&session.id.0[..]);
        }
        let replies = self.execute_all(&commands).await?;
        // An error counts as missing: an index of another type is replaced as well.
        let missing = sessions
            .iter()
            .zip(&replies)
            .filter(|(_, exists)| **exists != Value::Int(1));
        let calls: Vec<_> = missing
            .map(|(session, _)| {
                let call = self.scripts.reenter.call(&[self.keys.user(&session.user)]);
                let call = call.arg(&session.id.0[..]).arg(session.created_at);
                call.arg(session.expires_at)
            })
            .collect();
        if !calls.is_empty() {
            tracing::warn!(
                sessions = calls.len(),
                "restoring sessions that are missing from their users' indexes"
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
            // A foreign key with this name is replaced by the next clean-up.
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
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(1).arg("PX").arg(10_000);
        let write = self.execute(&command).await.map(|_| started.elapsed());
        started = clock::monotonic();
        let value: Option<u8> = decode_reply(self.execute(redis::cmd("GET").arg(&key)).await?)?;
        Ok(ProbeResult {
            read: match (value, write) {
                (Some(1), _) | (None, Err(_)) => Ok(started.elapsed()),
                _ => Err(StoreError::Malformed),
            },
            write,
        })
    }

    /// Scans about `count` keys; returns those of the family.
    pub(in crate::store::redis) async fn scan(
        &self,
        deadline: Duration,
        family: &str,
        count: u32,
        position: &mut ScanPosition,
    ) -> Result<Vec<String>, StoreError> {
        let mut command = redis::cmd("SCAN");
        command
            .arg(position.cursor)
            .arg("MATCH")
            .arg(self.keys.scan_pattern(family));
        command.arg("COUNT").arg(count);
        let client = self.client()?;
        if position.server >= client.server_count() {
            // The cluster has fewer servers by now.
            *position = ScanPosition::default();
            return Ok(Vec::new());
        }
        let reply = async {
            let reply = client.execute_on_server(position.server, &command).await;
            reply.map_err(|error| error.error)
        };
        let (next, keys) = decode_reply(self.with_deadline(deadline, reply).await?)?;
        position.cursor = next;
        if next == 0 {
            position.server = (position.server + 1) % client.server_count().max(1);
        }
        Ok(keys)
    }
}
