//! Connections to upstream servers, kept by one worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::dial::{DialError, Dialed, Dialer, UpstreamStream};
use super::http2_pool::Http2Pool;
use super::http2_stream::Http2Stream;
use super::timer_wheel::{self, Ticks};
use super::upstream::Upstream;
use crate::proxy::connection_auth::Owner;
use crate::settings::{Protocol, Timeouts};
use crate::upstream::{Address, AddressId};

/// Idle connections to one server address.
const MAX_IDLE: usize = 1024;
/// Interval between searches for connections that are of no more use.
const SWEEP: Duration = Duration::from_secs(1);

/// The connections of one worker to upstream servers.
#[derive(Default)]
pub struct UpstreamConnections {
    pub(super) pool: Pool,
    http2: Http2Pool,
    dialer: Dialer,
}

/// The idle ones by address, those used last at the end.
#[derive(Default)]
pub(super) struct Pool(Mutex<HashMap<AddressId, Vec<Idle>, RandomState>>);

struct Idle {
    stream: UpstreamStream,
    /// The tick at which it is closed.
    until: u32,
}

impl UpstreamConnections {
    /// Takes an idle connection. An owner has connections of its own.
    pub(super) fn take(&self, address: AddressId, owner: Option<&Owner>) -> Option<Upstream> {
        let idle = match owner {
            Some(owner) => owner.take_connection(address),
            None => self.pool.take(address),
        };
        idle.map(Upstream::Http1)
    }

    /// Opens a stream of a connection that exists already.
    pub(super) async fn open_stream(
        &self,
        address: AddressId,
        owner: Option<&Owner>,
    ) -> Option<Upstream> {
        let session = self.http2_of(owner).open(address).await?;
        Some(Upstream::Http2(Box::new(Http2Stream::new(session))))
    }

    /// Connects to a server.
    ///
    /// # Errors
    /// See [`Dialer::connect`].
    pub(super) async fn connect(
        &self,
        address: &Address,
        protocol: Protocol,
        owner: Option<&Owner>,
        timeouts: &Timeouts,
    ) -> Result<Upstream, DialError> {
        let dialed = self.dialer.connect(address, protocol, timeouts).await?;
        let connection = match dialed {
            Dialed::Http1(stream) => return Ok(Upstream::Http1(stream)),
            Dialed::Http2(connection) => connection,
        };
        let idle = Ticks::of(timeouts.idle);
        let opening = self.http2_of(owner).add(address.id(), connection, idle);
        let session = opening.await?;
        Ok(Upstream::Http2(Box::new(Http2Stream::new(session))))
    }

    fn http2_of<'a>(&'a self, owner: Option<&'a Owner>) -> &'a Http2Pool {
        owner.map_or(&self.http2, |owner| &owner.http2)
    }

    /// Closes connections that are of no more use, forever.
    pub async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.pool.sweep();
            self.http2.sweep();
        }
    }
}

impl Idle {
    /// Whether it can carry a request. One that has been closed, or that has unsolicited bytes, cannot.
    fn is_usable(&mut self) -> bool {
        timer_wheel::now() < self.until && self.stream.is_quiet()
    }
}

impl Pool {
    /// Takes the connection that was used last.
    pub(super) fn take(&self, address: AddressId) -> Option<UpstreamStream> {
        let mut all = self.0.lock();
        let idle = all.get_mut(&address)?;
        while let Some(mut last) = idle.pop() {
            if last.is_usable() {
                return Some(last.stream);
            }
        }
        None
    }

    /// Keeps a connection for up to `timeout`, unless there are many.
    pub(super) fn put(&self, address: AddressId, stream: UpstreamStream, timeout: Ticks) {
        let until = timeout.from_now();
        let mut all = self.0.lock();
        let idle = all.entry(address).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { stream, until });
        }
    }

    /// Closes connections that have been idle for too long, or that their servers have closed.
    pub(super) fn sweep(&self) {
        self.0.lock().retain(|_, idle| {
            idle.retain_mut(Idle::is_usable);
            !idle.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::net::SocketAddr;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const IDLE: Ticks = Ticks::of(Duration::from_secs(60));

    /// A connection, its address, and its other end.
    async fn connection() -> (UpstreamStream, SocketAddr, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap());
        let (stream, accepted) = tokio::join!(stream, listener.accept());
        let stream = stream.unwrap();
        let name = stream.local_addr().unwrap();
        (UpstreamStream::Tcp(stream), name, accepted.unwrap().0)
    }

    fn name(stream: Option<UpstreamStream>) -> Option<SocketAddr> {
        match stream? {
            UpstreamStream::Tcp(stream) => Some(stream.local_addr().unwrap()),
            UpstreamStream::Other(_) => None,
        }
    }

    #[tokio::test]
    async fn connection_used_last_is_taken_first() {
        let (pool, address) = (Pool::default(), AddressId::unique());
        let (one, first, _one) = connection().await;
        let (two, second, _two) = connection().await;
        pool.put(address, one, IDLE);
        pool.put(address, two, IDLE);
        assert!(pool.take(AddressId::unique()).is_none());
        assert_eq!(name(pool.take(address)), Some(second));
        assert_eq!(name(pool.take(address)), Some(first));
        assert!(pool.take(address).is_none());
    }

    #[tokio::test]
    async fn unusable_connections_are_dropped() {
        let (pool, address) = (Pool::default(), AddressId::unique());
        let (usable, expected, _usable) = connection().await;
        let (closed, _, peer) = connection().await;
        let (unsolicited, _, mut speaker) = connection().await;
        pool.put(address, usable, IDLE);
        pool.put(address, closed, IDLE);
        pool.put(address, unsolicited, IDLE);
        drop(peer);
        speaker.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        let count = || pool.0.lock().get(&address).map_or(0, Vec::len);
        // The runtime may not have seen both yet.
        for _ in 0..1000 {
            pool.sweep();
            if count() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(count(), 1);
        assert_eq!(name(pool.take(address)), Some(expected));
        pool.sweep();
        assert!(pool.0.lock().is_empty());
    }
}
