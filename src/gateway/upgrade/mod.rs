//! Upgrades: the running gateway starts a new process, hands its listening sockets over once that
//! process serves, and drains. A process that does not start changes nothing.
//!
//! The listening sockets stay open throughout, so that no connection that waits in them is lost.

mod attempt;
pub(super) mod control;
mod control_message;
mod handover;
mod successor;

use std::time::Duration;

use attempt::Attempt;
pub(super) use attempt::Successor;
pub(super) use control::ControlSocket;
pub use control_message::request_upgrade;
pub(super) use handover::OfferedSocket;
pub use successor::Predecessor;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::Services;
use super::sockets::Sockets;
use crate::config::ConfigSource;
use crate::settings::Engine;

/// Environment variable of the new process: the ID of the process that started it, to which its
/// standard input leads.
const PREDECESSOR: &str = "PORTCULLIS_PREDECESSOR";
/// How long a new process may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The ID of the process that serves, or why there is none.
pub(super) type Outcome = Result<u32, Vec<String>>;

/// A requested upgrade.
pub(super) struct UpgradeRequest {
    /// Even if state in memory is lost.
    force: bool,
    reply: Option<oneshot::Sender<Outcome>>,
}

/// The upgrades of a running gateway, one at a time.
pub(super) struct Upgrades {
    signal: Signal,
    requests: mpsc::Receiver<UpgradeRequest>,
    /// Why this process cannot be upgraded.
    obstacle: Option<String>,
    running: Option<Running>,
}

struct Running {
    attempt: Attempt,
    reply: Option<oneshot::Sender<Outcome>>,
}

impl Upgrades {
    /// `signal` is SIGUSR2.
    pub(super) fn new(
        signal: Signal,
        requests: mpsc::Receiver<UpgradeRequest>,
        obstacle: Option<String>,
    ) -> Upgrades {
        Upgrades {
            signal,
            requests,
            obstacle,
            running: None,
        }
    }

    /// Performs upgrades until a successor serves. May be dropped and called again meanwhile.
    pub(super) async fn until_replaced(
        &mut self,
        services: &Services,
        sockets: &Sockets,
    ) -> Successor {
        loop {
            let request = tokio::select! {
                _ = self.signal.recv() => UpgradeRequest { force: false, reply: None },
                Some(request) = self.requests.recv() => request,
                outcome = finished(&mut self.running) => match self.conclude(outcome) {
                    Some(successor) => return successor,
                    None => continue,
                },
            };
            self.begin(request, services, sockets);
        }
    }

    fn begin(&mut self, request: UpgradeRequest, services: &Services, sockets: &Sockets) {
        let reply = request.reply;
        let obstacle = match &self.obstacle {
            _ if self.running.is_some() => Some("another upgrade is in progress".to_owned()),
            Some(obstacle) => Some(obstacle.clone()),
            None if request.force => None,
            None => lost_state(services),
        };
        if let Some(obstacle) = obstacle {
            return report_failure(vec![obstacle], reply);
        }
        tracing::info!("a new process is started for an upgrade");
        match Attempt::start(sockets) {
            Ok(attempt) => self.running = Some(Running { attempt, reply }),
            Err(error) => report_failure(vec![format!("{error:#}")], reply),
        }
    }

    fn conclude(&mut self, outcome: Result<Successor, Vec<String>>) -> Option<Successor> {
        let reply = self.running.take().and_then(|running| running.reply);
        match outcome {
            Ok(mut successor) => {
                tracing::info!(process = successor.process, "the new process serves");
                successor.reply = reply;
                Some(successor)
            }
            Err(errors) => {
                report_failure(errors, reply);
                None
            }
        }
    }
}

impl Drop for Upgrades {
    /// A process that has not been heard of ends with its predecessor.
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.attempt.cancel();
        }
    }
}

async fn finished(running: &mut Option<Running>) -> Result<Successor, Vec<String>> {
    match running {
        Some(running) => running.attempt.outcome().await,
        None => std::future::pending().await,
    }
}

fn report_failure(errors: Vec<String>, reply: Option<oneshot::Sender<Outcome>>) {
    for error in &errors {
        tracing::error!("the gateway was not upgraded: {error}");
    }
    if let Some(reply) = reply {
        // The requester may have disconnected.
        let _ = reply.send(Err(errors));
    }
}

/// Returns what an upgrade would lose, if the state of this process is more than a cache.
fn lost_state(services: &Services) -> Option<String> {
    let is_lost = services.boot.store.engine == Engine::Memory && !services.sessions.is_durable();
    is_lost.then(|| {
        "the store is in memory, so an upgrade would end all sessions and forget revocations and the \
         state of limits, as a restart does; `portcullis upgrade --force` does it"
            .to_owned()
    })
}

/// Returns why this process cannot be replaced.
pub(super) fn process_obstacle(source: Option<&ConfigSource>) -> Option<String> {
    let Some(ConfigSource::File(_)) = source else {
        return Some("there is no configuration file for a new process to read".to_owned());
    };
    let process = std::process::id();
    if process == 1 {
        return Some(
            "this is the first process of a container, which ends with it; replace the container"
                .to_owned(),
        );
    }
    let supervised = std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|id| id == process.to_string());
    let is_notified = std::env::var_os("NOTIFY_SOCKET").is_some();
    (supervised && !is_notified).then(|| {
        "systemd would end the new process with this one; the unit needs Type=notify or \
         Type=notify-reload"
            .to_owned()
    })
}
