//! The new process of an upgrade: takes sockets over, and reports that it serves.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::PREDECESSOR;
use super::control::ControlSocket;
use super::handover::{Channel, Message, OfferedSocket};
use crate::gateway::sockets::{Inherited, InheritedSockets, Socket};
use crate::proxy::listener::ListeningSocket;

/// How long the sockets may take to arrive, and the predecessor to stop accepting.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of errors that the predecessor receives; the log has all of them.
const MAX_ERRORS: usize = 50;
/// Maximum length of such an error, in characters.
const MAX_ERROR: usize = 300;

/// The gateway that started this process to be replaced by it.
pub struct Predecessor(Channel);

impl Predecessor {
    /// Returns the gateway that started this process for an upgrade, if one did.
    ///
    /// # Errors
    /// Standard input does not lead to it, or it is not of this user.
    pub fn connect() -> anyhow::Result<Option<Predecessor>> {
        let Ok(process) = std::env::var(PREDECESSOR) else {
            return Ok(None);
        };
        let stdin = io::stdin();
        let peer = socket_peercred(stdin.as_fd());
        let peer = peer.with_context(|| {
            format!("{PREDECESSOR} is set, but standard input does not lead to a gateway")
        })?;
        ensure!(
            peer.uid == geteuid() && peer.pid.as_raw_nonzero().to_string() == process,
            "{PREDECESSOR} names process {process}, but standard input leads to process {} of user {}",
            peer.pid.as_raw_nonzero(),
            peer.uid.as_raw(),
        );
        let channel = Channel::from_descriptor(stdin.as_fd().try_clone_to_owned()?);
        // Nothing else reads messages of the channel.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let requested = channel.send(&Message::Request, &[]);
        requested.context("the running gateway cannot be asked for its sockets")?;
        Ok(Some(Predecessor(channel)))
    }

    /// Receives the sockets of the predecessor.
    pub(in crate::gateway) fn receive_sockets(&self) -> anyhow::Result<InheritedSockets> {
        let offer = self.0.receive(MESSAGE_TIMEOUT);
        let (message, descriptors) =
            offer.context("the sockets of the running gateway were not received")?;
        let Message::Offer { sockets } = message else {
            bail!("the running gateway did not offer its sockets");
        };
        ensure!(
            sockets.len() == descriptors.len(),
            "the running gateway offers {} sockets, but {} arrived",
            sockets.len(),
            descriptors.len()
        );
        let offered = sockets.into_iter().zip(descriptors);
        let inherited = offered.map(|(socket, descriptor)| match socket {
            OfferedSocket::Listener { bind, held_by } => Inherited::Listener(Socket {
                listener: ListeningSocket::of(&bind, descriptor),
                bind,
                held_by,
            }),
            OfferedSocket::Control { path } => {
                Inherited::Control(ControlSocket::adopt(descriptor.into(), path))
            }
        });
        Ok(inherited.map(Some).collect())
    }

    /// Reports that this process serves, with the indices of the sockets that it has taken.
    pub(in crate::gateway) fn report_serving(&self, taken: Vec<usize>) -> anyhow::Result<()> {
        let sent = self.0.send(&Message::Serving { taken }, &[]);
        sent.context("the running gateway was not notified")
    }

    /// Waits until the predecessor has stopped accepting connections, or has ended.
    pub(in crate::gateway) fn wait_until_released(&self) {
        if let Err(error) = self.0.receive(MESSAGE_TIMEOUT) {
            tracing::debug!(%error, "the predecessor did not confirm that it drains");
        }
    }

    /// Reports why this process does not start.
    pub fn report_failure(&self, errors: &[String]) {
        let errors = errors.iter().take(MAX_ERRORS);
        let errors = errors.map(|error| error.chars().take(MAX_ERROR).collect());
        let message = Message::Failed {
            errors: errors.collect(),
        };
        if let Err(error) = self.0.send(&message, &[]) {
            tracing::debug!(%error, "the predecessor was not notified");
        }
    }
}
