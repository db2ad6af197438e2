//! Peers: how Pingora connects to a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use pingora::protocols::ALPN;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::upstreams::peer::{HttpPeer, PeerOptions, Tracer, Tracing};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;

use crate::proxy::connection_auth::{Owner, Slot};
use crate::routing::TimeoutOverrides;
use crate::settings::Protocol;
use crate::upstream::{Address, ClientCertificate, ConnectionSettings, SocketAddress};

/// Streams on one HTTP/2 connection: the minimum that RFC 9113 recommends servers to allow.
const H2_STREAMS: usize = 100;

/// Bytes of one HTTP/2 response that a server may send ahead of the client. Pingora's default of
/// 8 MiB would be buffered for each client that reads slowly.
const H2_STREAM_WINDOW: u32 = 128 * 1024;
/// Bytes that a server may send ahead on one connection, over all responses.
const H2_CONNECTION_WINDOW: u32 = 8 << 20;

/// Returns the peer for an address: with the upstream's timeouts, replaced where the route overrides
/// them.
pub(in crate::proxy) fn of(address: &Address, overrides: &TimeoutOverrides) -> Box<HttpPeer> {
    let connection = address.connection();
    let mut peer = match connection.engine_form(template) {
        Some(template) => Box::new(template.clone()),
        None => Box::new(template(connection)),
    };
    peer._address = match address.socket() {
        SocketAddress::Tcp(address) => PingoraAddr::Inet(*address),
        SocketAddress::Unix(address) => PingoraAddr::Unix(address.clone()),
    };
    if *overrides != TimeoutOverrides::default() {
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

/// The peer of a server, without its address. Each request clones it.
fn template(connection: &ConnectionSettings) -> HttpPeer {
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let tls = connection.tls.as_ref();
    // To Pingora, an empty name means "do not verify"; that of `TlsSettings` is never empty.
    let name = tls.map_or_else(String::new, |tls| tls.server_name.clone());
    let mut peer = HttpPeer::new(unspecified, tls.is_some(), name);
    peer.group_key = connection.pool_group;
    peer.options = options(connection);
    if let Some(tls) = tls {
        let identity = &tls.identity;
        peer.options.ca = identity
            .ca
            .as_deref()
            .map(|ca| ca.iter().map(wrap).collect());
        peer.client_cert_key = identity.client.as_deref().map(|it| Arc::new(cert_key(it)));
    }
    peer
}

fn options(connection: &ConnectionSettings) -> PeerOptions {
    let timeouts = &connection.timeouts;
    let mut options = PeerOptions::new();
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.idle);
    options.max_h2_streams = H2_STREAMS;
    options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
    options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
    options.alpn = match connection.protocol {
        Protocol::Http1 => ALPN::H1,
        Protocol::H2 => ALPN::H2,
    };
    options
}

/// Parses a certificate again for Pingora; `upstream` has checked that this cannot fail.
fn wrap(certificate: &CertificateDer<'_>) -> WrappedX509 {
    WrappedX509::new(certificate.to_vec(), parse_x509)
}

fn cert_key(client: &ClientCertificate) -> CertKey {
    let chain = client.chain.iter().map(|certificate| certificate.to_vec());
    CertKey::new(chain.collect(), client.key.secret_der().to_vec())
}

/// Keeps the connection to `peer` apart from those of other client connections, and from those that
/// its own made with other settings. Returns the slot of the connection, in case a new one is made.
pub(super) fn isolate(peer: &mut HttpPeer, owner: &Owner) -> Arc<Slot> {
    let slot = Arc::new(Slot::default());
    peer.group_key ^= owner.pool_key();
    peer.options.tracer = Some(Tracer(Box::new(SlotTracer(Arc::clone(&slot)))));
    slot
}

/// Empties the slot of a connection before its descriptor is closed.
#[derive(Debug)]
struct SlotTracer(Arc<Slot>);

impl Tracing for SlotTracer {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.0.clear();
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(SlotTracer(Arc::clone(&self.0)))
    }
}

#[cfg(test)]
mod tests;
