//! New connections to upstream servers: plain TCP directly; TLS and Unix sockets by Pingora's
//! connector.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::timeout;

use crate::proxy::pingora::{failure_of, peer_of};
use crate::proxy::retry::Failure;
use crate::routing::TimeoutOverrides;
use crate::settings::Timeouts;
use crate::upstream::{Address, SocketAddress};

/// A connection to a server.
#[derive(Debug)]
pub(in crate::proxy) enum UpstreamStream {
    Tcp(TcpStream),
    /// TLS, or a Unix socket.
    Other(Stream),
}

/// Why no connection was made.
#[derive(Debug)]
pub(super) struct DialError {
    pub failure: Failure,
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// Makes the connections of one worker. The connector, which holds the trusted certificates of the
/// system, is made when a server first needs it.
#[derive(Default)]
pub(in crate::proxy) struct Dialer(OnceLock<TransportConnector>);

impl Dialer {
    /// Connects to a server.
    ///
    /// # Errors
    /// No connection within the timeout; a certificate that does not verify.
    pub(super) async fn connect(
        &self,
        address: &Address,
        timeouts: &Timeouts,
    ) -> Result<UpstreamStream, DialError> {
        match (address.socket(), &address.connection().tls) {
            (SocketAddress::Tcp(socket), None) => connect_tcp(*socket, timeouts.connect).await,
            _ => self.connect_peer(address, timeouts).await,
        }
    }

    async fn connect_peer(
        &self,
        address: &Address,
        timeouts: &Timeouts,
    ) -> Result<UpstreamStream, DialError> {
        let overrides = TimeoutOverrides {
            connect: Some(timeouts.connect),
            ..TimeoutOverrides::default()
        };
        // It pools nothing.
        let new = || TransportConnector::new(Some(ConnectorOptions::new(0)));
        let connector = self.0.get_or_init(new);
        let connected = connector.new_stream(&*peer_of(address, &overrides)).await;
        connected
            .map(UpstreamStream::Other)
            .map_err(|error| DialError {
                failure: failure_of(&error),
                cause: error,
            })
    }
}

async fn connect_tcp(address: SocketAddr, limit: Duration) -> Result<UpstreamStream, DialError> {
    let connected = timeout(limit, TcpStream::connect(address)).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = connected.map_err(DialError::of_socket)?;
    // Otherwise a head and a body in separate writes would wait for each other's ACK.
    stream.set_nodelay(true).map_err(DialError::of_socket)?;
    Ok(UpstreamStream::Tcp(stream))
}

impl DialError {
    fn of_socket(error: io::Error) -> DialError {
        use io::ErrorKind as E;
        DialError {
            failure: match error.kind() {
                E::ConnectionRefused => Failure::ConnectRefused,
                E::TimedOut => Failure::ConnectTimeout,
                E::HostUnreachable | E::NetworkUnreachable => Failure::NoRouteToServer,
                _ => Failure::ConnectFailed,
            },
            cause: error.into(),
        }
    }
}

impl UpstreamStream {
    /// Whether an idle connection is open and has nothing to read. For plain TCP, the runtime knows it
    /// without a system call.
    pub(in crate::proxy) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match self {
            UpstreamStream::Tcp(stream) => {
                let read = stream.try_read(&mut byte);
                read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            // TLS consumes session tickets here, which arrive on idle connections.
            UpstreamStream::Other(stream) => unconstrained(stream.read(&mut byte))
                .now_or_never()
                .is_none(),
        }
    }
}

impl AsRawFd for UpstreamStream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            UpstreamStream::Tcp(stream) => stream.as_raw_fd(),
            UpstreamStream::Other(stream) => stream.id(),
        }
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpstreamStream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            UpstreamStream::Other(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            UpstreamStream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            UpstreamStream::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpstreamStream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            UpstreamStream::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            UpstreamStream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            UpstreamStream::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
