//! Connections over real sockets: addresses, names, TLS, protocols, health checks.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::UnixListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::routing::TimeoutOverrides;

#[tokio::test]
async fn resolved_name_gets_every_connection_setting() {
    let backend = TestServer::start().await;
    let orders = start(upstream(
        vec![tcp("localhost", backend.port)],
        Balance::Random,
    ))
    .await;
    let mut chosen = orders.choose(None, &[]).unwrap();
    if chosen.peer(None)._address.to_string().starts_with("[::1]") {
        // Take the next address; the backend listens on IPv4 only.
        chosen = orders.choose(None, &[]).unwrap();
    }
    assert_eq!(request(&chosen).await.unwrap(), 200);
    assert_eq!(
        chosen.host(),
        Some(format!("localhost:{}", backend.port).as_str())
    );
    let options = chosen.peer(None).options;
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
    let options = chosen.peer(Some(&overrides)).options;
    assert_eq!(options.read_timeout, seconds(9));
    assert_eq!(options.total_connection_timeout, seconds(8));
    assert_eq!(options.write_timeout, seconds(3));
}

#[tokio::test]
async fn unresolvable_name_is_out_of_rotation() {
    let backend = TestServer::start().await;
    let unresolvable = tcp("nowhere.invalid", 80);
    let orders = start(upstream(
        vec![unresolvable, backend.server()],
        Balance::RoundRobin,
    ))
    .await;
    for _ in 0..4 {
        assert_eq!(orders.choose(None, &[]).unwrap().server(), 1);
    }
    let alone = start(upstream(
        vec![tcp("nowhere.invalid", 80)],
        Balance::RoundRobin,
    ))
    .await;
    assert!(alone.choose(None, &[]).is_none());
}

#[tokio::test]
async fn health_checks_remove_and_restore_a_server() {
    let backend = TestServer::start().await;
    let orders = start(checked(vec![backend.server()])).await;
    backend.status.store(500, Ordering::SeqCst);
    wait_until_available(&orders, false).await;
    assert!(orders.choose(None, &[]).is_none());
    backend.status.store(204, Ordering::SeqCst);
    wait_until_available(&orders, true).await;
    assert!(backend.requests.load(Ordering::SeqCst) >= 4);
}

#[tokio::test]
async fn unix_socket_is_checked_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.sock");
    let orders = start(checked(vec![unix(path.clone())])).await;
    wait_until_available(&orders, false).await;
    let listener = UnixListener::bind(&path).unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(respond_once(stream, 200));
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
    let orders = start(settings).await;
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
                    respond_once(stream, 200).await;
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
    let orders = start(settings).await;
    let chosen = orders.choose(None, &[])?;
    request(&chosen).await.ok()
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
async fn connections_with_different_settings_are_never_shared() {
    use pingora::upstreams::peer::Peer;
    let server = Server {
        tls: true,
        ..tcp("127.0.0.1", 443)
    };
    let plain = upstream(vec![server], Balance::RoundRobin);
    let mut other_ca = plain.clone();
    other_ca.tls.ca = Some(issuer().pem().into_bytes());
    let mut other_name = plain.clone();
    other_name.name = "other".into();
    let mut h2 = plain.clone();
    h2.protocol = Protocol::H2;
    let mut hashes = Vec::new();
    for settings in [plain.clone(), other_ca, other_name, h2] {
        let chosen = start(settings).await.choose(None, &[]).unwrap();
        hashes.push(chosen.peer(None).reuse_hash());
    }
    let mut distinct = hashes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), hashes.len());
    let again = start(plain).await.choose(None, &[]).unwrap();
    assert_eq!(Some(&again.peer(None).reuse_hash()), hashes.first());
}
