//! One connection and the task that keeps it: connects, watches, replaces. While it is down every
//! question fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::super::StoreError;
use super::cluster::Atlas;
use super::dial;
use super::fault::{self, Fault};
use super::links::Links;
use super::scripts::Scripts;
use super::sentinel::Resolver;
use crate::settings::Node;

/// How often a silent connection is tried.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long it may take to answer then. Both together stay below half a second.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A server that is back is used well within half a second.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// A supervised connection; its task ends with it.
pub(super) struct Link {
    line: Arc<Line>,
    supervisor: AbortHandle,
}

/// Where a link goes.
#[derive(Clone)]
pub(super) enum Target {
    Server(Node),
    /// The master of the moment.
    Master(Arc<Resolver>),
    /// A server of a cluster.
    Member(Node, Arc<Atlas>),
}

impl Target {
    /// Which server that is now.
    pub(super) async fn server(&self) -> Result<Node, Fault> {
        match self {
            Target::Server(server) | Target::Member(server, _) => Ok(server.clone()),
            Target::Master(resolver) => resolver.master().await,
        }
    }

    /// Returns when it is known that another server is in this one's place.
    pub(super) async fn replaced(&self, server: &Node) {
        match self {
            Target::Server(_) | Target::Member(..) => std::future::pending().await,
            Target::Master(resolver) => resolver.replaced(server).await,
        }
    }
}

/// What the link and its task share.
struct Line {
    target: Target,
    links: Arc<Links>,
    scripts: Arc<Scripts>,
    state: ArcSwap<State>,
    suspected: Notify,
    /// Whether it is known if the server can be reached.
    tried: watch::Sender<bool>,
}

enum State {
    Up(Connected),
    Down(StoreError),
}

struct Connected {
    connection: MultiplexedConnection,
    failed: Arc<Notify>,
    /// Milliseconds since the links were made, as of the last answer.
    answered: Arc<AtomicU64>,
}

impl Link {
    /// Starts the task that connects, on the current tokio runtime.
    pub(super) fn supervised(target: Target, links: Arc<Links>, scripts: Arc<Scripts>) -> Link {
        links.made();
        if let Target::Master(resolver) = &target {
            resolver.listen();
        }
        let line = Arc::new(Line {
            target,
            links,
            scripts,
            state: ArcSwap::from_pointee(State::Down(StoreError::Unreachable)),
            suspected: Notify::new(),
            tried: watch::Sender::new(false),
        });
        let supervisor = tokio::spawn(supervise(Arc::clone(&line))).abort_handle();
        Link { line, supervisor }
    }

    pub(super) fn up(&self) -> bool {
        matches!(**self.line.state.load(), State::Up(_))
    }

    /// Waits until the first attempt to connect is over, if it is not.
    pub(super) async fn tried(&self) {
        // The sender lives as long as this.
        let _ = self.line.tried.subscribe().wait_for(|tried| *tried).await;
    }

    pub(super) fn suspect(&self) {
        self.line.suspected.notify_one();
    }

    /// Loads the scripts once if the server has forgotten them.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Fault> {
        match self.ask_once(command).await {
            Err(fault) if fault.no_script => {
                self.ask_all_once(&self.line.scripts.loading()).await?;
                self.ask_once(command).await
            }
            outcome => outcome,
        }
    }

    /// Asks many things at once, and those again whose script the server had forgotten. Answers
    /// that are errors are among those returned.
    pub(super) async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let mut replies = self.ask_all_once(commands).await?;
        if !replies.iter().any(fault::is_no_script) {
            return Ok(replies);
        }
        let mut again = self.line.scripts.loading();
        let loading = again.len();
        let forgotten = commands.cmd_iter().zip(&replies);
        for (command, _) in forgotten.filter(|(_, reply)| fault::is_no_script(reply)) {
            again.add_command(command.clone());
        }
        let mut repeated = self.ask_all_once(&again).await?.into_iter().skip(loading);
        for reply in replies
            .iter_mut()
            .filter(|reply| fault::is_no_script(reply))
        {
            *reply = repeated
                .next()
                .ok_or_else(|| Fault::unreachable("too few answers"))?;
        }
        Ok(replies)
    }

    async fn ask_once(&self, command: &Cmd) -> Result<Value, Fault> {
        let (mut connection, failed, answered) = self.connected()?;
        let outcome = command.query_async(&mut connection).await;
        self.judge(outcome, &failed, &answered)
    }

    async fn ask_all_once(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let (mut connection, failed, answered) = self.connected()?;
        let count = commands.len();
        let outcome = connection.send_packed_commands(commands, 0, count).await;
        let replies = self.judge(outcome, &failed, &answered)?;
        for reply in &replies {
            if let Value::ServerError(error) = reply {
                self.mind(
                    &Fault::from(redis::RedisError::from(error.clone())),
                    &failed,
                );
            }
        }
        Ok(replies)
    }

    fn connected(&self) -> Result<(MultiplexedConnection, Arc<Notify>, Arc<AtomicU64>), Fault> {
        match &**self.line.state.load() {
            State::Up(up) => Ok((
                up.connection.clone(),
                Arc::clone(&up.failed),
                Arc::clone(&up.answered),
            )),
            State::Down(error) => Err(Fault {
                error: *error,
                fatal: false,
                ..Fault::unreachable("")
            }),
        }
    }

    fn judge<T>(
        &self,
        outcome: Result<T, redis::RedisError>,
        failed: &Notify,
        answered: &AtomicU64,
    ) -> Result<T, Fault> {
        let fault = match outcome {
            Ok(answer) => {
                answered.store(self.line.elapsed(), Ordering::Relaxed);
                return Ok(answer);
            }
            Err(error) => Fault::from(error),
        };
        self.mind(&fault, failed);
        Err(fault)
    }

    fn mind(&self, fault: &Fault, failed: &Notify) {
        if fault.fatal {
            failed.notify_one();
        }
        let redirected = matches!(self.line.target, Target::Member(..))
            && matches!(fault.code.as_str(), "MOVED" | "ASK" | "TRYAGAIN");
        if fault.error == StoreError::Refused && !fault.no_script && !redirected {
            self.line.warn("the store refuses an operation", fault);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Only now is the task gone as well, and cannot come up again.
        self.fall(StoreError::Unreachable);
        self.links.unmade();
    }
}

impl Line {
    fn elapsed(&self) -> u64 {
        self.links.elapsed()
    }

    fn rise(&self, connected: Connected) {
        // Counted first: who finds the link up knows that it came up.
        self.links.changed(1);
        self.state.store(Arc::new(State::Up(connected)));
        self.tried.send_replace(true);
    }

    fn fall(&self, error: StoreError) {
        let before = self.state.swap(Arc::new(State::Down(error)));
        if matches!(*before, State::Up(_)) {
            self.links.changed(-1);
        }
        self.tried.send_replace(true);
    }

    fn warn(&self, what: &str, fault: &Fault) {
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

async fn supervise(line: Arc<Line>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match connect(&line).await {
            Ok((server, connection)) => {
                pause = FIRST_PAUSE;
                let failed = Arc::new(Notify::new());
                let answered = Arc::new(AtomicU64::new(line.elapsed()));
                line.rise(Connected {
                    connection: connection.clone(),
                    failed: Arc::clone(&failed),
                    answered: Arc::clone(&answered),
                });
                tracing::debug!(%server, "connected to the store");
                let fault = tokio::select! {
                    fault = watch(&line, connection, &failed, &answered) => fault,
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

async fn connect(line: &Line) -> Result<(Node, MultiplexedConnection), Fault> {
    let server = line.target.server().await?;
    let connection = match line.target {
        Target::Member(..) => dial::member(&server, &line.links.address, &line.scripts).await?,
        Target::Server(_) | Target::Master(_) => {
            dial::store(&server, &line.links.address, &line.scripts).await?
        }
    };
    Ok((server, connection))
}

/// Returns when the connection is of no use any more.
async fn watch(
    line: &Line,
    mut connection: MultiplexedConnection,
    failed: &Notify,
    answered: &AtomicU64,
) -> Fault {
    let quiet_for = || {
        let since = answered.load(Ordering::Relaxed);
        Duration::from_millis(line.elapsed().saturating_sub(since))
    };
    loop {
        let suspected = tokio::select! {
            () = failed.notified() => return Fault::unreachable("connection lost"),
            () = line.suspected.notified() => true,
            () = tokio::time::sleep(WATCH_EVERY.saturating_sub(quiet_for())) => false,
        };
        // Whoever answers others need not be asked.
        if !suspected && quiet_for() < WATCH_EVERY {
            continue;
        }
        let ping = redis::cmd("PING");
        let answer = timeout(ANSWER_WITHIN, ping.query_async::<Value>(&mut connection));
        match answer.await {
            Ok(Ok(_)) => answered.store(line.elapsed(), Ordering::Relaxed),
            Ok(Err(error)) => return Fault::from(error),
            Err(_) => return Fault::unreachable("no answer"),
        }
    }
}
