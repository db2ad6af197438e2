//! Counting what is there, once for the whole fleet, and trying whether the server takes writes.
//! Nothing has to be trimmed: every key has a time to live.

use std::time::{Duration, Instant};

use super::super::{Counts, Probe, StoreError};
use super::{Redis, clock, read};
use crate::session::Millis;

/// How many keys one step of a scan looks at.
const STEP: u32 = 500;
/// How long the counts are remembered, in seconds.
const COUNTS_KEPT: u32 = 86_400;
/// While one gateway cleans up, and shortly after, the others take its counts. Seconds.
const TURN: u32 = 10;

impl Redis {
    pub(in super::super) async fn clean_up(
        &self,
        deadline: Duration,
    ) -> Result<Counts, StoreError> {
        let mut turn = redis::cmd("SET");
        turn.arg(self.keys.cleaning()).arg(1).arg("NX");
        turn.arg("EX").arg(TURN);
        let ours = self.within(deadline, self.ask(&turn)).await? != redis::Value::Nil;
        if !ours && let Some(counts) = self.within(deadline, self.counts()).await? {
            return Ok(counts);
        }
        let counts = Counts {
            at: self.within(deadline, self.now()).await?,
            active_sessions: self.active_sessions(deadline).await?,
            cached_profiles: self.count(deadline, "profile:").await?,
            blacklisted_tokens: self.count(deadline, "blacklist:").await?,
        };
        let mut writing = redis::cmd("SET");
        writing.arg(self.keys.counts()).arg(format!(
            "{} {} {} {}",
            counts.active_sessions, counts.cached_profiles, counts.blacklisted_tokens, counts.at
        ));
        writing.arg("EX").arg(COUNTS_KEPT);
        self.within(deadline, self.ask(&writing)).await?;
        Ok(counts)
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
        let started = Instant::now();
        let mut writing = redis::cmd("SET");
        writing.arg(&key).arg(1).arg("PX").arg(10_000);
        self.ask(&writing).await?;
        let write = started.elapsed();
        let reading: Option<u8> = read(self.ask(redis::cmd("GETDEL").arg(&key)).await?)?;
        match reading {
            Some(1) => Ok(Probe {
                write,
                read: started.elapsed() - write,
            }),
            _ => Err(StoreError::Malformed),
        }
    }

    async fn active_sessions(&self, deadline: Duration) -> Result<u64, StoreError> {
        let (mut cursor, mut active) = (0, 0);
        loop {
            let found = self.scan(deadline, "session:", STEP, &mut cursor).await?;
            let mut questions = redis::pipe();
            questions.cmd("TIME");
            for id in found.iter().filter_map(|key| self.keys.session_id(key)) {
                let key = self.keys.session(&id);
                questions
                    .cmd("HMGET")
                    .arg(key)
                    .arg(&["expires", "ended_at"]);
            }
            let replies = self.within(deadline, self.ask_all(&questions)).await?;
            let (time, replies) = replies.split_first().ok_or(StoreError::Malformed)?;
            let now = clock(time).ok_or(StoreError::Malformed)?;
            for reply in replies {
                let fields = redis::from_redis_value_ref::<[Option<String>; 2]>(reply);
                let [expires, ended] = fields.unwrap_or_default();
                let expires = expires.and_then(|text| text.parse::<Millis>().ok());
                active += u64::from(ended.is_none() && expires.is_some_and(|end| now < end));
            }
            if cursor == 0 {
                return Ok(active);
            }
        }
    }

    async fn count(&self, deadline: Duration, word: &str) -> Result<u64, StoreError> {
        let (mut cursor, mut count) = (0, 0);
        loop {
            count += self.scan(deadline, word, STEP, &mut cursor).await?.len() as u64;
            if cursor == 0 {
                return Ok(count);
            }
        }
    }

    /// Looks at about so many keys; gives those that begin with this word.
    pub(super) async fn scan(
        &self,
        deadline: Duration,
        word: &str,
        many: u32,
        cursor: &mut u64,
    ) -> Result<Vec<String>, StoreError> {
        let mut command = redis::cmd("SCAN");
        command
            .arg(*cursor)
            .arg("MATCH")
            .arg(self.keys.pattern(word));
        command.arg("COUNT").arg(many);
        let (next, keys) = read(self.within(deadline, self.ask(&command)).await?)?;
        *cursor = next;
        Ok(keys)
    }
}
