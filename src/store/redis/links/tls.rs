//! TLS to Redis. The server's certificate is always verified, for the configured host.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::exchange_error::ExchangeError;
use crate::settings::{RedisNode, RedisTls};

/// Performs the TLS handshake. Files are read each time, so that renewed certificates take effect.
pub(in crate::store::redis) async fn connect_tls(
    node: &RedisNode,
    files: &RedisTls,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ExchangeError> {
    let name = ServerName::try_from(node.host.clone()).map_err(|_| {
        ExchangeError::unreachable("TLS: the host is not a valid name for a certificate")
    })?;
    let files = files.clone();
    let config = tokio::task::spawn_blocking(move || client_config(&files))
        .await
        .map_err(|_| ExchangeError::unreachable("TLS: the files could not be read"))?
        .map_err(|message| ExchangeError::unreachable(&format!("TLS: {message}")))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = handshake.await.map_err(redis::RedisError::from)?;
    Ok(stream)
}

/// Describes a TLS error, without secrets; `None`: the I/O error has another cause.
pub(in crate::store::redis) fn describe_tls_error(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(format!("TLS: {inner}"))
}

fn client_config(files: &RedisTls) -> Result<ClientConfig, String> {
    let roots = match &files.ca {
        Some(path) => load_roots(path)?,
        None => system_roots(),
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match &files.client {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let chain = load_certificates(cert)?;
            let key = PrivateKeyDer::from_pem_slice(&read_file(key)?)
                .map_err(|_| format!("{} has no private key", key.display()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| error.to_string())
        }
    }
}

fn load_roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(path)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// Loads the system's roots; certificates that cannot be parsed are skipped.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_file(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| format!("{} has no certificate", path.display()))
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}
