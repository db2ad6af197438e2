//! Who the master is, by its Sentinels: asked for by links that connect, and heard of while they are
//! connected.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::PubSub;
use tokio::sync::{Mutex, watch};

use super::super::StoreError;
use super::dial::{self, within};
use super::duty::{Duty, OnDuty};
use super::fault::Fault;
use crate::settings::{Node, RedisTls, Sentinels};

/// How long a Sentinel may take, connecting included.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// Links that were lost together ask together: the answer is good for all of them.
const GOOD_FOR: Duration = Duration::from_millis(50);
/// How often a silent subscription is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Begins with the master's name.
const SWITCH: &str = "+switch-master";
/// How often it is hinted at one announcement.
const AGAIN: u32 = 5;

/// The Sentinels of one master, as one process asks them.
pub(super) struct Resolver {
    sentinels: Sentinels,
    tls: Option<RedisTls>,
    found: Mutex<Option<(Instant, Node)>>,
    /// Counts reasons to ask again.
    hints: watch::Sender<u64>,
    listening: Duty,
}

impl Resolver {
    pub(super) fn new(sentinels: Sentinels, tls: Option<RedisTls>) -> Resolver {
        Resolver {
            sentinels,
            tls,
            found: Mutex::new(None),
            hints: watch::Sender::new(0),
            listening: Duty::default(),
        }
    }

    /// Asks the Sentinels who the master is, once for all who want to know at the same time.
    pub(super) async fn master(&self) -> Result<Node, Fault> {
        let mut found = self.found.lock().await;
        if let Some((when, master)) = &*found
            && when.elapsed() < GOOD_FOR
        {
            return Ok(master.clone());
        }
        let master = self.ask_all().await?;
        *found = Some((Instant::now(), master.clone()));
        Ok(master)
    }

    /// Returns when another server than this is the master. An announcement is a reason to ask and no
    /// more: the Sentinel that makes it may be late.
    pub(super) async fn replaced(&self, server: &Node) {
        let mut hints = self.hints.subscribe();
        while hints.changed().await.is_ok() {
            let master = self.master().await;
            if master.is_ok_and(|master| master != *server) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Begins to listen for announcements, on the current tokio runtime, unless that is being done.
    /// It ends when the resolver is dropped.
    pub(super) fn listen(self: &Arc<Resolver>) {
        if let Some(duty) = self.listening.take_up() {
            tokio::spawn(listen(Arc::downgrade(self), duty));
        }
    }

    /// Asks all at once. More than half are enough, and one that is hung delays nothing; of what they
    /// say the latest counts, for they hear of a switch one after the other.
    async fn ask_all(&self) -> Result<Node, Fault> {
        let sentinels = &self.sentinels.nodes;
        let asking = sentinels.iter().map(|sentinel| self.ask(sentinel));
        let asking = asking.map(|answer| within(ANSWER_WITHIN, answer));
        let mut asking: FuturesUnordered<_> = asking.collect();
        let (mut answers, mut latest) = (0, None);
        let mut fault = Fault::unreachable("no Sentinel");
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
        latest.map(|Answer { master, .. }| master).ok_or(fault)
    }

    async fn ask(&self, sentinel: &Node) -> Result<Answer, Fault> {
        ask(sentinel, &self.sentinels, self.tls.as_ref()).await
    }

    async fn subscribe(&self, sentinel: &Node) -> Result<PubSub, Fault> {
        let mut subscription =
            dial::announcements(sentinel, &self.sentinels, self.tls.as_ref()).await?;
        subscription.subscribe(SWITCH).await?;
        Ok(subscription)
    }

    fn hint(&self) {
        self.hints
            .send_modify(|hints| *hints = hints.wrapping_add(1));
    }
}

/// What a Sentinel says; the later, the greater.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer {
    /// The number of the switch that made it the master.
    epoch: u64,
    pub master: Node,
}

/// Asks one Sentinel who the master is.
pub(super) async fn ask(
    sentinel: &Node,
    sentinels: &Sentinels,
    tls: Option<&RedisTls>,
) -> Result<Answer, Fault> {
    let mut connection = dial::sentinel(sentinel, sentinels, tls).await?;
    let ask = |what: &str| {
        let mut question = redis::cmd("SENTINEL");
        question.arg(what).arg(&sentinels.master);
        question
    };
    let address: Option<(String, u16)> = ask("GET-MASTER-ADDR-BY-NAME")
        .query_async(&mut connection)
        .await?;
    let (host, port) = address.ok_or_else(|| Fault {
        error: StoreError::Refused,
        ..Fault::unreachable("it does not know this master")
    })?;
    let known: HashMap<String, String> = ask("MASTER").query_async(&mut connection).await?;
    let epoch = known.get("config-epoch");
    Ok(Answer {
        epoch: epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
        master: Node { host, port },
    })
}

async fn listen(resolver: Weak<Resolver>, _duty: OnDuty) {
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
        if let Ok(subscription) = within(ANSWER_WITHIN * 2, asking.subscribe(sentinel)).await {
            let name = asking.sentinels.master.clone();
            drop(asking);
            hear(&resolver, subscription, &name).await;
        }
        tokio::time::sleep(LONGEST_PAUSE.mul_f64(rand::random_range(0.2..=1.0))).await;
    }
}

/// Hints at announcements until the Sentinel is silent. What was announced while nobody listened, or
/// before the other Sentinels knew, is found by hinting some more times.
async fn hear(resolver: &Weak<Resolver>, subscription: PubSub, name: &str) {
    let (mut sink, mut messages) = subscription.split();
    let mut again = AGAIN;
    loop {
        tokio::select! {
            message = messages.next() => {
                let text = message.map(|message| message.get_payload::<String>());
                let Some(Ok(text)) = text else { return };
                if text.split(' ').next() == Some(name) {
                    again = AGAIN;
                }
            }
            () = tokio::time::sleep(TRY_EVERY) => {
                let answer = tokio::time::timeout(ANSWER_WITHIN, sink.ping::<redis::Value>());
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
