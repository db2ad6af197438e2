//! One address of a server, with the connection settings that go with it.

use std::fmt;
use std::net;
use std::os::unix;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{ConnectionError, ConnectionSettings};

/// How long an address that refused a connection is skipped while its server has others.
/// `localhost` often resolves to two addresses of which only one has a listener.
const AVOIDANCE: Duration = Duration::from_secs(60);

/// Identifies an address with its connection settings, for as long as the process runs: connections
/// with one identifier may carry the same requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressId(u64);

impl AddressId {
    /// Makes one that is equal to no other.
    pub fn unique() -> AddressId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        AddressId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// One address of a server.
#[derive(Debug)]
pub struct Address {
    id: AddressId,
    socket: SocketAddress,
    connection: Arc<ConnectionSettings>,
    created_at: Instant,
    /// Milliseconds after `created_at`; 0 when the address is not avoided.
    avoided_until: AtomicU64,
}

/// The socket that a server listens on.
#[derive(Debug, Clone)]
pub enum SocketAddress {
    Tcp(net::SocketAddr),
    /// Always a path. Converted once: the conversion can fail.
    Unix(unix::net::SocketAddr),
}

impl Address {
    pub(super) fn new(socket: SocketAddress, connection: &Arc<ConnectionSettings>) -> Address {
        Address {
            id: AddressId::unique(),
            socket,
            connection: Arc::clone(connection),
            created_at: Instant::now(),
            avoided_until: AtomicU64::new(0),
        }
    }

    pub fn id(&self) -> AddressId {
        self.id
    }

    /// The socket to connect to.
    pub fn socket(&self) -> &SocketAddress {
        &self.socket
    }

    /// How to connect, the same for all addresses of a server.
    pub fn connection(&self) -> &ConnectionSettings {
        &self.connection
    }

    pub(super) fn mark_refused(&self, now: Instant) {
        let until = self.age(now + AVOIDANCE);
        self.avoided_until.store(until, Ordering::Relaxed);
    }

    pub(super) fn mark_reachable(&self) {
        // Read first: a store of the same value would still invalidate the cache line of other cores.
        if self.avoided_until.load(Ordering::Relaxed) != 0 {
            self.avoided_until.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn is_avoided(&self, now: Instant) -> bool {
        match self.avoided_until.load(Ordering::Relaxed) {
            0 => false,
            until => self.age(now) < until,
        }
    }

    fn age(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.created_at);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }
}

impl SocketAddress {
    /// Converts the path of a Unix socket, which is limited to about 100 bytes.
    pub(super) fn unix(path: &Path) -> Result<SocketAddress, ConnectionError> {
        let address = unix::net::SocketAddr::from_pathname(path);
        let address = address.map_err(|_| ConnectionError::SocketPath)?;
        Ok(SocketAddress::Unix(address))
    }
}

impl PartialEq for SocketAddress {
    fn eq(&self, other: &SocketAddress) -> bool {
        match (self, other) {
            (SocketAddress::Tcp(one), SocketAddress::Tcp(other)) => one == other,
            (SocketAddress::Unix(one), SocketAddress::Unix(other)) => {
                one.as_pathname() == other.as_pathname()
            }
            (SocketAddress::Tcp(_), SocketAddress::Unix(_))
            | (SocketAddress::Unix(_), SocketAddress::Tcp(_)) => false,
        }
    }
}

impl Eq for SocketAddress {}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketAddress::Tcp(address) => address.fmt(f),
            SocketAddress::Unix(address) => {
                let path = address.as_pathname().unwrap_or(Path::new(""));
                path.display().fmt(f)
            }
        }
    }
}
