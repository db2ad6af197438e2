//! The connection on which the store tells of its changes: of the keys that gateways remember, to
//! every gateway, whoever wrote them (`CLIENT TRACKING` in its broadcasting mode).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{select_all, try_join_all};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::super::news::News;
use super::super::system_clock;
use super::atlas::Atlas;
use super::connection::Target;
use super::fault::Fault;
use super::keys::Keys;
use super::road::Way;
use super::supervision::{FIRST_PAUSE, LONGEST_PAUSE};
use super::{Redis, clock, dial};
use crate::auth::session::Millis;
use crate::settings::Node;

/// How often the store is asked whether all was heard.
const EVERY: Duration = Duration::from_millis(200);
/// How long it may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

/// The store's clock, carried on by this machine's steady one.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    /// What the store's clock said when this began; 0: nobody knows.
    began: AtomicU64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock {
            started: Instant::now(),
            began: AtomicU64::new(0),
        }
    }
}

impl Clock {
    fn set(&self, now: Millis) {
        self.began
            .store(now.saturating_sub(self.elapsed()), Ordering::Relaxed);
    }

    fn now(&self) -> Millis {
        match self.began.load(Ordering::Relaxed) {
            0 => system_clock() / 1000,
            began => began + self.elapsed(),
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Up to when each server was heard.
struct Proofs(Mutex<Vec<Option<(Instant, Millis)>>>);

impl Proofs {
    /// Takes one down, and tells up to when all of them were heard.
    fn of_all(&self, place: usize, proof: (Instant, Millis)) -> Option<(Instant, Millis)> {
        let mut proofs = self.0.lock();
        if let Some(kept) = proofs.get_mut(place) {
            *kept = Some(proof);
        }
        let mut all = proofs.iter().copied();
        let first = all.next()?;
        all.fold(first, |all, one| {
            let ((as_of, now), (also_as_of, also_now)) = (all?, one?);
            Some((as_of.min(also_as_of), now.min(also_now)))
        })
    }
}

/// A connection on which one server tells of its changes.
struct Ear {
    connection: MultiplexedConnection,
    lost: Arc<Notify>,
}

impl Redis {
    /// The store's clock as it was last told, and this machine's until then.
    pub(in super::super) fn clock(&self) -> Millis {
        self.clock.now()
    }

    /// Listens for ever, on connections of its own.
    pub(in super::super) async fn listen(&self, hear: impl Fn(News) + Send + Sync + 'static) {
        let hear = Arc::new(hear);
        match &self.way {
            Way::Direct(target) => self.listen_to(target, hear).await,
            Way::Cluster(atlas) => self.listen_to_all(atlas, hear).await,
        }
    }

    async fn listen_to(&self, target: &Target, hear: Arc<impl Fn(News) + Send + Sync + 'static>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let listening = async {
                let server = target.server().await?;
                let ear = self.open_ear(&server, Arc::clone(&hear)).await?;
                Ok::<_, Fault>((server, ear))
            };
            match listening.await {
                Ok((server, ear)) => {
                    pause = FIRST_PAUSE;
                    hear(News::Everything);
                    let proof = |as_of, now| hear(News::HeardAll(as_of, now));
                    let fault = tokio::select! {
                        fault = self.keep_listening(&ear, false, proof) => fault,
                        () = target.replaced(&server) => Fault::unreachable("another master"),
                    };
                    hear(News::Deaf);
                    self.not_heard(&fault);
                }
                Err(fault) => {
                    self.not_heard(&fault);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    /// In a cluster each master tells of its own keys: all of them must be heard.
    async fn listen_to_all(
        &self,
        atlas: &Arc<Atlas>,
        hear: Arc<impl Fn(News) + Send + Sync + 'static>,
    ) {
        let mut maps = atlas.maps();
        let mut pause = FIRST_PAUSE;
        loop {
            let map = maps.borrow_and_update().clone();
            let masters = map.iter().flat_map(|map| map.masters());
            let opening = masters.map(|server| self.open_ear(server, Arc::clone(&hear)));
            match try_join_all(opening).await {
                Ok(ears) if !ears.is_empty() => {
                    pause = FIRST_PAUSE;
                    hear(News::Everything);
                    let fault = tokio::select! {
                        fault = self.keep_listening_to_all(&ears, &*hear) => fault,
                        _ = maps.changed() => Fault::unreachable("other masters"),
                    };
                    hear(News::Deaf);
                    atlas.doubt();
                    self.not_heard(&fault);
                }
                Ok(_) => {}
                Err(fault) => {
                    atlas.doubt();
                    self.not_heard(&fault);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    async fn keep_listening_to_all(
        &self,
        ears: &[Ear],
        hear: &(impl Fn(News) + Send + Sync),
    ) -> Fault {
        let proofs = Proofs(Mutex::new(vec![None; ears.len()]));
        let proofs = &proofs;
        let listening = ears.iter().enumerate().map(|(place, ear)| {
            let proof = move |as_of, now| {
                if let Some((as_of, now)) = proofs.of_all(place, (as_of, now)) {
                    hear(News::HeardAll(as_of, now));
                }
            };
            Box::pin(self.keep_listening(ear, true, proof))
        });
        select_all(listening).await.0
    }

    fn not_heard(&self, fault: &Fault) {
        let topology = &self.links.address.topology;
        self.links
            .warn(topology, "changes in the store are not heard", fault);
    }

    /// What is done with each message, before any answer that comes after it is read.
    fn on_push(
        &self,
        hear: Arc<impl Fn(News) + Send + Sync + 'static>,
        lost: Arc<Notify>,
    ) -> impl Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static {
        let keys = Arc::clone(&self.keys);
        move |message| {
            match message.kind {
                PushKind::Invalidate => tell(&keys, &message.data, &*hear),
                PushKind::Disconnection => lost.notify_one(),
                _ => {}
            }
            Ok(())
        }
    }

    async fn open_ear(
        &self,
        server: &Node,
        hear: Arc<impl Fn(News) + Send + Sync + 'static>,
    ) -> Result<Ear, Fault> {
        let lost = Arc::new(Notify::new());
        let heard = self.on_push(hear, Arc::clone(&lost));
        let mut connection = dial::listening(server, &self.links.address, heard).await?;
        let asking = tracking(&self.keys);
        timeout(
            ANSWER_WITHIN * 5,
            asking.query_async::<Value>(&mut connection),
        )
        .await
        .map_err(|_| silent())??;
        Ok(Ear { connection, lost })
    }

    /// Proves again and again that everything was heard: an answer comes after all messages that the
    /// store had sent by then. A server of a cluster must still be one that takes writes: if another
    /// has taken its place, it is there that changes are told.
    async fn keep_listening(
        &self,
        ear: &Ear,
        member: bool,
        proof: impl Fn(Instant, Millis) + Send,
    ) -> Fault {
        let mut connection = ear.connection.clone();
        let mut questions = redis::pipe();
        questions.cmd("TIME");
        if member {
            questions.cmd("ROLE");
            questions.cmd("CLUSTER").arg("INFO");
        }
        let count = questions.len();
        loop {
            let asked_at = Instant::now();
            let asking = connection.send_packed_commands(&questions, 0, count);
            match timeout(ANSWER_WITHIN, asking).await {
                Ok(Ok(replies)) => {
                    let Some(now) = replies.first().and_then(clock) else {
                        return silent();
                    };
                    if replies.iter().any(dial::is_no_master) {
                        return Fault::unreachable("another master");
                    }
                    self.clock.set(now);
                    proof(asked_at, now);
                }
                Ok(Err(error)) => return Fault::from(error),
                Err(_) => return silent(),
            }
            tokio::select! {
                () = sleep(EVERY) => {}
                () = ear.lost.notified() => return silent(),
            }
        }
    }
}

/// Asks to be told of every change of what gateways remember.
fn tracking(keys: &Keys) -> Cmd {
    let mut command = redis::cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST");
    for prefix in keys.remembered() {
        command.arg("PREFIX").arg(prefix);
    }
    command
}

/// A message names the keys that changed, or none where all did.
fn tell(keys: &Keys, message: &[Value], hear: &impl Fn(News)) {
    match message.first() {
        Some(Value::Array(changed)) => {
            for key in changed {
                if let Value::BulkString(key) = key
                    && let Some(item) = keys.item(key)
                {
                    hear(News::Changed(item));
                }
            }
        }
        _ => hear(News::Everything),
    }
}

fn silent() -> Fault {
    Fault::unreachable("no answer")
}
