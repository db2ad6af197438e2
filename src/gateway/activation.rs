//! Socket activation: listening sockets that the service manager has opened (`sd_listen_fds(3)`).

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, bail};
use listenfd::ListenFd;

use super::sockets::{HeldBy, Socket};
use crate::settings::Boot;

/// Names of the descriptors, separated by colons, in their order.
const NAMES: &str = "LISTEN_FDNAMES";

/// A socket of the service manager, before it is known which listener it is for.
struct ActivatedSocket {
    /// `FileDescriptorName=` of the socket unit.
    name: String,
    listener: TcpListener,
}

/// The sockets that the service manager has opened for this process.
#[derive(Default)]
pub struct ActivatedSockets(Vec<ActivatedSocket>);

impl ActivatedSockets {
    /// Takes the sockets. To be called before the process has threads, because it removes variables
    /// of the environment.
    ///
    /// # Errors
    /// A descriptor is not a listening TCP socket.
    pub fn take() -> anyhow::Result<ActivatedSockets> {
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut names = names.split(':');
        let mut descriptors = ListenFd::from_env();
        let sockets = (0..descriptors.len()).map(|index| {
            let name = names.next().unwrap_or_default().to_owned();
            let listener = descriptors.take_tcp_listener(index);
            let listener = listener.ok().flatten().filter(is_listening);
            let listener = listener.with_context(|| {
                format!("LISTEN_FDS: socket {index} {name:?} is not a listening TCP socket")
            })?;
            anyhow::Ok(ActivatedSocket { name, listener })
        });
        sockets.collect::<anyhow::Result<_>>().map(ActivatedSockets)
    }

    /// Finds the listener of each socket.
    pub(super) fn assign(self, boot: &Boot) -> anyhow::Result<Vec<Socket>> {
        let mut assigned: Vec<Socket> = Vec::new();
        for ActivatedSocket { name, listener } in self.0 {
            let address = listener.local_addr();
            let address = address.context("LISTEN_FDS: a socket has no address")?;
            let Some(bind) = configured_address(&name, address, boot) else {
                bail!(
                    "LISTEN_FDS: the socket {address} {name:?} is for no listener: its address must be \
                     that of a listener or of the admin listener, or its name \"listeners[N]\" or \
                     \"admin\""
                );
            };
            if assigned.iter().any(|other| other.bind == bind) {
                bail!("LISTEN_FDS: there are two sockets for the listener {bind}");
            }
            assigned.push(Socket {
                bind,
                listener,
                held_by: HeldBy::ServiceManager,
            });
        }
        Ok(assigned)
    }
}

fn is_listening(listener: &TcpListener) -> bool {
    socket2::SockRef::from(listener)
        .is_listener()
        .unwrap_or_default()
}

/// Returns the configured address of the listener that a socket is for, by its name or by its
/// address.
fn configured_address(name: &str, address: SocketAddr, boot: &Boot) -> Option<SocketAddr> {
    if name == "admin" {
        return Some(boot.admin);
    }
    let index = name
        .strip_prefix("listeners[")
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(index) = index {
        return Some(boot.listeners.get(index.parse::<usize>().ok()?)?.bind);
    }
    let public = boot.listeners.iter().map(|listener| listener.bind);
    public
        .chain([boot.admin])
        .find(|configured| *configured == address)
}
