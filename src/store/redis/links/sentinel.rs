//! Resolution of the master by Sentinels: queried on connecting, and by announcements afterward.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::PubSub;
use tokio::sync::{Mutex, watch};

use super::dial::{self, with_timeout};
use super::exchange_error::ExchangeError;
use super::task_slot::{TaskSlot, TaskSlotGuard};
use crate::clock;
use crate::settings::{RedisNode, RedisTls, Sentinels};
use crate::store::StoreError;

/// Timeout of a Sentinel, connection setup included.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(250);
/// Time for which a result serves all connections: many are lost, and resolve, at the same time.
const MASTER_CACHE_TTL: Duration = Duration::from_millis(50);
/// Interval at which an idle subscription is checked.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const MAX_RESUBSCRIBE_DELAY: Duration = Duration::from_millis(500);
/// Channel of failovers; its messages begin with the master's name.
const SWITCH_CHANNEL: &str = "+switch-master";
/// Number of hints, one per check, after an announcement.
const HINTS_PER_ANNOUNCEMENT: u32 = 5;

/// Resolver of one master by its Sentinels, shared by the process.
pub(in crate::store::redis) struct SentinelResolver {
    sentinels: Sentinels,
    tls: Option<RedisTls>,
    cached_master: Mutex<Option<(Instant, RedisNode)>>,
    /// Counts reasons to resolve again.
    hints: watch::Sender<u64>,
    watch_task: TaskSlot,
}

impl SentinelResolver {
    pub(in crate::store::redis) fn new(
        sentinels: Sentinels,
        tls: Option<RedisTls>,
    ) -> SentinelResolver {
        SentinelResolver {
            sentinels,
            tls,
            cached_master: Mutex::new(None),
            hints: watch::Sender::new(0),
            watch_task: TaskSlot::default(),
        }
    }

    /// Queries the Sentinels for the master, once for concurrent callers.
    pub(in crate::store::redis) async fn resolve_master(&self) -> Result<RedisNode, ExchangeError> {
        let mut cached = self.cached_master.lock().await;
        if let Some((resolved_at, master)) = &*cached
            && resolved_at.elapsed() < MASTER_CACHE_TTL
        {
            return Ok(master.clone());
        }
        let master = self.query_all().await?;
        *cached = Some((clock::monotonic(), master.clone()));
        Ok(master)
    }

    /// Returns when another server has become the master.
    ///
    /// An announcement is only a reason to query: its Sentinel may be behind the others.
    pub(in crate::store::redis) async fn replaced(&self, server: &RedisNode) {
        let mut hints = self.hints.subscribe();
        while hints.changed().await.is_ok() {
            let master = self.resolve_master().await;
            if master.is_ok_and(|master| master != *server) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Starts to receive announcements on the current Tokio runtime, unless a task does so already.
    ///
    /// The task ends when the resolver is dropped.
    pub(in crate::store::redis) fn start_watching(self: &Arc<SentinelResolver>) {
        if let Some(guard) = self.watch_task.try_acquire() {
            tokio::spawn(watch_announcements(Arc::downgrade(self), guard));
        }
    }

    /// Queries all Sentinels in parallel, and waits for more than half of them.
    ///
    /// The report with the latest epoch counts: Sentinels learn of a failover one after another.
    async fn query_all(&self) -> Result<RedisNode, ExchangeError> {
        let sentinels = &self.sentinels.nodes;
        let queries = sentinels.iter().map(|sentinel| self.query(sentinel));
        let queries = queries.map(|query| with_timeout(SENTINEL_TIMEOUT, query));
        let mut queries: FuturesUnordered<_> = queries.collect();
        let (mut reports, mut latest) = (0, None);
        let mut failure = ExchangeError::unreachable("no Sentinel");
        while let Some(outcome) = queries.next().await {
            match outcome {
                Ok(report) => {
                    reports += 1;
                    latest = latest.max(Some(report));
                }
                Err(error) => failure = error,
            }
            if reports > sentinels.len() / 2 {
                break;
            }
        }
        failure.code = format!("Sentinel: {}", failure.code);
        latest
            .map(|MasterReport { master, .. }| master)
            .ok_or(failure)
    }

    async fn query(&self, sentinel: &RedisNode) -> Result<MasterReport, ExchangeError> {
        query_sentinel(sentinel, &self.sentinels, self.tls.as_ref()).await
    }

    async fn subscribe(&self, sentinel: &RedisNode) -> Result<PubSub, ExchangeError> {
        let mut subscription =
            dial::subscribe_sentinel(sentinel, &self.sentinels, self.tls.as_ref()).await?;
        subscription.subscribe(SWITCH_CHANNEL).await?;
        Ok(subscription)
    }

    fn hint(&self) {
        self.hints
            .send_modify(|hints| *hints = hints.wrapping_add(1));
    }
}

/// A Sentinel's report of the master; later epochs are greater.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store::redis) struct MasterReport {
    /// Number of the failover that promoted the master.
    epoch: u64,
    pub master: RedisNode,
}

/// Queries one Sentinel for the master.
pub(in crate::store::redis) async fn query_sentinel(
    sentinel: &RedisNode,
    sentinels: &Sentinels,
    tls: Option<&RedisTls>,
) -> Result<MasterReport, ExchangeError> {
    let mut connection = dial::connect_sentinel(sentinel, sentinels, tls).await?;
    let sentinel_command = |subcommand: &str| {
        let mut command = redis::cmd("SENTINEL");
        command.arg(subcommand).arg(&sentinels.master);
        command
    };
    let address: Option<(String, u16)> = sentinel_command("GET-MASTER-ADDR-BY-NAME")
        .query_async(&mut connection)
        .await?;
    let (host, port) = address.ok_or_else(|| ExchangeError {
        error: StoreError::Refused,
        ..ExchangeError::unreachable("it does not know this master")
    })?;
    let fields: HashMap<String, String> = sentinel_command("MASTER")
        .query_async(&mut connection)
        .await?;
    let epoch = fields.get("config-epoch");
    Ok(MasterReport {
        epoch: epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
        master: RedisNode { host, port },
    })
}

async fn watch_announcements(weak: Weak<SentinelResolver>, _guard: TaskSlotGuard) {
    let mut index: usize = rand::random_range(0..1024);
    loop {
        let Some(resolver) = weak.upgrade() else {
            return;
        };
        let count = resolver.sentinels.nodes.len().max(1);
        let Some(sentinel) = resolver.sentinels.nodes.get(index % count) else {
            return;
        };
        index = index.wrapping_add(1);
        if let Ok(subscription) =
            with_timeout(SENTINEL_TIMEOUT * 2, resolver.subscribe(sentinel)).await
        {
            let name = resolver.sentinels.master.clone();
            drop(resolver);
            relay_announcements(&weak, subscription, &name).await;
        }
        tokio::time::sleep(MAX_RESUBSCRIBE_DELAY.mul_f64(rand::random_range(0.2..=1.0))).await;
    }
}

/// Turns announcements into hints until the Sentinel stops responding.
///
/// Further hints follow, also at the start, to catch failovers that were announced before the
/// subscription or before the other Sentinels have learned of them.
async fn relay_announcements(resolver: &Weak<SentinelResolver>, subscription: PubSub, name: &str) {
    let (mut sink, mut messages) = subscription.split();
    let mut hints_left = HINTS_PER_ANNOUNCEMENT;
    loop {
        tokio::select! {
            message = messages.next() => {
                let text = message.map(|message| message.get_payload::<String>());
                let Some(Ok(text)) = text else { return };
                if text.split(' ').next() == Some(name) {
                    hints_left = HINTS_PER_ANNOUNCEMENT;
                }
            }
            () = tokio::time::sleep(PING_INTERVAL) => {
                let pong = tokio::time::timeout(SENTINEL_TIMEOUT, sink.ping::<redis::Value>());
                if !matches!(pong.await, Ok(Ok(_))) {
                    return;
                }
            }
        }
        let Some(resolver) = resolver.upgrade() else {
            return;
        };
        if hints_left > 0 {
            hints_left -= 1;
            resolver.hint();
        }
    }
}
