//! Who the master is, by its Sentinels: asked for by links that connect, and heard of while they are
//! connected.

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

/// How long a Sentinel may take, connecting included.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(250);
/// Links that were lost together ask together: the answer is good for all of them.
const MASTER_CACHE_TTL: Duration = Duration::from_millis(50);
/// How often a silent subscription is tried.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const MAX_RESUBSCRIBE_DELAY: Duration = Duration::from_millis(500);
/// Begins with the master's name.
const SWITCH_CHANNEL: &str = "+switch-master";
/// How often it is hinted at one announcement.
const HINTS_PER_ANNOUNCEMENT: u32 = 5;

/// The Sentinels of one master, as one process asks them.
pub(in crate::store::redis) struct SentinelResolver {
    sentinels: Sentinels,
    tls: Option<RedisTls>,
    cached_master: Mutex<Option<(Instant, RedisNode)>>,
    /// Counts reasons to ask again.
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

    /// Asks the Sentinels who the master is, once for all who want to know at the same time.
    pub(in crate::store::redis) async fn resolve_master(&self) -> Result<RedisNode, ExchangeError> {
        let mut found = self.cached_master.lock().await;
        if let Some((when, master)) = &*found
            && when.elapsed() < MASTER_CACHE_TTL
        {
            return Ok(master.clone());
        }
        let master = self.query_all().await?;
        *found = Some((clock::monotonic(), master.clone()));
        Ok(master)
    }

    /// Returns when another server than this is the master. An announcement is a reason to ask and no
    /// more: the Sentinel that makes it may be late.
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

    /// Begins to listen for announcements, on the current tokio runtime, unless that is being done.
    /// It ends when the resolver is dropped.
    pub(in crate::store::redis) fn start_watching(self: &Arc<SentinelResolver>) {
        if let Some(duty) = self.watch_task.try_acquire() {
            tokio::spawn(watch_announcements(Arc::downgrade(self), duty));
        }
    }

    /// Asks all at once. More than half are enough, and one that is hung delays nothing; of what they
    /// say the latest counts, for they hear of a switch one after the other.
    async fn query_all(&self) -> Result<RedisNode, ExchangeError> {
        let sentinels = &self.sentinels.nodes;
        let asking = sentinels.iter().map(|sentinel| self.query(sentinel));
        let asking = asking.map(|answer| with_timeout(SENTINEL_TIMEOUT, answer));
        let mut asking: FuturesUnordered<_> = asking.collect();
        let (mut answers, mut latest) = (0, None);
        let mut fault = ExchangeError::unreachable("no Sentinel");
        while let Some(answer) = asking.next().await {
            match answer {
                Ok(answer) => {
                    answers += 1;
                    latest = latest.max(Some(answer));
                }
                Err(error) => fault = error,
            }
            if answers > sentinels.len() / 2 {
                break;
            }
        }
        fault.code = format!("Sentinel: {}", fault.code);
        latest
            .map(|MasterReport { master, .. }| master)
            .ok_or(fault)
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

/// What a Sentinel says; the later, the greater.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store::redis) struct MasterReport {
    /// The number of the switch that made it the master.
    epoch: u64,
    pub master: RedisNode,
}

/// Asks one Sentinel who the master is.
pub(in crate::store::redis) async fn query_sentinel(
    sentinel: &RedisNode,
    sentinels: &Sentinels,
    tls: Option<&RedisTls>,
) -> Result<MasterReport, ExchangeError> {
    let mut connection = dial::connect_sentinel(sentinel, sentinels, tls).await?;
    let ask = |what: &str| {
        let mut question = redis::cmd("SENTINEL");
        question.arg(what).arg(&sentinels.master);
        question
    };
    let address: Option<(String, u16)> = ask("GET-MASTER-ADDR-BY-NAME")
        .query_async(&mut connection)
        .await?;
    let (host, port) = address.ok_or_else(|| ExchangeError {
        error: StoreError::Refused,
        ..ExchangeError::unreachable("it does not know this master")
    })?;
    let known: HashMap<String, String> = ask("MASTER").query_async(&mut connection).await?;
    let epoch = known.get("config-epoch");
    Ok(MasterReport {
        epoch: epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
        master: RedisNode { host, port },
    })
}

async fn watch_announcements(resolver: Weak<SentinelResolver>, _duty: TaskSlotGuard) {
    let mut place: usize = rand::random_range(0..1024);
    loop {
        let Some(asking) = resolver.upgrade() else {
            return;
        };
        let count = asking.sentinels.nodes.len().max(1);
        let Some(sentinel) = asking.sentinels.nodes.get(place % count) else {
            return;
        };
        place = place.wrapping_add(1);
        if let Ok(subscription) =
            with_timeout(SENTINEL_TIMEOUT * 2, asking.subscribe(sentinel)).await
        {
            let name = asking.sentinels.master.clone();
            drop(asking);
            relay_announcements(&resolver, subscription, &name).await;
        }
        tokio::time::sleep(MAX_RESUBSCRIBE_DELAY.mul_f64(rand::random_range(0.2..=1.0))).await;
    }
}

/// Hints at announcements until the Sentinel is silent. What was announced while nobody listened, or
/// before the other Sentinels knew, is found by hinting some more times.
async fn relay_announcements(resolver: &Weak<SentinelResolver>, subscription: PubSub, name: &str) {
    let (mut sink, mut messages) = subscription.split();
    let mut again = HINTS_PER_ANNOUNCEMENT;
    loop {
        tokio::select! {
            message = messages.next() => {
                let text = message.map(|message| message.get_payload::<String>());
                let Some(Ok(text)) = text else { return };
                if text.split(' ').next() == Some(name) {
                    again = HINTS_PER_ANNOUNCEMENT;
                }
            }
            () = tokio::time::sleep(PING_INTERVAL) => {
                let answer = tokio::time::timeout(SENTINEL_TIMEOUT, sink.ping::<redis::Value>());
                if !matches!(answer.await, Ok(Ok(_))) {
                    return;
                }
            }
        }
        let Some(resolver) = resolver.upgrade() else {
            return;
        };
        if again > 0 {
            again -= 1;
            resolver.hint();
        }
    }
}
