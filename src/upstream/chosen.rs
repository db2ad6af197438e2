//! Server chosen for one request.

use std::sync::Arc;

use tokio::time::Instant;

use super::address::Address;
use super::state::UpstreamState;
use crate::settings::UpstreamHost;

/// A chosen server. Counts as a request in flight until it is dropped.
#[derive(Debug)]
pub struct ChosenServer {
    state: Arc<UpstreamState>,
    index: usize,
    address: Arc<Address>,
}

/// A server and address to which later requests are sent as well.
#[derive(Debug)]
pub struct PinnedServer {
    state: Arc<UpstreamState>,
    index: usize,
    address: Arc<Address>,
}

/// The outcome of a request at the connection level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The server responded, with whatever status.
    Success,
    ConnectFailed,
    Timeout,
    ProtocolError,
}

impl ChosenServer {
    /// Takes the next address of a server; `None` if it has none.
    pub(super) fn take(state: &Arc<UpstreamState>, index: usize) -> Option<ChosenServer> {
        let server = state.servers.get(index)?;
        let address = server.next_address()?;
        server.begin();
        Some(ChosenServer {
            state: Arc::clone(state),
            index,
            address,
        })
    }

    /// Takes a pinned server again; `None` if it is out of rotation or no longer has the address.
    pub(super) fn take_again(
        state: &Arc<UpstreamState>,
        pinned: &PinnedServer,
    ) -> Option<ChosenServer> {
        let server = state.servers.get(pinned.index)?;
        let in_rotation = state.rotation.load().members().contains(&pinned.index);
        let address = &pinned.address;
        let is_pinned = |other: &Arc<Address>| other.socket() == address.socket();
        if !Arc::ptr_eq(state, &pinned.state)
            || !in_rotation
            || !server.addresses().iter().any(is_pinned)
        {
            return None;
        }
        server.begin();
        Some(ChosenServer {
            state: Arc::clone(state),
            index: pinned.index,
            address: Arc::clone(address),
        })
    }

    /// Pins the server and the address for later requests.
    pub fn pinned(&self) -> PinnedServer {
        PinnedServer {
            state: Arc::clone(&self.state),
            index: self.index,
            address: Arc::clone(&self.address),
        }
    }

    /// The upstream's name, for logs.
    pub fn upstream(&self) -> &str {
        &self.state.settings.name
    }

    /// The server's index, for the list of tried servers.
    pub fn server(&self) -> usize {
        self.index
    }

    /// The server's URL as configured, for logs.
    pub fn url(&self) -> &str {
        let server = self.state.servers.get(self.index);
        server.map_or("", |server| &server.settings.url)
    }

    /// The address to connect to, with the connection settings.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The `Host` to send to the server; `None` to keep the client's.
    pub fn host(&self) -> Option<&str> {
        match &self.state.settings.host {
            UpstreamHost::Preserve => None,
            UpstreamHost::Name(name) => Some(name),
            UpstreamHost::Upstream => Some(&self.address.connection().authority),
        }
    }

    /// Reports the outcome of the request to the passive health check.
    pub fn report(&self, outcome: AttemptOutcome) {
        match outcome {
            AttemptOutcome::Success => self.address.mark_reachable(),
            AttemptOutcome::ConnectFailed => self.address.mark_refused(Instant::now()),
            AttemptOutcome::Timeout | AttemptOutcome::ProtocolError => {}
        }
        self.state.observe(self.index, outcome);
    }
}

impl PinnedServer {
    /// Whether the pinned and the chosen server belong to the same upstream.
    pub fn is_of_same_upstream(&self, chosen: &ChosenServer) -> bool {
        Arc::ptr_eq(&self.state, &chosen.state)
    }
}

impl Drop for ChosenServer {
    fn drop(&mut self) {
        if let Some(server) = self.state.servers.get(self.index) {
            server.end();
        }
    }
}
