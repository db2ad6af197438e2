//! The task that keeps one connection: connects, watches, replaces, and lets nobody wait for a server
//! that does not answer in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::{Notify, watch};

use super::super::StoreError;
use super::super::deadline::{AN_ANSWER, within};
use super::connection::Target;
use super::dial;
use super::fault::Fault;
use super::links::Links;
use super::scripts::Scripts;
use crate::settings::Node;

/// How often a silent connection is tried.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long it may take to answer then. Both together stay below half a second.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// After so many operations without an answer in time, and none with one, nobody is let wait any
/// more: the breaker opens.
const TOO_SLOW_AFTER: u32 = 5;
/// How often a server is tried then.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// Connecting takes a few answers; so long it may take in any case.
const LEAST_TO_CONNECT: Duration = Duration::from_millis(400);
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A server that is back is used well within half a second.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// What the link and its task share.
pub(super) struct Line {
    pub target: Target,
    pub links: Arc<Links>,
    pub scripts: Arc<Scripts>,
    pub state: ArcSwap<State>,
    pub suspected: Notify,
    /// Notified when the server has refused a write because it is a replica.
    pub demoted: Notify,
    /// Operations since the last answer that got none in time.
    pub timeouts: AtomicU32,
    /// When the first of them was noticed, in milliseconds since the links were made.
    pub silent_since: AtomicU64,
    /// Whether nothing is let through.
    pub shut: AtomicBool,
    /// Whether it is known if the server can be reached.
    pub tried: watch::Sender<bool>,
}

pub(super) enum State {
    Up(Connected),
    Down(StoreError),
}

#[derive(Clone)]
pub(super) struct Connected {
    pub connection: MultiplexedConnection,
    pub failed: Arc<Notify>,
    /// Milliseconds since the links were made, as of the last answer.
    pub answered: Arc<AtomicU64>,
}

impl Drop for Line {
    fn drop(&mut self) {
        // Only now is the task gone as well, and cannot come up again.
        self.put_down(StoreError::Unreachable);
        self.links.unmade(self.shut.load(Ordering::SeqCst));
    }
}

impl Line {
    pub(super) fn elapsed(&self) -> u64 {
        self.links.elapsed()
    }

    fn rise(&self, connected: Connected) {
        // Counted first: who finds the link up knows that it came up.
        self.links.changed(1);
        self.timeouts.store(0, Ordering::Relaxed);
        self.state.store(Arc::new(State::Up(connected)));
        if self.shut.swap(false, Ordering::SeqCst) {
            self.links.opened();
        }
        self.tried.send_replace(true);
    }

    fn fall(&self, error: StoreError) {
        if !self.shut.swap(true, Ordering::SeqCst) {
            self.links.shut();
        }
        self.put_down(error);
    }

    /// Many that were asked at once and were late together are no reason yet.
    fn is_too_slow(&self) -> bool {
        let since = self.silent_since.load(Ordering::Relaxed);
        let silent_for = Duration::from_millis(self.elapsed().saturating_sub(since));
        let timeouts = self.timeouts.load(Ordering::Relaxed);
        timeouts >= TOO_SLOW_AFTER && silent_for >= self.links.patience * 2
    }

    fn put_down(&self, error: StoreError) {
        let before = self.state.swap(Arc::new(State::Down(error)));
        if matches!(*before, State::Up(_)) {
            self.links.changed(-1);
        }
        self.tried.send_replace(true);
    }

    pub(super) fn warn(&self, what: &str, fault: &Fault) {
        match &self.target {
            Target::Member(server, _) => self.links.warn(server, what, fault),
            Target::Server(_) | Target::Master(_) => {
                self.links.warn(&self.links.address.topology, what, fault);
            }
        }
    }

    /// What is to be done besides connecting again, now that the server cannot be used.
    fn lost(&self, what: &str, fault: &Fault) {
        self.fall(fault.error);
        if let Target::Member(_, atlas) = &self.target {
            atlas.doubt();
        }
        self.warn(what, fault);
    }
}

/// Keeps the connection for ever.
pub(super) async fn supervise(line: Arc<Line>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match connect(&line).await {
            Ok((server, connection)) => {
                pause = FIRST_PAUSE;
                tracing::debug!(%server, "connected to the store");
                let fault = tokio::select! {
                    fault = serve(&line, connection) => fault,
                    () = line.target.replaced(&server) => Fault::unreachable("another master"),
                };
                line.lost("lost the store", &fault);
            }
            Err(fault) => {
                line.lost("cannot use the store", &fault);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        let share = rand::random_range(0.5..=1.0);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(share)) => {}
            // Another link of this gateway has found the store again: no worker stays behind.
            () = line.links.risen() => {}
        }
    }
}

/// Connects, and lets nobody wait for a server that cannot answer in time.
async fn connect(line: &Line) -> Result<(Node, MultiplexedConnection), Fault> {
    let server = line.target.server().await?;
    let (address, scripts) = (&line.links.address, &line.scripts);
    let dialling = async {
        match line.target {
            Target::Member(..) => dial::member(&server, address, scripts).await,
            Target::Master(_) => dial::master(&server, address, scripts).await,
            Target::Server(_) => dial::store(&server, address, scripts).await,
        }
    };
    let few_answers = (line.links.patience * 4).max(LEAST_TO_CONNECT);
    let mut connection = dial::within(few_answers, dialling).await?;
    if !ping(&mut connection, line.links.patience).await? {
        return Err(Fault::too_slow());
    }
    Ok((server, connection))
}

/// Lets questions through. Returns when the connection is of no use any more.
async fn serve(line: &Line, connection: MultiplexedConnection) -> Fault {
    loop {
        let connected = Connected {
            connection: connection.clone(),
            failed: Arc::default(),
            answered: Arc::new(AtomicU64::new(line.elapsed())),
        };
        line.rise(connected.clone());
        let fault = watch(line, connected).await;
        if fault.error != StoreError::BreakerOpen {
            return fault;
        }
        line.lost("nobody waits for the store", &fault);
        if let Err(fault) = until_in_time(line, connection.clone()).await {
            return fault;
        }
    }
}

/// Returns when the connection is of no use any more, or too slow to wait for.
async fn watch(line: &Line, mut connected: Connected) -> Fault {
    let Connected {
        connection,
        failed,
        answered,
    } = &mut connected;
    let quiet_for = || {
        let since = answered.load(Ordering::Relaxed);
        Duration::from_millis(line.elapsed().saturating_sub(since))
    };
    let mut replaced = std::pin::pin!(another_master(line));
    loop {
        let suspected = tokio::select! {
            () = failed.notified() => return Fault::unreachable("connection lost"),
            () = &mut replaced => return Fault::unreachable("another master"),
            () = line.suspected.notified() => true,
            () = tokio::time::sleep(WATCH_EVERY.saturating_sub(quiet_for())) => false,
        };
        if line.is_too_slow() {
            return Fault::too_slow();
        }
        // Whoever answers others need not be asked.
        if !suspected && quiet_for() < WATCH_EVERY {
            continue;
        }
        match ping(connection, line.links.patience).await {
            Ok(_) => answered.store(line.elapsed(), Ordering::Relaxed),
            Err(fault) => return fault,
        }
    }
}

/// Returns when the server refuses writes as a replica, and its address leads to a master by now.
async fn another_master(line: &Line) {
    let Target::Server(server) = &line.target else {
        return std::future::pending().await;
    };
    line.demoted.notified().await;
    while !dial::leads_to_master(server, &line.links.address).await {
        tokio::time::sleep(LONGEST_PAUSE).await;
    }
}

/// Tries a server that is too slow until it answers within the time of an operation.
async fn until_in_time(line: &Line, mut connection: MultiplexedConnection) -> Result<(), Fault> {
    loop {
        tokio::time::sleep(PROBE_EVERY.mul_f64(rand::random_range(0.5..=1.0))).await;
        if ping(&mut connection, line.links.patience).await? {
            return Ok(());
        }
    }
}

/// Has the server say that it is there; tells whether it did so within the time of an operation.
async fn ping(connection: &mut MultiplexedConnection, patience: Duration) -> Result<bool, Fault> {
    let ping = redis::cmd("PING");
    let mut asking = std::pin::pin!(ping.query_async::<Value>(connection));
    let in_time = patience.min(ANSWER_WITHIN);
    if let Some(answer) = within(in_time, AN_ANSWER, &mut asking).await {
        return pong(answer).map(|()| true);
    }
    let late = ANSWER_WITHIN - in_time;
    match within(late, 0, asking).await {
        Some(answer) => pong(answer).map(|()| false),
        None => Err(Fault::unreachable("no answer")),
    }
}

/// Whether the server is there. One that cannot save refuses even a `PING`, and serves reads.
fn pong(answer: Result<Value, RedisError>) -> Result<(), Fault> {
    match answer.map_err(Fault::from) {
        Err(fault) if fault.error != StoreError::ReadOnly => Err(fault),
        Ok(_) | Err(_) => Ok(()),
    }
}
