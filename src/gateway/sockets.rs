//! The listening sockets: inherited from another process, or bound.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::upgrade::{ControlSocket, OfferedSocket};
use crate::proxy::listener::{self, ListenerState, ListeningSocket};
use crate::settings::{BindAddress, Boot, ListenerId};

/// The listening sockets of a gateway. `None`: a successor has the socket.
pub(super) struct Sockets {
    /// Of the listeners that the workers serve, in their order.
    served: Vec<Option<Socket>>,
    admin: Option<Socket>,
    /// `None` also if none is configured.
    control: Option<ControlSocket>,
}

/// A socket of a listener.
pub(super) struct Socket {
    /// The configured address of the listener.
    pub(super) bind: BindAddress,
    pub(super) listener: ListeningSocket,
    pub(super) held_by: HeldBy,
}

/// Who keeps a socket open when the gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HeldBy {
    Gateway,
    /// Connections wait in it for the next process.
    ServiceManager,
}

/// A socket that another process has opened.
pub(super) enum Inherited {
    Listener(Socket),
    Control(ControlSocket),
}

/// Sockets of another process; those that are taken leave `None`.
pub(super) type InheritedSockets = Vec<Option<Inherited>>;

impl Sockets {
    /// Takes the inherited sockets of the listeners, and binds those that are missing.
    pub(super) fn open(boot: &Boot, inherited: &mut InheritedSockets) -> anyhow::Result<Sockets> {
        let served = boot.served_listeners().map(|(id, configured)| {
            let address = &configured.bind;
            let socket = take_listener(inherited, address)?;
            let bind = || Socket::bind(listener::bind, address, &bind_key(id));
            socket.map_or_else(bind, Ok).map(Some)
        });
        let served = served.collect::<anyhow::Result<_>>()?;
        let address = BindAddress::Tcp(boot.admin);
        let admin = take_listener(inherited, &address)?;
        let bind_admin = || Socket::bind(listener::bind_admin, &address, "admin.bind");
        let control = boot.control_socket.as_deref().map(|path| {
            let socket = take_control(inherited, path);
            socket.map_or_else(|| ControlSocket::bind(path), Ok)
        });
        Ok(Sockets {
            served,
            admin: Some(admin.map_or_else(bind_admin, Ok)?),
            control: control.transpose()?,
        })
    }

    /// Returns duplicates of the sockets of the listeners that the workers serve.
    pub(super) fn served_listeners(&self) -> io::Result<Vec<ListeningSocket>> {
        let sockets = self.served.iter().flatten();
        sockets.map(|socket| socket.listener.try_clone()).collect()
    }

    /// Returns a duplicate of the socket of the admin listener.
    pub(super) fn admin_listener(&self) -> anyhow::Result<TcpListener> {
        let socket = self.admin.as_ref().context("a successor has the socket")?;
        let listener = socket.listener.tcp().context("it is no TCP socket")?;
        Ok(listener.try_clone()?)
    }

    /// Returns a duplicate of the control socket, if there is one.
    pub(super) fn control_listener(&self) -> io::Result<Option<UnixListener>> {
        self.control
            .as_ref()
            .map(ControlSocket::try_clone)
            .transpose()
    }

    /// Returns descriptions and duplicates of all sockets: of the listeners that the workers serve, of
    /// the admin listener, and the control socket.
    pub(super) fn offer(&self) -> anyhow::Result<(Vec<OfferedSocket>, Vec<OwnedFd>)> {
        let (mut offered, mut descriptors) = (Vec::new(), Vec::new());
        for socket in self.served.iter().chain([&self.admin]).flatten() {
            let (bind, held_by) = (socket.bind.clone(), socket.held_by);
            offered.push(OfferedSocket::Listener { bind, held_by });
            descriptors.push(socket.listener.as_fd());
        }
        if let Some(control) = &self.control {
            let path = control.path().to_owned();
            offered.push(OfferedSocket::Control { path });
            descriptors.push(control.as_fd());
        }
        let descriptors = descriptors.iter().map(|one| one.try_clone_to_owned());
        let descriptors = descriptors.collect::<io::Result<_>>();
        Ok((
            offered,
            descriptors.context("a socket could not be shared")?,
        ))
    }

    /// Leaves the sockets that a successor has taken, by their positions in the [`Sockets::offer`].
    pub(super) fn hand_over(&mut self, taken: &[usize], listeners: &[Arc<ListenerState>]) {
        let served = self.served.len();
        for (index, state) in listeners.iter().enumerate() {
            if taken.contains(&index)
                && let Some(socket) = self.served.get_mut(index)
            {
                *socket = None;
                state.leave();
            }
        }
        if taken.contains(&served) {
            self.admin = None;
        }
        if taken.contains(&(served + 1)) {
            self.control = None;
        }
    }

    /// Whether a successor has the socket of the admin listener.
    pub(super) fn admin_is_handed_over(&self) -> bool {
        self.admin.is_none()
    }

    /// Whether a successor has the control socket.
    pub(super) fn control_is_handed_over(&self) -> bool {
        self.control.is_none()
    }

    /// Releases the addresses for another process. The workers' sockets close once they have accepted
    /// the kernel's backlog; the admin socket is shared, so that this gateway continues to
    /// report that it is not ready. Connections to a socket of the service manager wait in it.
    pub(super) fn release(self, listeners: &[Arc<ListenerState>]) {
        for (socket, state) in self.served.iter().zip(listeners) {
            let Some(socket) = socket else { continue };
            if socket.held_by == HeldBy::ServiceManager {
                state.leave();
            } else if let Err(error) = socket.listener.ignore_new_connections() {
                tracing::debug!(%error, "new connections may be reset while the socket is closed");
            }
        }
        if let Some(admin) = self.admin
            && admin.held_by == HeldBy::Gateway
            && let Some(listener) = admin.listener.tcp()
            && let Err(error) = listener::share_with_successor(listener)
        {
            tracing::debug!(%error, "the admin address is free when this process has ended");
        }
        if let Some(control) = self.control {
            control.remove();
        }
    }
}

impl Socket {
    fn bind(
        bind: fn(&BindAddress) -> io::Result<ListeningSocket>,
        address: &BindAddress,
        key: &str,
    ) -> anyhow::Result<Socket> {
        let listener = bind(address);
        Ok(Socket {
            bind: address.clone(),
            listener: listener.with_context(|| format!("{key}: {address} cannot be bound"))?,
            held_by: HeldBy::Gateway,
        })
    }
}

/// The configuration key of a listener's address.
fn bind_key(id: ListenerId) -> String {
    match id {
        ListenerId::Public(index) => format!("listeners[{index}].bind"),
        ListenerId::ForwardAuth => "forward_auth.bind".to_owned(),
    }
}

/// Takes the socket of an address.
fn take_listener(
    inherited: &mut InheritedSockets,
    address: &BindAddress,
) -> anyhow::Result<Option<Socket>> {
    for entry in inherited {
        match entry.take() {
            Some(Inherited::Listener(socket)) if socket.bind == *address => {
                let adopted = socket.listener.adopt();
                adopted.with_context(|| format!("the socket {address} cannot be taken over"))?;
                return Ok(Some(socket));
            }
            other => *entry = other,
        }
    }
    Ok(None)
}

/// Takes the control socket, if it is at this path.
fn take_control(inherited: &mut InheritedSockets, path: &Path) -> Option<ControlSocket> {
    for entry in inherited {
        match entry.take() {
            Some(Inherited::Control(socket)) if socket.path() == path => return Some(socket),
            other => *entry = other,
        }
    }
    None
}
