//! Certificates generated for a test, and a TLS client that trusts them.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::client::connect_socket;

/// A self-signed certificate and its key, both PEM.
pub struct Certificate {
    pub cert: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

/// Makes one for a name.
pub fn certificate(name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    Certificate {
        cert: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
        der: made.cert.der().clone(),
    }
}

/// An authority, and a certificate for a name that it has signed.
pub fn issue(name: &str) -> (Certificate, Certificate) {
    let mut wanted = rcgen::CertificateParams::new(Vec::new()).unwrap();
    wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = wanted.self_signed(&key).unwrap();
    let authority = Certificate {
        cert: cert.pem(),
        key: key.serialize_pem(),
        der: cert.der().clone(),
    };
    let issuer = rcgen::Issuer::new(wanted, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let wanted = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    let cert = wanted.signed_by(&key, &issuer).unwrap();
    let own = Certificate {
        cert: cert.pem(),
        key: key.serialize_pem(),
        der: cert.der().clone(),
    };
    (authority, own)
}

/// A client that trusts one certificate and offers these protocols.
pub fn client(trusted: &Certificate, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A client that shows a certificate of its own.
pub fn client_with_certificate(trusted: &Certificate, own: &Certificate) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.der.clone()], key);
    Arc::new(config.unwrap())
}

/// A server that shows a certificate.
pub fn server(own: &Certificate) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der.clone()], key);
    Arc::new(config.unwrap())
}

/// Makes one that ran out in 2001.
pub fn expired_certificate(name: &str) -> Certificate {
    let mut wanted = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    wanted.not_before = rcgen::date_time_ymd(2000, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = wanted.self_signed(&key).unwrap();
    Certificate {
        cert: cert.pem(),
        key: key.serialize_pem(),
        der: cert.der().clone(),
    }
}

/// Connects and finishes the handshake.
pub fn connect(
    to: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    connect_over(connect_socket(to)?, name, config)
}

/// Finishes the handshake on a connected socket.
pub fn connect_over(
    socket: TcpStream,
    name: &str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}
