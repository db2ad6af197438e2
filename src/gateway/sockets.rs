//! The listening sockets: inherited or bound.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;

use crate::proxy::listener::{self, ListenerState};
use crate::settings::Boot;

/// The sockets of the public listeners, in the file's order, and that of the admin listener.
pub(super) struct Sockets {
    pub(super) public: Vec<Socket>,
    pub(super) admin: Socket,
}

/// A listening socket.
pub(super) struct Socket {
    pub(super) listener: TcpListener,
    held_by: HeldBy,
}

/// Who keeps a socket open when the gateway ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldBy {
    Gateway,
    /// Connections wait in it for the next process.
    ServiceManager,
}

/// A listening socket that another process has opened.
pub(super) struct Inherited {
    /// The configured address of the listener.
    pub(super) bind: SocketAddr,
    pub(super) listener: TcpListener,
    pub(super) held_by: HeldBy,
}

impl Sockets {
    /// Takes the inherited sockets of the listeners, and binds those that are missing.
    pub(super) fn open(boot: &Boot, mut inherited: Vec<Inherited>) -> anyhow::Result<Sockets> {
        let public = boot
            .listeners
            .iter()
            .enumerate()
            .map(|(index, configured)| {
                let address = configured.bind;
                let key = format!("listeners[{index}].bind");
                let socket = take(&mut inherited, address)?;
                socket.map_or_else(|| Socket::bind(listener::bind, address, &key), Ok)
            });
        let public = public.collect::<anyhow::Result<_>>()?;
        let admin = take(&mut inherited, boot.admin)?;
        let bind_admin = || Socket::bind(listener::bind_admin, boot.admin, "admin.bind");
        let admin = admin.map_or_else(bind_admin, Ok)?;
        Ok(Sockets { public, admin })
    }

    /// Releases the addresses for a successor. The public sockets close once the workers have
    /// accepted the kernel's backlog; the admin socket is shared, so that this gateway continues to
    /// report that it is not ready. Connections to a socket of the service manager wait in it.
    pub(super) fn release(self, listeners: &[Arc<ListenerState>]) {
        for (socket, state) in self.public.iter().zip(listeners) {
            if socket.held_by == HeldBy::ServiceManager {
                state.leave();
            } else if let Err(error) = listener::ignore_new_connections(&socket.listener) {
                tracing::debug!(%error, "new connections may be reset while the socket is closed");
            }
        }
        if self.admin.held_by == HeldBy::Gateway
            && let Err(error) = listener::share_with_successor(&self.admin.listener)
        {
            tracing::debug!(%error, "the admin address is free when this process has ended");
        }
    }
}

impl Socket {
    fn bind(
        bind: fn(SocketAddr) -> std::io::Result<TcpListener>,
        address: SocketAddr,
        key: &str,
    ) -> anyhow::Result<Socket> {
        let listener = bind(address);
        Ok(Socket {
            listener: listener.with_context(|| format!("{key}: {address} cannot be bound"))?,
            held_by: HeldBy::Gateway,
        })
    }
}

/// Takes the socket of an address.
fn take(inherited: &mut Vec<Inherited>, bind: SocketAddr) -> anyhow::Result<Option<Socket>> {
    let Some(index) = inherited.iter().position(|socket| socket.bind == bind) else {
        return Ok(None);
    };
    let Inherited {
        listener, held_by, ..
    } = inherited.swap_remove(index);
    let adopted = listener::adopt(&listener);
    adopted.with_context(|| format!("the socket {bind} cannot be taken over"))?;
    Ok(Some(Socket { listener, held_by }))
}
