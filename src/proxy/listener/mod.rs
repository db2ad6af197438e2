//! Public sockets: binding, accepting, PROXY protocol, TLS, and the life of a connection from its
//! first byte to its last request.

pub mod proxy_protocol;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::WorkerProxy;
use super::connection::Transport;
use super::connection_auth::OwnConnections;
use super::http1::client::Client;
use super::http1::serve::{self, Connection};
use crate::auth::token::CertificateHash;
use crate::pipeline::upstream_request::PeerOrigin;
use crate::settings::{Listener, ListenerId, ReloadableListener};
use crate::telemetry::metrics::ConnectionRefusal;

mod accepting_socket;
pub(super) mod drain;
mod open_connections;
mod socket;
mod tls_handshake;
mod unix_socket;

use accepting_socket::AcceptedStream;
pub use accepting_socket::AcceptingSocket;
use open_connections::{ConnectionGuard, OpenConnections};
pub use socket::{ListeningSocket, bind, bind_admin, share_with_successor};

/// TLS handshakes per second and in a burst from one address. Each costs a signature before any
/// configured limit can apply. Trusted proxies are not counted.
const HANDSHAKES_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).expect("100 is not zero");
const HANDSHAKE_BURST: NonZeroU32 = NonZeroU32::new(400).expect("400 is not zero");

/// One listener, shared by the workers.
pub struct ListenerState {
    pub id: ListenerId,
    pub settings: Listener,
    /// Workers that accept.
    accepting: AtomicUsize,
    open_connections: Arc<OpenConnections>,
    handshakes: DefaultKeyedRateLimiter<IpAddr>,
    /// Whether another process accepts instead.
    is_left: watch::Sender<bool>,
}

/// The client's end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// The socket's peer, or the address in a trusted PROXY header.
    pub ip: IpAddr,
    /// The same, as the origin of requests.
    pub origin: PeerOrigin,
    pub tls: bool,
    /// The hash of the client certificate, which `client_ca` has verified in this handshake or in
    /// the resumed one. Absent for a front proxy, whose certificate is not that of its clients.
    pub certificate: Option<CertificateHash>,
    pub listener: ListenerId,
    pub own_connections: OwnConnections,
}

impl ListenerState {
    pub fn new(id: ListenerId, settings: Listener) -> ListenerState {
        ListenerState {
            id,
            open_connections: Arc::new(OpenConnections::new(&settings.limits)),
            settings,
            accepting: AtomicUsize::new(0),
            handshakes: RateLimiter::keyed(
                Quota::per_second(HANDSHAKES_PER_SECOND).allow_burst(HANDSHAKE_BURST),
            ),
            is_left: watch::Sender::new(false),
        }
    }

    /// The number of open connections.
    pub fn connection_count(&self) -> usize {
        self.open_connections.count()
    }

    /// Removes addresses that have made no handshake lately.
    pub fn clean_up(&self) {
        self.handshakes.retain_recent();
    }

    /// Whether nothing is left to serve: no worker accepts, and no connection is open.
    pub fn is_closed(&self) -> bool {
        self.accepting.load(Ordering::Acquire) == 0 && self.connection_count() == 0
    }

    /// Leaves the connections that wait in the socket, and all later ones, to another process that
    /// has the same socket.
    pub fn leave(&self) {
        self.is_left.send_replace(true);
    }

    /// Accepts until the listener is left to another process, or until the gateway drains. In a
    /// drain, serves the kernel's queue, and closes the socket.
    pub async fn accept(
        self: Arc<Self>,
        listener: AcceptingSocket,
        proxy: Arc<WorkerProxy>,
        shutdown: watch::Receiver<bool>,
    ) {
        self.accepting.fetch_add(1, Ordering::AcqRel);
        let mut stop = shutdown.clone();
        let mut is_left = self.is_left.subscribe();
        let accepting = async {
            loop {
                match listener.accept().await {
                    Ok(stream) => self.accept_connection(stream, &proxy, &shutdown),
                    Err(error) => {
                        // Usually there are no descriptors left: a pause is better than a busy
                        // loop.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        };
        let is_left = tokio::select! {
            biased;
            _ = is_left.wait_for(|is_left| *is_left) => true,
            () = drain::wait_for_grace(drain::LAST_HANDSHAKES, &mut stop) => false,
            () = accepting => false,
        };
        if !is_left {
            // The runtime may not have polled since the last connection arrived.
            for stream in listener.take_backlog() {
                self.accept_connection(stream, &proxy, &shutdown);
            }
        }
        self.accepting.fetch_sub(1, Ordering::AcqRel);
    }

    fn accept_connection(
        self: &Arc<Self>,
        stream: AcceptedStream,
        proxy: &Arc<WorkerProxy>,
        shutdown: &watch::Receiver<bool>,
    ) {
        let Some(guard) = OpenConnections::acquire(&self.open_connections, &proxy.worker.metrics)
        else {
            proxy
                .worker
                .count_refused_connection(ConnectionRefusal::Connections);
            return;
        };
        let (listener, proxy, shutdown) = (Arc::clone(self), Arc::clone(proxy), shutdown.clone());
        tokio::spawn(listener.handle(stream, guard, proxy, shutdown));
    }

    /// Handshakes, then requests.
    async fn handle(
        self: Arc<Self>,
        stream: AcceptedStream,
        mut guard: ConnectionGuard,
        proxy: Arc<WorkerProxy>,
        stop: watch::Receiver<bool>,
    ) {
        // Boxed: a connection has room for its handshakes only while they last.
        let opening = Box::pin(self.open(stream, &mut guard, proxy, stop));
        let Some(connection) = opening.await else {
            return;
        };
        let http2 = match connection.client.transport.is_http2() {
            true => Some(connection),
            false => serve::serve(connection, &self.settings.limits).await,
        };
        if let Some(connection) = http2 {
            Box::pin(self.switch_to_http2(connection)).await;
        }
    }

    /// Performs the handshakes of a connection, unless the gateway drains.
    async fn open(
        &self,
        stream: AcceptedStream,
        guard: &mut ConnectionGuard,
        proxy: Arc<WorkerProxy>,
        mut stop: watch::Receiver<bool>,
    ) -> Option<Box<Connection>> {
        let opened = tokio::select! {
            biased;
            opened = self.open_transport(stream, guard, &proxy) => opened,
            () = drain::wait_for_grace(drain::IDLE, &mut stop) => None,
        };
        let (transport, ip) = opened?;
        let peer = Peer {
            ip,
            origin: PeerOrigin::new(ip, self.settings.tls),
            tls: self.settings.tls,
            certificate: match self.id {
                ListenerId::Public(_) => transport.client_certificate(),
                ListenerId::ForwardAuth => None,
            },
            listener: self.id,
            own_connections: OwnConnections::default(),
        };
        let write_timeout = self.settings.limits.write_timeout;
        Some(Box::new(Connection {
            client: Client::new(transport, Arc::new(peer), write_timeout),
            head: None,
            proxy,
            stop,
        }))
    }

    async fn switch_to_http2(&self, connection: Box<Connection>) {
        let Connection {
            client,
            proxy,
            stop,
            ..
        } = *connection;
        let peer = Arc::clone(&client.peer);
        let connection = Box::new(client.into_http2());
        self.serve_http2(connection, peer, proxy, stop).await;
    }

    /// Reads the PROXY header and performs the TLS handshake, where the listener has them; returns
    /// the transport and the client's address.
    async fn open_transport(
        &self,
        stream: AcceptedStream,
        guard: &mut ConnectionGuard,
        proxy: &WorkerProxy,
    ) -> Option<(Transport, IpAddr)> {
        let current = proxy.worker.snapshot();
        let reloadable = current.settings.listener(self.id)?;
        let mut ip = stream.ip();
        let mut stream = match stream {
            AcceptedStream::Tcp(stream, _) => stream,
            // File permissions decide who connects.
            AcceptedStream::Unix(stream) => return Some((Transport::Unix(stream), ip)),
        };
        let limits = &self.settings.limits;
        let is_trusted = |ip: &IpAddr| {
            reloadable
                .trusted_proxies
                .iter()
                .any(|net| net.contains(ip))
        };
        let trusted = is_trusted(&ip);
        // Otherwise a head and a body in separate writes would wait for each other's ACK.
        let _ = stream.set_nodelay(true);
        if self.settings.proxy_protocol && trusted {
            match timeout(limits.handshake_timeout, proxy_protocol::read(&mut stream)).await {
                Ok(Ok(named)) => ip = named.unwrap_or(ip),
                Ok(Err(_)) | Err(_) => {
                    proxy
                        .worker
                        .count_refused_connection(ConnectionRefusal::ProxyProtocol);
                    return None;
                }
            }
        }
        // An address from a trusted PROXY header counts as the peer.
        if !is_trusted(&ip) && !guard.count(ip) {
            proxy
                .worker
                .count_refused_connection(ConnectionRefusal::ConnectionsPerAddress);
            return None;
        }
        let transport = self
            .handshake(stream, ip, trusted, reloadable, proxy)
            .await?;
        Some((transport, ip))
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        ip: IpAddr,
        trusted: bool,
        reloadable: &ReloadableListener,
        proxy: &WorkerProxy,
    ) -> Option<Transport> {
        let Some(config) = &reloadable.tls else {
            return Some(Transport::Plain(stream));
        };
        if !trusted && self.handshakes.check_key(&ip).is_err() {
            proxy
                .worker
                .count_refused_connection(ConnectionRefusal::HandshakeRate);
            return None;
        }
        let accept = tls_handshake::accept(stream, config, reloadable, &proxy.worker);
        match timeout(self.settings.limits.handshake_timeout, accept).await {
            Ok(Ok(stream)) => stream.map(Transport::Tls),
            Ok(Err(error)) => {
                tracing::debug!(%error, client_ip = %ip, "TLS handshake failed");
                proxy
                    .worker
                    .count_refused_connection(ConnectionRefusal::Handshake);
                None
            }
            Err(_) => {
                proxy
                    .worker
                    .count_refused_connection(ConnectionRefusal::HandshakeTimeout);
                None
            }
        }
    }
}
