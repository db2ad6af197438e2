//! The connection on which the store tells of its changes: of the keys that gateways remember, to
//! every gateway, whoever wrote them (`CLIENT TRACKING` in its broadcasting mode).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::super::news::News;
use super::super::system_clock;
use super::connection::{FIRST_PAUSE, LONGEST_PAUSE, moved_from};
use super::fault::Fault;
use super::keys::Keys;
use super::{Redis, clock, dial};
use crate::session::Millis;
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

impl Redis {
    /// The store's clock as it was last told, and this machine's until then.
    pub(in super::super) fn clock(&self) -> Millis {
        self.clock.now()
    }

    /// Listens for ever, on a connection of its own.
    pub(in super::super) async fn listen(&self, hear: impl Fn(News) + Send + Sync + 'static) {
        let hear = Arc::new(hear);
        let mut switches = self.target.switches();
        let mut pause = FIRST_PAUSE;
        loop {
            let lost = Arc::new(Notify::new());
            let heard = self.on_push(Arc::clone(&hear), Arc::clone(&lost));
            match self.tracked(heard).await {
                Ok((server, connection)) => {
                    pause = FIRST_PAUSE;
                    hear(News::Everything);
                    let fault = tokio::select! {
                        fault = self.keep_listening(connection, &lost, &*hear) => fault,
                        () = moved_from(&server, switches.as_mut()) => Fault::unreachable("another master"),
                    };
                    hear(News::Deaf);
                    self.links
                        .warn("changes in the store are not heard", &fault);
                }
                Err(fault) => {
                    self.links
                        .warn("changes in the store cannot be heard", &fault);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
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

    async fn tracked(
        &self,
        heard: impl Fn(PushInfo) -> Result<(), redis::aio::SendError> + Send + Sync + 'static,
    ) -> Result<(Node, MultiplexedConnection), Fault> {
        let server = self.target.server().await?;
        let mut connection = dial::listening(&server, &self.links.address, heard).await?;
        let asking = tracking(&self.keys);
        timeout(
            ANSWER_WITHIN * 5,
            asking.query_async::<Value>(&mut connection),
        )
        .await
        .map_err(|_| silent())??;
        Ok((server, connection))
    }

    /// Proves again and again that everything was heard: an answer comes after all messages that the
    /// store had sent by then.
    async fn keep_listening(
        &self,
        mut connection: MultiplexedConnection,
        lost: &Notify,
        hear: &(impl Fn(News) + Send + Sync),
    ) -> Fault {
        loop {
            let asked_at = Instant::now();
            let time = redis::cmd("TIME");
            let answer = timeout(ANSWER_WITHIN, time.query_async::<Value>(&mut connection));
            match answer.await {
                Ok(Ok(time)) => {
                    let Some(now) = clock(&time) else {
                        return silent();
                    };
                    self.clock.set(now);
                    hear(News::HeardAll(asked_at, now));
                }
                Ok(Err(error)) => return Fault::from(error),
                Err(_) => return silent(),
            }
            tokio::select! {
                () = sleep(EVERY) => {}
                () = lost.notified() => return silent(),
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
