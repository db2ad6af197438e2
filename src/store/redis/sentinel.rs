//! Who the master is, by its Sentinels: asked for by links that connect, and heard of while they are
//! connected.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::sync::{Mutex, watch};

use super::super::StoreError;
use super::dial::{self, within};
use super::duty::{Duty, OnDuty};
use super::fault::Fault;
use crate::settings::{Node, RedisTls, Sentinels};

/// How long one Sentinel may take, connecting included, before the next is asked.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// Links that were lost together ask together: the answer is good for all of them.
const GOOD_FOR: Duration = Duration::from_millis(50);
/// How often a silent subscription is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const SWITCH: &str = "+switch-master";

/// The Sentinels of one master, as one process asks them.
pub(super) struct Resolver {
    sentinels: Sentinels,
    tls: Option<RedisTls>,
    /// The one that answered last is asked first.
    first: AtomicUsize,
    found: Mutex<Option<(Instant, Node)>>,
    announced: watch::Sender<Option<Node>>,
    listening: Duty,
}

impl Resolver {
    pub(super) fn new(sentinels: Sentinels, tls: Option<RedisTls>) -> Resolver {
        Resolver {
            sentinels,
            tls,
            first: AtomicUsize::new(0),
            found: Mutex::new(None),
            announced: watch::Sender::new(None),
            listening: Duty::default(),
        }
    }

    /// Asks the Sentinels in turn who the master is. They are asked once for all who want to know at
    /// the same time.
    pub(super) async fn master(&self) -> Result<Node, Fault> {
        let mut found = self.found.lock().await;
        if let Some((when, master)) = &*found
            && when.elapsed() < GOOD_FOR
        {
            return Ok(master.clone());
        }
        let master = self.ask_in_turn().await?;
        *found = Some((Instant::now(), master.clone()));
        Ok(master)
    }

    /// What is announced from now on, and the latest that was.
    pub(super) fn switches(&self) -> watch::Receiver<Option<Node>> {
        self.announced.subscribe()
    }

    /// Begins to listen for announcements, on the current tokio runtime, unless that is being done.
    /// It ends when the resolver is dropped.
    pub(super) fn listen(self: &Arc<Resolver>) {
        if let Some(duty) = self.listening.take_up() {
            tokio::spawn(listen(Arc::downgrade(self), duty));
        }
    }

    async fn ask_in_turn(&self) -> Result<Node, Fault> {
        let first = self.first.load(Ordering::Relaxed);
        let mut fault = Fault::unreachable("no Sentinel");
        for (place, sentinel) in self.from(first) {
            match within(ANSWER_WITHIN, self.ask(sentinel)).await {
                Ok(master) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(master);
                }
                Err(error) => fault = error,
            }
        }
        fault.code = format!("Sentinel: {}", fault.code);
        Err(fault)
    }

    /// All Sentinels with their places, beginning with one of them.
    fn from(&self, first: usize) -> impl Iterator<Item = (usize, &Node)> {
        let all = self.sentinels.nodes.iter().enumerate();
        all.clone().cycle().skip(first).take(all.len())
    }

    async fn ask(&self, sentinel: &Node) -> Result<Node, Fault> {
        let mut connection = dial::sentinel(sentinel, &self.sentinels, self.tls.as_ref()).await?;
        let mut question = redis::cmd("SENTINEL");
        question
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&self.sentinels.master);
        let address: Option<(String, u16)> = question.query_async(&mut connection).await?;
        let (host, port) = address.ok_or_else(|| Fault {
            error: StoreError::Refused,
            ..Fault::unreachable("it does not know this master")
        })?;
        Ok(Node { host, port })
    }

    /// Subscribes at one Sentinel, and asks who the master is once that is done, so that no switch
    /// falls between.
    async fn subscribe(&self, sentinel: &Node) -> Result<(PubSub, Node), Fault> {
        let mut subscription =
            dial::announcements(sentinel, &self.sentinels, self.tls.as_ref()).await?;
        subscription.subscribe(SWITCH).await?;
        Ok((subscription, self.ask(sentinel).await?))
    }

    fn announce(&self, master: Node) {
        self.announced.send_if_modified(|announced| {
            let news = announced.as_ref() != Some(&master);
            *announced = Some(master);
            news
        });
    }
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
        if let Ok((subscription, master)) =
            within(ANSWER_WITHIN * 2, asking.subscribe(sentinel)).await
        {
            asking.announce(master);
            let name = asking.sentinels.master.clone();
            drop(asking);
            hear(&resolver, subscription, &name).await;
        }
        tokio::time::sleep(LONGEST_PAUSE.mul_f64(rand::random_range(0.2..=1.0))).await;
    }
}

/// Passes announcements on until the Sentinel is silent.
async fn hear(resolver: &Weak<Resolver>, subscription: PubSub, name: &str) {
    let (mut sink, mut messages) = subscription.split();
    loop {
        tokio::select! {
            message = messages.next() => {
                let text = message.map(|message| message.get_payload::<String>());
                let Some(Ok(text)) = text else { return };
                let Some(resolver) = resolver.upgrade() else { return };
                if let Some(master) = switched(&text, name) {
                    resolver.announce(master);
                }
            }
            () = tokio::time::sleep(TRY_EVERY) => {
                let answer = tokio::time::timeout(ANSWER_WITHIN, sink.ping::<redis::Value>());
                if !matches!(answer.await, Ok(Ok(_))) || resolver.strong_count() == 0 {
                    return;
                }
            }
        }
    }
}

/// Reads `<name> <old host> <old port> <new host> <new port>`.
fn switched(text: &str, name: &str) -> Option<Node> {
    let mut words = text.split(' ');
    if words.next()? != name {
        return None;
    }
    let host = words.nth(2)?.to_owned();
    let port = words.next()?.parse().ok()?;
    Some(Node { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_of_this_master_are_understood() {
        let node = Node {
            host: "::2".to_owned(),
            port: 7002,
        };
        for (text, expected) in [
            ("m ::1 7001 ::2 7002", Some(node)),
            ("other ::1 7001 ::2 7002", None),
            ("m ::1 7001 ::2", None),
            ("m ::1 7001 ::2 port", None),
            ("", None),
        ] {
            assert_eq!(switched(text, "m"), expected, "{text}");
        }
    }
}
