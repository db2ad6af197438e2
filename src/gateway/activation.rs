//! Socket activation: listening sockets that the service manager has opened (`sd_listen_fds(3)`).

use anyhow::{Context as _, bail};
use listenfd::ListenFd;

use super::sockets::{HeldBy, Socket};
use crate::proxy::listener::ListeningSocket;
use crate::settings::{BindAddress, Boot};

/// Names of the descriptors, separated by colons, in their order.
const NAMES: &str = "LISTEN_FDNAMES";

/// A socket of the service manager, before it is known which listener it is for.
struct ActivatedSocket {
    /// `FileDescriptorName=` of the socket unit.
    name: String,
    listener: ListeningSocket,
}

/// The sockets that the service manager has opened for this process.
#[derive(Default)]
pub struct ActivatedSockets(Vec<ActivatedSocket>);

impl ActivatedSockets {
    /// Takes the sockets. To be called before the process has threads, because it removes variables
    /// of the environment.
    ///
    /// # Errors
    /// A descriptor is not a listening socket.
    pub fn take() -> anyhow::Result<ActivatedSockets> {
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut names = names.split(':');
        let mut descriptors = ListenFd::from_env();
        let sockets = (0..descriptors.len()).map(|index| {
            let name = names.next().unwrap_or_default().to_owned();
            let listener = take_listener(&mut descriptors, index).filter(is_listening);
            let listener = listener.with_context(|| {
                format!("LISTEN_FDS: socket {index} {name:?} is not a listening TCP or Unix socket")
            })?;
            anyhow::Ok(ActivatedSocket { name, listener })
        });
        sockets.collect::<anyhow::Result<_>>().map(ActivatedSockets)
    }

    /// Finds the listener of each socket.
    pub(super) fn assign(self, boot: &Boot) -> anyhow::Result<Vec<Socket>> {
        let mut assigned: Vec<Socket> = Vec::new();
        for ActivatedSocket { name, listener } in self.0 {
            let address = listener.address();
            let address = address.context("LISTEN_FDS: a socket has no address")?;
            let Some(bind) = configured_address(&name, &address, boot) else {
                bail!(
                    "LISTEN_FDS: the socket {address} {name:?} is for no listener: its address must be \
                     that of a listener or of the admin listener, or its name \"listeners[N]\", \
                     \"forward_auth\" or \"admin\""
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

fn take_listener(descriptors: &mut ListenFd, index: usize) -> Option<ListeningSocket> {
    if let Ok(Some(listener)) = descriptors.take_tcp_listener(index) {
        return Some(ListeningSocket::Tcp(listener));
    }
    let listener = descriptors.take_unix_listener(index).ok().flatten();
    listener.map(ListeningSocket::Unix)
}

fn is_listening(listener: &ListeningSocket) -> bool {
    socket2::SockRef::from(listener)
        .is_listener()
        .unwrap_or_default()
}

/// Returns the configured address of the listener that a socket is for, by its name or by its
/// address.
fn configured_address(name: &str, address: &BindAddress, boot: &Boot) -> Option<BindAddress> {
    let admin = BindAddress::Tcp(boot.admin);
    if name == "admin" {
        return Some(admin);
    }
    if name == "forward_auth" {
        return Some(boot.forward_auth.as_ref()?.bind.clone());
    }
    let index = name
        .strip_prefix("listeners[")
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(index) = index {
        return Some(
            boot.listeners
                .get(index.parse::<usize>().ok()?)?
                .bind
                .clone(),
        );
    }
    let served = boot.served_listeners();
    served
        .map(|(_, listener)| listener.bind.clone())
        .chain([admin])
        .find(|configured| configured == address)
}
