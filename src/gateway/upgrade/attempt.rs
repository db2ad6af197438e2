//! One attempt at an upgrade: starts the new process, and waits until it serves.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use super::handover::{Channel, HandoverError, Message, OfferedSocket};
use super::{Outcome, PREDECESSOR, START_TIMEOUT};
use crate::clock;
use crate::gateway::sockets::Sockets;

/// How long a new process that does not serve may take to end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// A new process that is starting.
pub(super) struct Attempt {
    channel: Channel,
    /// Its ID, once it runs.
    process: Arc<OnceLock<u32>>,
    outcome: oneshot::Receiver<AttemptOutcome>,
}

/// The sockets of this gateway, and their descriptors.
type Offer = (Vec<OfferedSocket>, Vec<OwnedFd>);
/// The new process, or why it does not serve.
type AttemptOutcome = Result<Successor, Vec<String>>;

/// The process that replaces this one. It waits to be released.
pub(in crate::gateway) struct Successor {
    pub(in crate::gateway) process: u32,
    /// Indices of the offered sockets that it has taken.
    pub(in crate::gateway) taken: Vec<usize>,
    channel: Channel,
    pub(super) reply: Option<oneshot::Sender<Outcome>>,
}

impl Attempt {
    /// Starts the new process, from a thread that waits for it.
    pub(super) fn start(sockets: &Sockets) -> anyhow::Result<Attempt> {
        let (channel, other) = Channel::pair().context("there is no channel to a new process")?;
        let own = channel.try_clone()?;
        let offer = sockets.offer()?;
        let (sender, outcome) = oneshot::channel();
        let process = Arc::new(OnceLock::new());
        let started = Arc::clone(&process);
        std::thread::Builder::new()
            .name("upgrade".to_owned())
            .spawn(move || {
                let mut child = match spawn(other) {
                    Ok(child) => child,
                    Err(error) => {
                        let _ = sender.send(Err(vec![format!("{error:#}")]));
                        return;
                    }
                };
                started.get_or_init(|| child.id());
                let outcome = perform(&mut child, own, offer);
                if let Err(Ok(successor)) = sender.send(outcome) {
                    // This gateway is being terminated, and the new process is part of it.
                    terminate(successor.process);
                }
                // While this gateway drains, a successor that ends must not stay a zombie.
                let _ = child.wait();
            })
            .context("a thread could not be started")?;
        Ok(Attempt {
            channel,
            process,
            outcome,
        })
    }

    pub(super) async fn outcome(&mut self) -> AttemptOutcome {
        let ended = || Err(vec!["the upgrade ended without an outcome".to_owned()]);
        (&mut self.outcome).await.unwrap_or_else(|_| ended())
    }

    /// Gives up, and ends the new process: sockets that it was offered are open for as long as it is
    /// alive, although it may never take them.
    pub(super) fn cancel(&self) {
        self.channel.close();
        if let Some(process) = self.process.get() {
            terminate(*process);
        }
    }
}

impl Successor {
    /// Reports that this gateway no longer accepts connections.
    pub(in crate::gateway) fn release(self) {
        if let Err(error) = self.channel.send(&Message::Released, &[]) {
            tracing::warn!(%error, "the new process was not notified");
        }
        if let Some(reply) = self.reply {
            // The requester may have disconnected.
            let _ = reply.send(Ok(self.process));
        }
    }
}

fn terminate(process: u32) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    if let Some(process) = process {
        // It may have ended.
        let _ = kill_process(process, Signal::TERM);
    }
}

/// Offers the sockets to the new process, and waits until it serves.
fn perform(child: &mut Child, channel: Channel, offer: Offer) -> AttemptOutcome {
    let one = |error: String| Err(vec![error]);
    let received = hand_over(&channel, offer);
    if let Ok(Message::Serving { taken }) = received {
        return Ok(Successor {
            process: child.id(),
            taken,
            channel,
            reply: None,
        });
    }
    channel.close();
    let status = end(child);
    match received {
        Ok(Message::Failed { errors }) if !errors.is_empty() => Err(errors),
        Ok(_) => one("the new process sent another message than expected".to_owned()),
        Err(HandoverError::Closed) => one(match status {
            Some(status) => format!("the new process ended before it served: {status}"),
            None => "the new process gave up, and was killed".to_owned(),
        }),
        Err(HandoverError::TimedOut) => {
            let limit = START_TIMEOUT.as_secs();
            one(format!("the new process did not serve within {limit} s"))
        }
        Err(error) => one(format!("the sockets could not be handed over: {error}")),
    }
}

/// Sends the offer once the new process requests it, and returns the message after it. A process that
/// hangs before has none of the sockets, so they close with this gateway.
fn hand_over(channel: &Channel, (sockets, descriptors): Offer) -> Result<Message, HandoverError> {
    let deadline = clock::monotonic() + START_TIMEOUT;
    let receive = || {
        let left = deadline.saturating_duration_since(clock::monotonic());
        // Zero is not a time limit.
        let received = channel.receive(left.max(Duration::from_millis(1)));
        received.map(|(message, _)| message)
    };
    let first = receive()?;
    if first != Message::Request {
        return Ok(first);
    }
    let descriptors: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
    channel.send(&Message::Offer { sockets }, &descriptors)?;
    receive()
}

/// Starts the binary that is now at the path of this process, with the same arguments.
fn spawn(channel: OwnedFd) -> anyhow::Result<Child> {
    let mut arguments = std::env::args_os();
    let binary = arguments
        .next()
        .context("the path of the binary is unknown")?;
    let child = Command::new(&binary)
        .args(arguments)
        .env(PREDECESSOR, std::process::id().to_string())
        // The watchdog expects the process that the service manager supervises.
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::from(channel))
        .spawn();
    child.with_context(|| format!("{} could not be started", binary.display()))
}

/// Waits until a process has ended, or kills it.
fn end(child: &mut Child) -> Option<ExitStatus> {
    let deadline = clock::monotonic() + EXIT_TIMEOUT;
    while clock::monotonic() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
