//! How to connect to a server: TLS, protocol, timeouts.

use std::any::Any;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;

use super::server::strip_brackets;
use crate::settings::{Protocol, Server, ServerAddress, Timeouts, Upstream, UpstreamTls};

/// Reason why no connection to a server can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the CA file holds no usable certificate")]
    Ca,
    #[error("the client certificate or its key is not usable")]
    Client,
    #[error("there is no name to verify the server's certificate against")]
    ServerName,
    #[error("the path of the unix socket is too long or not a path")]
    SocketPath,
}

/// Everything that connections to a server need, except the address. Computed once.
pub struct ConnectionSettings {
    /// `None`: cleartext.
    pub tls: Option<TlsSettings>,
    /// Without TLS, HTTP/2 means prior knowledge (RFC 9113, section 3.3).
    pub protocol: Protocol,
    /// Those of the upstream, which a route may override.
    pub timeouts: Timeouts,
    /// Separates pooled connections to one address that have different settings, also across a
    /// reload.
    pub pool_group: u64,
    /// The server's host, with its port unless it is the default of the scheme.
    pub authority: String,
    engine_form: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// TLS to a server, whose certificate is always verified.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// The name or the address to verify the certificate against. Never empty.
    pub server_name: String,
    pub identity: TlsIdentity,
}

/// The CA and the client certificate of an upstream's connections.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    /// Trusted CA certificates, at least one; `None` for those of the system.
    pub ca: Option<Arc<[CertificateDer<'static>]>>,
    pub client: Option<Arc<ClientCertificate>>,
}

/// A client certificate and its key.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The client's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl ConnectionSettings {
    pub(super) fn new(
        upstream: &Upstream,
        server: &Server,
        identity: &TlsIdentity,
    ) -> Result<ConnectionSettings, ConnectionError> {
        let tls = if server.tls {
            Some(TlsSettings {
                server_name: name_to_verify(&upstream.tls, server)?,
                identity: identity.clone(),
            })
        } else {
            None
        };
        Ok(ConnectionSettings {
            pool_group: pool_group(upstream, tls.as_ref()),
            tls,
            protocol: upstream.protocol,
            timeouts: upstream.timeouts.clone(),
            authority: authority(server),
            engine_form: OnceLock::new(),
        })
    }

    /// Returns these settings in the form that an engine makes of them, which is made only once.
    /// `None` if a form of another type was made before.
    pub fn engine_form<T: Any + Send + Sync>(&self, make: fn(&Self) -> T) -> Option<&T> {
        let form = self.engine_form.get_or_init(|| Box::new(make(self)));
        form.downcast_ref()
    }
}

impl TlsIdentity {
    /// Reads PEM. Parses every certificate, so that no engine can fail on one later.
    pub(super) fn read(tls: &UpstreamTls) -> Result<TlsIdentity, ConnectionError> {
        let ca = match &tls.ca {
            Some(pem) => Some(certificates(pem, ConnectionError::Ca)?.into()),
            None => None,
        };
        let client = match &tls.client {
            Some((chain, key)) => {
                let chain = certificates(chain, ConnectionError::Client)?;
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|_| ConnectionError::Client)?;
                // Pingora infers the format of the key from its bytes, and panics if it cannot.
                PrivateKeyDer::try_from(key.secret_der()).map_err(|_| ConnectionError::Client)?;
                Some(Arc::new(ClientCertificate { chain, key }))
            }
            None => None,
        };
        Ok(TlsIdentity { ca, client })
    }
}

/// Returns the certificates of a PEM file, at least one.
fn certificates(
    pem: &[u8],
    error: ConnectionError,
) -> Result<Vec<CertificateDer<'static>>, ConnectionError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|_| error)?;
    // By the parser of rustls and by that of Pingora, which panics where it fails.
    let is_valid = |der: &CertificateDer<'_>| {
        ParsedCertificate::try_from(der).is_ok() && x509_parser::parse_x509_certificate(der).is_ok()
    };
    if all.is_empty() || !all.iter().all(is_valid) {
        return Err(error);
    }
    Ok(all)
}

/// Returns the name to verify the certificate against. An IP address is verified as such.
fn name_to_verify(tls: &UpstreamTls, server: &Server) -> Result<String, ConnectionError> {
    let name = match (&tls.server_name, &server.address) {
        (Some(name), _) => name.as_str(),
        (None, ServerAddress::Tcp { host, .. }) => host,
        (None, ServerAddress::Unix(_)) => "",
    };
    let name = strip_brackets(name).trim_end_matches('.');
    ServerName::try_from(name).map_err(|_| ConnectionError::ServerName)?;
    Ok(name.to_owned())
}

fn pool_group(upstream: &Upstream, tls: Option<&TlsSettings>) -> u64 {
    let mut hasher = DefaultHasher::new();
    upstream.name.hash(&mut hasher);
    upstream.tls.ca.hash(&mut hasher);
    upstream.tls.client.hash(&mut hasher);
    tls.map(|tls| &tls.server_name).hash(&mut hasher);
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

impl fmt::Debug for ConnectionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSettings")
            .field("tls", &self.tls)
            .field("protocol", &self.protocol)
            .field("timeouts", &self.timeouts)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}
