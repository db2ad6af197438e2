//! New connections to upstream servers: plain TCP directly; TLS, Unix sockets and HTTP/2 by Pingora's
//! connector and client.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use pingora::BError;
use pingora::connectors::http::v2::{H2HandshakeSettings, handshake};
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::{ALPN, Stream};
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::timeout;

use crate::proxy::pingora::{failure_of, peer_of};
use crate::proxy::retry::Failure;
use crate::routing::TimeoutOverrides;
use crate::settings::{Protocol, Timeouts};
use crate::upstream::{Address, SocketAddress};

pub(super) use pingora::connectors::http::v2::ConnectionRef as Http2Connection;
pub(super) use pingora::protocols::http::v2::client::Http2Session;

/// A connection that was made.
pub(super) enum Dialed {
    Http1(UpstreamStream),
    Http2(Http2Connection),
}

/// A connection to a server that carries one request at a time.
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
    /// Connects to a server. `protocol` is HTTP/1.1 also for an upgrade at a server of HTTP/2.
    ///
    /// # Errors
    /// No connection within the timeout; a certificate that does not verify.
    pub(super) async fn connect(
        &self,
        address: &Address,
        protocol: Protocol,
        timeouts: &Timeouts,
    ) -> Result<Dialed, DialError> {
        match (address.socket(), &address.connection().tls, protocol) {
            (SocketAddress::Tcp(socket), None, Protocol::Http1) => {
                let stream = connect_tcp(*socket, timeouts.connect).await?;
                Ok(Dialed::Http1(stream))
            }
            // Its future is 8 KiB, which every connection would otherwise need while it connects.
            _ => Box::pin(self.connect_peer(address, protocol, timeouts)).await,
        }
    }

    async fn connect_peer(
        &self,
        address: &Address,
        protocol: Protocol,
        timeouts: &Timeouts,
    ) -> Result<Dialed, DialError> {
        let overrides = TimeoutOverrides {
            connect: Some(timeouts.connect),
            ..TimeoutOverrides::default()
        };
        let mut peer = peer_of(address, &overrides);
        if protocol == Protocol::Http1 {
            peer.options.set_http_version(1, 1);
        }
        // It pools nothing.
        let new = || TransportConnector::new(Some(ConnectorOptions::new(0)));
        let connector = self.0.get_or_init(new);
        let connected = connector.new_stream(&*peer).await;
        let stream = connected.map_err(DialError::of_pingora)?;
        let speaks_http2 = match stream.selected_alpn_proto() {
            Some(chosen) => chosen == ALPN::H2,
            // In clear, the configuration says so.
            None => protocol == Protocol::H2 && !peer.is_tls(),
        };
        match speaks_http2 {
            true => begin_http2(stream, &peer).await,
            false => Ok(Dialed::Http1(UpstreamStream::Other(stream))),
        }
    }
}

async fn begin_http2(stream: Stream, peer: &HttpPeer) -> Result<Dialed, DialError> {
    let options = &peer.options;
    let mut settings = H2HandshakeSettings::new();
    settings.max_streams = options.max_h2_streams;
    settings.stream_window_size = options.h2_stream_window_size;
    settings.connection_window_size = options.h2_connection_window_size;
    let connection = handshake(stream, settings).await;
    let connection = connection.map_err(DialError::of_pingora)?;
    Ok(Dialed::Http2(connection))
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
    pub(super) fn of_pingora(mut error: BError) -> DialError {
        error.as_up();
        DialError {
            failure: failure_of(&error),
            cause: error,
        }
    }

    /// The server has closed the connection at once.
    pub(super) fn refused() -> DialError {
        DialError {
            failure: Failure::ConnectFailed,
            cause: "the server takes no request".into(),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    type Connect<'a, F> = fn(&'a Dialer, &'a Address, Protocol, &'a Timeouts) -> F;

    fn future_size<F: Future>(_: Connect<'_, F>) -> usize {
        size_of::<F>()
    }

    #[test]
    fn connecting_takes_little_memory() {
        assert!(future_size(Dialer::connect) <= 1024);
    }
}
