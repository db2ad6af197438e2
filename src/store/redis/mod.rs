//! The Redis engine: the only place that names the Redis client. Each operation that must be atomic
//! is one script over keys of one slot; each is one round trip where it can be.

mod activity;
mod amend;
mod connection;
mod fault;
mod index;
mod journal;
mod keys;
mod limits;
mod listing;
mod live;
mod names;
mod profiles;
mod record;
mod refresh;
mod revocations;
mod scripts;
mod sessions;
mod upkeep;
mod users;

use std::sync::Arc;

use redis::Value;

use super::StoreError;
use crate::metrics::Metrics;
use crate::session::Millis;
use crate::settings::RedisAddress;
use connection::{Link, Links};
use keys::Keys;
use scripts::{Call, Scripts};

pub(super) use listing::is_cursor;

/// One Redis server, as one gateway sees it.
#[derive(Clone)]
pub(super) struct Redis {
    /// Absent in the handle that only makes links.
    link: Option<Arc<Link>>,
    links: Arc<Links>,
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
    metrics: Arc<Metrics>,
}

impl Redis {
    pub(super) fn new(address: &RedisAddress, prefix: &str, metrics: Arc<Metrics>) -> Redis {
        Redis {
            link: None,
            links: Arc::new(Links::new(address.clone(), Arc::clone(&metrics))),
            keys: Arc::new(Keys::new(prefix)),
            scripts: Arc::new(Scripts::new()),
            metrics,
        }
    }

    pub(super) fn link(&self) -> Redis {
        let link = Link::supervised(Arc::clone(&self.links), Arc::clone(&self.scripts));
        Redis {
            link: Some(Arc::new(link)),
            ..self.clone()
        }
    }

    pub(super) fn up(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.up())
    }

    /// How many times a link of this process has come up.
    pub(super) fn risings(&self) -> u64 {
        self.links.risings()
    }

    pub(super) fn links(&self) -> super::LinkCount {
        let (made, up) = self.links.count();
        super::LinkCount { made, up }
    }

    /// Has the connection tried at once: an operation has just got no answer.
    pub(super) fn suspect(&self) {
        if let Some(link) = &self.link {
            link.suspect();
        }
    }

    pub(super) async fn now(&self) -> Result<Millis, StoreError> {
        let reply = self.ask(&redis::cmd("TIME")).await?;
        clock(&reply).ok_or(StoreError::Malformed)
    }

    async fn ask(&self, command: &redis::Cmd) -> Result<Value, StoreError> {
        let link = self.link.as_ref().ok_or(StoreError::Unreachable)?;
        link.ask(command).await.map_err(|fault| fault.error)
    }

    /// Asks many things at once; an answer may be an error of its own.
    async fn ask_all(&self, commands: &redis::Pipeline) -> Result<Vec<Value>, StoreError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let link = self.link.as_ref().ok_or(StoreError::Unreachable)?;
        link.ask_all(commands).await.map_err(|fault| fault.error)
    }

    /// Runs a script; loads the scripts once if the server has forgotten them.
    async fn run(&self, call: Call) -> Result<Value, StoreError> {
        let link = self.link.as_ref().ok_or(StoreError::Unreachable)?;
        match link.ask(&call.command).await {
            Err(fault) if fault.no_script => {
                link.ask_all(&self.scripts.loading())
                    .await
                    .map_err(|fault| fault.error)?;
                link.ask(&call.command).await
            }
            outcome => outcome,
        }
        .map_err(|fault| fault.error)
    }

    /// Runs many scripts at once, and those again that the server had forgotten.
    async fn run_all(&self, calls: Vec<Call>) -> Result<Vec<Value>, StoreError> {
        let mut commands = redis::pipe();
        for call in &calls {
            commands.add_command(call.command.clone());
        }
        let mut replies = self.ask_all(&commands).await?;
        if !replies.iter().any(fault::is_no_script) {
            return Ok(replies);
        }
        let mut again = self.scripts.loading();
        let loading = again.len();
        for (call, _) in calls
            .iter()
            .zip(&replies)
            .filter(|(_, reply)| fault::is_no_script(reply))
        {
            again.add_command(call.command.clone());
        }
        let mut repeated = self.ask_all(&again).await?.into_iter().skip(loading);
        for reply in replies
            .iter_mut()
            .filter(|reply| fault::is_no_script(reply))
        {
            *reply = repeated.next().ok_or(StoreError::Malformed)?;
        }
        Ok(replies)
    }

    /// Counts content that is not understood and was passed over.
    fn count_malformed(&self, operation: &'static str, times: u64) {
        if times > 0 {
            self.metrics
                .store_errors
                .with_label_values(&[operation, StoreError::Malformed.kind()])
                .inc_by(times);
        }
    }
}

/// Reads the answer to `TIME`.
fn clock(reply: &Value) -> Option<Millis> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value_ref(reply).ok()?;
    Some(seconds * 1000 + micros / 1000)
}

/// Reads an answer as what it has to be.
fn read<T: redis::FromRedisValue>(reply: Value) -> Result<T, StoreError> {
    let reply = fault::settled(reply)?;
    redis::from_redis_value(reply).map_err(|_| StoreError::Malformed)
}
