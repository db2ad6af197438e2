//! Settings of connections to a server: address, TLS, protocol, timeouts.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;

use super::server::strip_brackets;
use crate::settings::{Protocol, Server, ServerAddress, Upstream, UpstreamTls};

/// Streams on one HTTP/2 connection: the minimum that RFC 9113 recommends servers to allow.
const H2_STREAMS: usize = 100;

/// Bytes of one HTTP/2 response that a server may send ahead of the client. Pingora's default of
/// 8 MiB would be buffered for each client that reads slowly.
const H2_STREAM_WINDOW: u32 = 128 * 1024;
/// Bytes that a server may send ahead on one connection, over all responses.
const H2_CONNECTION_WINDOW: u32 = 8 << 20;

/// Reason why no secure connection to a server can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PeerConfigError {
    #[error("the CA file holds no usable certificate")]
    Ca,
    #[error("the client certificate or its key is not usable")]
    Client,
    #[error("there is no name to verify the server's certificate against")]
    ServerName,
    #[error("the path of the unix socket is too long or not a path")]
    SocketPath,
}

/// The CA and the client certificate of an upstream's connections.
#[derive(Clone)]
pub(super) struct TlsIdentity {
    ca: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
}

/// Everything that connections to a server need, except the address.
#[derive(Debug, Clone)]
pub(super) struct Template {
    tls: bool,
    /// Never empty with TLS: to Pingora, an empty name means "do not verify".
    server_name: String,
    client: Option<Arc<CertKey>>,
    /// Separates pooled connections with different settings, also across a reload.
    group: u64,
    options: PeerOptions,
    /// The server's host, with its port unless it is the default of the scheme.
    pub(super) authority: String,
}

impl TlsIdentity {
    /// Reads PEM. Parses every certificate, because Pingora panics on one that it cannot parse.
    pub(super) fn read(tls: &UpstreamTls) -> Result<TlsIdentity, PeerConfigError> {
        let ca = match &tls.ca {
            Some(pem) => {
                let wrap = |der| WrappedX509::new(der, parse_x509);
                let all: Vec<WrappedX509> = certificates(pem, PeerConfigError::Ca)?
                    .into_iter()
                    .map(wrap)
                    .collect();
                Some(Arc::from(all))
            }
            None => None,
        };
        let client = match &tls.client {
            Some((chain, key)) => {
                let chain = certificates(chain, PeerConfigError::Client)?;
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|_| PeerConfigError::Client)?;
                let key = key.secret_der().to_vec();
                // Pingora infers the format of the key from its bytes, and panics if it cannot.
                PrivateKeyDer::try_from(key.as_slice()).map_err(|_| PeerConfigError::Client)?;
                Some(Arc::new(CertKey::new(chain, key)))
            }
            None => None,
        };
        Ok(TlsIdentity { ca, client })
    }
}

/// Returns the DER of each certificate, of which there is at least one.
fn certificates(pem: &[u8], error: PeerConfigError) -> Result<Vec<Vec<u8>>, PeerConfigError> {
    let all: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|_| error)?;
    let is_valid = |der: &CertificateDer<'_>| ParsedCertificate::try_from(der).is_ok();
    if all.is_empty() || !all.iter().all(is_valid) {
        return Err(error);
    }
    Ok(all.into_iter().map(|der| der.to_vec()).collect())
}

impl Template {
    pub(super) fn new(
        upstream: &Upstream,
        server: &Server,
        identity: &TlsIdentity,
    ) -> Result<Template, PeerConfigError> {
        let server_name = if server.tls {
            name_to_verify(&upstream.tls, server)?
        } else {
            String::new()
        };
        let timeouts = &upstream.timeouts;
        let mut options = PeerOptions::new();
        options.connection_timeout = Some(timeouts.connect);
        options.total_connection_timeout = Some(timeouts.connect);
        options.read_timeout = Some(timeouts.read);
        options.write_timeout = Some(timeouts.write);
        options.idle_timeout = Some(timeouts.idle);
        options.max_h2_streams = H2_STREAMS;
        options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        options.h2_connection_window_size = Some(H2_CONNECTION_WINDOW);
        // Without TLS, `H2` alone means prior knowledge (RFC 9113, section 3.3).
        options.alpn = match upstream.protocol {
            Protocol::Http1 => ALPN::H1,
            Protocol::H2 => ALPN::H2,
        };
        let (mut ca, mut client) = (None, None);
        if server.tls {
            ca.clone_from(&identity.ca);
            client.clone_from(&identity.client);
        }
        options.ca = ca;
        Ok(Template {
            tls: server.tls,
            server_name,
            client,
            group: pool_group(upstream),
            options,
            authority: authority(server),
        })
    }

    /// Builds the peer for a TCP address.
    pub(super) fn to(&self, address: SocketAddr) -> HttpPeer {
        self.complete(HttpPeer::new(address, self.tls, self.server_name.clone()))
    }

    /// Builds the peer for a unix socket.
    pub(super) fn to_socket(&self, path: &Path) -> Result<HttpPeer, PeerConfigError> {
        let path = path.to_str().ok_or(PeerConfigError::SocketPath)?;
        let peer = HttpPeer::new_uds(path, self.tls, self.server_name.clone());
        Ok(self.complete(peer.map_err(|_| PeerConfigError::SocketPath)?))
    }

    fn complete(&self, mut peer: HttpPeer) -> HttpPeer {
        peer.client_cert_key.clone_from(&self.client);
        peer.group_key = self.group;
        peer.options = self.options.clone();
        peer
    }
}

/// Returns the name to verify the certificate against. An IP address is verified as such.
fn name_to_verify(tls: &UpstreamTls, server: &Server) -> Result<String, PeerConfigError> {
    let name = match (&tls.server_name, &server.address) {
        (Some(name), _) => name.as_str(),
        (None, ServerAddress::Tcp { host, .. }) => host,
        (None, ServerAddress::Unix(_)) => "",
    };
    let name = strip_brackets(name).trim_end_matches('.');
    ServerName::try_from(name).map_err(|_| PeerConfigError::ServerName)?;
    Ok(name.to_owned())
}

/// Returns the pool key of an upstream. Pingora's own omits the CA and the protocol.
fn pool_group(upstream: &Upstream) -> u64 {
    let mut hasher = DefaultHasher::new();
    upstream.name.hash(&mut hasher);
    upstream.tls.ca.hash(&mut hasher);
    upstream.tls.client.hash(&mut hasher);
    upstream.tls.server_name.hash(&mut hasher);
    matches!(upstream.protocol, Protocol::H2).hash(&mut hasher);
    hasher.finish()
}

fn authority(server: &Server) -> String {
    match &server.address {
        ServerAddress::Unix(_) => "localhost".to_owned(),
        ServerAddress::Tcp { host, port } => {
            let host = match strip_brackets(host) {
                v6 if v6.contains(':') => format!("[{v6}]"),
                name => name.to_owned(),
            };
            match (server.tls, *port) {
                (false, 80) | (true, 443) => host,
                (_, port) => format!("{host}:{port}"),
            }
        }
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("ca", &self.ca.is_some())
            .field("client", &self.client.is_some())
            .finish()
    }
}
