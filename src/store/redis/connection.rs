//! One connection, kept by a task of its own. While it is down every question fails at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::super::StoreError;
use super::atlas::Atlas;
use super::fault::{self, Fault};
use super::links::Links;
use super::scripts::Scripts;
use super::sentinel::Resolver;
use super::supervision::{Line, State, supervise};
use crate::settings::Node;

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
            demoted: Notify::new(),
            timeouts: AtomicU32::new(0),
            silent_since: AtomicU64::new(0),
            shut: AtomicBool::new(false),
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

    /// An operation got no answer in time.
    pub(super) fn suspect(&self) {
        if self.line.timeouts.fetch_add(1, Ordering::Relaxed) == 0 {
            let now = self.line.elapsed();
            self.line.silent_since.store(now, Ordering::Relaxed);
        }
        self.line.suspected.notify_one();
    }

    /// Sends the script along if the server has forgotten it.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, Fault> {
        match self.ask_once(command).await {
            Err(fault) if fault.no_script => {
                let in_full = self.line.scripts.in_full(command);
                Box::pin(self.ask_once(&in_full)).await
            }
            outcome => outcome,
        }
    }

    /// Asks many things at once, and those again whose script the server had forgotten. Answers
    /// that are errors are among those returned.
    pub(super) async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let mut replies = self.ask_all_once(commands).await?;
        let forgotten = self.forgotten(commands, &replies);
        if forgotten.is_empty() {
            return Ok(replies);
        }
        let mut repeated = self.ask_all_once(&forgotten).await?.into_iter();
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

    /// Those whose script the server had forgotten, with their scripts.
    fn forgotten(&self, commands: &Pipeline, replies: &[Value]) -> Pipeline {
        let mut again = redis::pipe();
        for (command, reply) in commands.cmd_iter().zip(replies) {
            if fault::is_no_script(reply) {
                again.add_command(self.line.scripts.in_full(command));
            }
        }
        again
    }

    /// Asks many things and another one after them on the same connection; all of it again, with the
    /// scripts, if the server had forgotten one.
    pub(super) async fn ask_all_then(
        &self,
        commands: &Pipeline,
        last: &Cmd,
    ) -> Result<(Vec<Value>, Value), Fault> {
        let mut together = commands.clone();
        together.add_command(last.clone());
        let mut replies = self.ask_all_once(&together).await?;
        if replies.iter().any(fault::is_no_script) {
            let mut in_full = redis::pipe();
            for command in together.cmd_iter() {
                in_full.add_command(self.line.scripts.in_full(command));
            }
            replies = self.ask_all_once(&in_full).await?;
        }
        let last = replies.pop();
        Ok((
            replies,
            last.ok_or_else(|| Fault::unreachable("too few answers"))?,
        ))
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
        if replies.len() != count {
            // Which request a reply belongs to is unknown from here on.
            failed.notify_one();
            return Err(Fault::unreachable("too few replies"));
        }
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
                if self.line.timeouts.load(Ordering::Relaxed) > 0 {
                    self.line.timeouts.store(0, Ordering::Relaxed);
                }
                return Ok(answer);
            }
            Err(error) => Fault::from(error),
        };
        self.mind(&fault, failed);
        Err(fault)
    }

    fn mind(&self, fault: &Fault, failed: &Notify) {
        let is_replica = fault.code == fault::READ_ONLY;
        if is_replica && matches!(self.line.target, Target::Server(_)) {
            // It goes on to serve reads until the address leads to a master.
            self.line.demoted.notify_one();
        } else if fault.fatal {
            failed.notify_one();
        }
        let redirected = matches!(self.line.target, Target::Member(..))
            && matches!(fault.code.as_str(), "MOVED" | "ASK" | "TRYAGAIN");
        let refused = matches!(fault.error, StoreError::Refused | StoreError::ReadOnly);
        if refused && !fault.no_script && !redirected {
            self.line.warn("the store refuses an operation", fault);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}
