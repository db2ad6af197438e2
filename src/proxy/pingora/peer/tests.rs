//! Connections over real sockets: addresses, TLS, protocols, health checks.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::Peer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::proxy::connection_auth::OwnConnections;
use crate::proxy::probe_sender;
use crate::settings::{self, Balance, Server, UpstreamTls};
use crate::upstream::fixtures::{checked, start, tcp, unix, upstream, wait_until_available};
use crate::upstream::{ChosenServer, Upstream};

/// An HTTP/1.1 server on loopback that responds to every request with 200.
struct TestServer {
    port: u16,
    task: JoinHandle<()>,
}

impl TestServer {
    async fn start() -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(respond_once(stream));
            }
        });
        TestServer { port, task }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond_once(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn peer_of(chosen: &ChosenServer) -> Box<HttpPeer> {
    of(chosen.address(), &TimeoutOverrides::default())
}

async fn choose(settings: settings::Upstream) -> (Arc<Upstream>, Option<ChosenServer>) {
    let orders = start(settings, &probe_sender()).await;
    let chosen = orders.choose(None, &[]);
    (orders, chosen)
}

/// Requests `/` from the chosen server over a new connection, as the proxy would.
async fn request(chosen: &ChosenServer) -> pingora::Result<u16> {
    let connector = Connector::<()>::new(None);
    let (mut session, _) = connector.get_http_session(&*peer_of(chosen)).await?;
    let mut head = RequestHeader::build("GET", b"/", None)?;
    head.insert_header("host", "orders")?;
    session.write_request_header(Box::new(head)).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    Ok(session.response_header().unwrap().status.as_u16())
}

#[tokio::test]
async fn peer_has_every_connection_setting() {
    let backend = TestServer::start().await;
    let servers = vec![tcp("localhost", backend.port)];
    let (orders, chosen) = choose(upstream(servers, Balance::Random)).await;
    let mut chosen = chosen.unwrap();
    if peer_of(&chosen)._address.to_string().starts_with("[::1]") {
        // Take the next address; the backend listens on IPv4 only.
        chosen = orders.choose(None, &[]).unwrap();
    }
    assert_eq!(request(&chosen).await.unwrap(), 200);
    let authority = format!("localhost:{}", backend.port);
    assert_eq!(chosen.host(), Some(authority.as_str()));
    let options = peer_of(&chosen).options;
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(options.connection_timeout, seconds(1));
    assert_eq!(options.total_connection_timeout, seconds(1));
    assert_eq!(options.read_timeout, seconds(2));
    assert_eq!(options.write_timeout, seconds(3));
    assert_eq!(options.idle_timeout, seconds(4));
    assert_eq!(options.max_h2_streams, 100);
    let overrides = TimeoutOverrides {
        read: seconds(9),
        connect: seconds(8),
        ..TimeoutOverrides::default()
    };
    let options = of(chosen.address(), &overrides).options;
    assert_eq!(options.read_timeout, seconds(9));
    assert_eq!(options.total_connection_timeout, seconds(8));
    assert_eq!(options.write_timeout, seconds(3));
}

#[tokio::test]
async fn unix_socket_is_checked_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.sock");
    let orders = start(checked(vec![unix(path.clone())]), &probe_sender()).await;
    wait_until_available(&orders, false).await;
    let listener = UnixListener::bind(&path).unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(respond_once(stream));
        }
    });
    wait_until_available(&orders, true).await;
    let chosen = orders.choose(None, &[]).unwrap();
    assert_eq!(request(&chosen).await.unwrap(), 200);
    task.abort();
}

#[tokio::test]
async fn cleartext_http2_uses_prior_knowledge() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let successes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&successes);
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(respond_h2(stream, Arc::clone(&counter)));
        }
    });
    let mut settings = checked(vec![tcp("127.0.0.1", port)]);
    settings.protocol = Protocol::H2;
    let orders = start(settings, &probe_sender()).await;
    let checked = async {
        while successes.load(Ordering::SeqCst) < 5 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(10), checked)
            .await
            .is_ok()
    );
    assert!(orders.is_available());
    task.abort();
    drop(orders);
}

/// Responds with 200 to `GET /healthz` with an authority, and with 400 to anything else.
async fn respond_h2(stream: tokio::net::TcpStream, successes: Arc<AtomicUsize>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let uri = request.uri();
        let good = uri.path() == "/healthz" && uri.authority().is_some();
        let status = if good { 200 } else { 400 };
        let response = http::Response::builder().status(status).body(()).unwrap();
        let _ = respond.send_response(response, true);
        successes.fetch_add(usize::from(good), Ordering::SeqCst);
    }
}

/// A TLS server with a certificate of its own CA.
struct TlsServer {
    ca: Vec<u8>,
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Starts a TLS server for these names or addresses that requires a certificate of `clients`.
async fn start_tls_server(
    names: &[&str],
    clients: Option<&CertifiedIssuer<'static, KeyPair>>,
) -> TlsServer {
    pingora::tls::install_default_crypto_provider();
    let issuer = issuer();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let config = rustls::ServerConfig::builder();
    let config = match clients {
        Some(clients) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots));
            config.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => config.with_no_client_auth(),
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    respond_once(stream).await;
                }
            });
        }
    });
    TlsServer {
        ca: issuer.pem().into_bytes(),
        port,
        task,
    }
}

async fn request_over_tls(port: u16, tls: UpstreamTls) -> Option<u16> {
    let server = Server {
        tls: true,
        ..tcp("127.0.0.1", port)
    };
    let settings = settings::Upstream {
        tls,
        ..upstream(vec![server], Balance::RoundRobin)
    };
    let (_orders, chosen) = choose(settings).await;
    request(&chosen?).await.ok()
}

#[tokio::test]
async fn certificate_is_verified_against_ca_and_name() {
    let named = start_tls_server(&["orders.internal"], None).await;
    let addressed = start_tls_server(&["127.0.0.1"], None).await;
    let tls = |ca: Option<&[u8]>, name: Option<&str>| UpstreamTls {
        ca: ca.map(<[u8]>::to_vec),
        client: None,
        server_name: name.map(str::to_owned),
    };
    for (port, tls, expected) in [
        (
            named.port,
            tls(Some(&named.ca), Some("orders.internal")),
            Some(200),
        ),
        (
            named.port,
            tls(Some(&named.ca), Some("other.internal")),
            None,
        ),
        // The address is not in the certificate.
        (named.port, tls(Some(&named.ca), None), None),
        (
            named.port,
            tls(Some(&addressed.ca), Some("orders.internal")),
            None,
        ),
        (named.port, tls(None, Some("orders.internal")), None),
        // Not a name: no request is sent rather than one to an unverified server.
        (named.port, tls(Some(&named.ca), Some("")), None),
        (
            named.port,
            tls(Some(b"not a certificate"), Some("orders.internal")),
            None,
        ),
        (addressed.port, tls(Some(&addressed.ca), None), Some(200)),
    ] {
        let description = format!("{port} {:?} {}", tls.server_name, tls.ca.is_some());
        assert_eq!(request_over_tls(port, tls).await, expected, "{description}");
    }
}

#[tokio::test]
async fn client_certificate_is_presented() {
    let clients = issuer();
    let server = start_tls_server(&["127.0.0.1"], Some(&clients)).await;
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["gateway".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &clients).unwrap();
    let mut tls = UpstreamTls {
        ca: Some(server.ca.clone()),
        client: Some((
            certificate.pem().into_bytes(),
            key.serialize_pem().into_bytes(),
        )),
        server_name: None,
    };
    assert_eq!(request_over_tls(server.port, tls.clone()).await, Some(200));
    tls.client = None;
    assert_eq!(request_over_tls(server.port, tls.clone()).await, None);
    tls.client = Some((certificate.pem().into_bytes(), b"no key".to_vec()));
    assert_eq!(request_over_tls(server.port, tls).await, None);
}

#[tokio::test]
async fn pooled_connections_are_separated_by_their_settings() {
    let server = Server {
        tls: true,
        ..tcp("127.0.0.1", 443)
    };
    let plain = upstream(vec![server], Balance::RoundRobin);
    let mut other_ca = plain.clone();
    other_ca.tls.ca = Some(issuer().pem().into_bytes());
    let (connections, other_client) = (OwnConnections::default(), OwnConnections::default());
    let mut hashes = Vec::new();
    for settings in [plain.clone(), other_ca, plain] {
        let (_orders, chosen) = choose(settings).await;
        let chosen = chosen.unwrap();
        let exclusive = |connections: &OwnConnections| {
            let mut peer = peer_of(&chosen);
            isolate(&mut peer, connections.claim());
            peer.reuse_hash()
        };
        let shared = peer_of(&chosen).reuse_hash();
        hashes.push([shared, exclusive(&connections), exclusive(&other_client)]);
    }
    assert_eq!(hashes.first(), hashes.get(2));
    hashes.truncate(2);
    let distinct: HashSet<u64> = hashes.iter().flatten().copied().collect();
    assert_eq!(distinct.len(), 6);
}
