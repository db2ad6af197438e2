//! The listening sockets.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;

use crate::proxy::listener;
use crate::settings::Boot;

/// The sockets of the public listeners, in the file's order, and that of the admin listener.
pub(super) struct Sockets {
    pub(super) public: Vec<TcpListener>,
    pub(super) admin: TcpListener,
}

impl Sockets {
    pub(super) fn bind(boot: &Boot) -> anyhow::Result<Sockets> {
        let public = boot.listeners.iter().enumerate().map(|(index, listener)| {
            let key = format!("listeners[{index}].bind");
            listener::bind(listener.bind).with_context(|| bind_error(listener.bind, &key))
        });
        let public = public.collect::<anyhow::Result<_>>()?;
        let admin = listener::bind_admin(boot.admin);
        let admin = admin.with_context(|| bind_error(boot.admin, "admin.bind"))?;
        Ok(Sockets { public, admin })
    }

    /// Releases the addresses for a successor. The public sockets close once the workers have
    /// accepted the kernel's backlog; the admin socket is shared, so that this gateway continues to
    /// report that it is not ready.
    pub(super) fn release(self) {
        for socket in &self.public {
            if let Err(error) = listener::ignore_new_connections(socket) {
                tracing::debug!(%error, "new connections may be reset while the socket is closed");
            }
        }
        if let Err(error) = listener::share_with_successor(&self.admin) {
            tracing::debug!(%error, "the admin address is free when this process has ended");
        }
    }
}

fn bind_error(address: SocketAddr, key: &str) -> String {
    format!("{key}: {address} cannot be bound")
}
