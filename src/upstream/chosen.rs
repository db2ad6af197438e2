//! A server that was chosen for one request.

use std::sync::Arc;

use pingora::upstreams::peer::HttpPeer;
use tokio::time::Instant;

use super::address::Address;
use super::state::UpstreamState;
use crate::settings::{TimeoutOverrides, UpstreamHost};

/// Counts as a request in flight until it is dropped.
#[derive(Debug)]
pub struct ChosenServer {
    state: Arc<UpstreamState>,
    index: usize,
    address: Arc<Address>,
}

/// A server to which later requests go as well.
#[derive(Debug)]
pub struct PinnedServer {
    shared: Arc<UpstreamState>,
    index: usize,
    address: Arc<Address>,
}

/// What became of a request at the level of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The server answered, whatever it said.
    Success,
    ConnectFailed,
    Timeout,
    ProtocolError,
}

impl ChosenServer {
    /// Takes the next of a server's addresses. `None`: it has none.
    pub(super) fn take(shared: &Arc<UpstreamState>, index: usize) -> Option<ChosenServer> {
        let server = shared.servers.get(index)?;
        let address = server.next_address()?;
        server.begin();
        Some(ChosenServer {
            state: Arc::clone(shared),
            index,
            address,
        })
    }

    /// Takes a pinned server again. `None`: it is out of rotation, or has lost the address.
    pub(super) fn take_again(
        shared: &Arc<UpstreamState>,
        pinned: &PinnedServer,
    ) -> Option<ChosenServer> {
        let server = shared.servers.get(pinned.index)?;
        let in_rotation = shared.rotation.load().members().contains(&pinned.index);
        let address = &pinned.address;
        let same = |other: &Arc<Address>| other.peer._address == address.peer._address;
        if !Arc::ptr_eq(shared, &pinned.shared)
            || !in_rotation
            || !server.addresses().iter().any(same)
        {
            return None;
        }
        server.begin();
        Some(ChosenServer {
            state: Arc::clone(shared),
            index: pinned.index,
            address: Arc::clone(address),
        })
    }

    /// The server, to be taken again.
    pub fn pinned(&self) -> PinnedServer {
        PinnedServer {
            shared: Arc::clone(&self.state),
            index: self.index,
            address: Arc::clone(&self.address),
        }
    }

    /// The upstream's name, for logs.
    pub fn upstream(&self) -> &str {
        &self.state.settings.name
    }

    /// The server's index, for the list of those tried.
    pub fn server(&self) -> usize {
        self.index
    }

    /// As the operator wrote it, for logs.
    pub fn url(&self) -> &str {
        let server = self.state.servers.get(self.index);
        server.map_or("", |server| &server.settings.url)
    }

    /// How to connect, with the upstream's timeouts but for what the route overrides.
    pub fn peer(&self, overrides: Option<&TimeoutOverrides>) -> Box<HttpPeer> {
        let mut peer = Box::new(self.address.peer.clone());
        if let Some(overrides) = overrides {
            let options = &mut peer.options;
            if overrides.connect.is_some() {
                options.connection_timeout = overrides.connect;
                options.total_connection_timeout = overrides.connect;
            }
            options.read_timeout = overrides.read.or(options.read_timeout);
            options.write_timeout = overrides.write.or(options.write_timeout);
            options.idle_timeout = overrides.idle.or(options.idle_timeout);
        }
        peer
    }

    /// The `Host` that the server is to get; `None`: the client's.
    pub fn host(&self) -> Option<&str> {
        match &self.state.settings.host {
            UpstreamHost::Preserve => None,
            UpstreamHost::Name(name) => Some(name),
            UpstreamHost::Upstream => {
                let server = self.state.servers.get(self.index)?;
                Some(&server.template.as_ref()?.authority)
            }
        }
    }

    /// Lets the upstream learn from what became of the request.
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
    /// Whether a server belongs to the same upstream.
    pub fn is_of_same_upstream(&self, chosen: &ChosenServer) -> bool {
        Arc::ptr_eq(&self.shared, &chosen.state)
    }
}

impl Drop for ChosenServer {
    fn drop(&mut self) {
        if let Some(server) = self.state.servers.get(self.index) {
            server.end();
        }
    }
}
