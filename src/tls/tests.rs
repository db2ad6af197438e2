#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

fn self_signed(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let generated = rcgen::generate_simple_self_signed(names).unwrap();
    (generated.cert.pem(), generated.signing_key.serialize_pem())
}

fn chain_for(names: &[&str]) -> CertificateChain {
    let (cert, key) = self_signed(names);
    parse_chain(cert.as_bytes(), key.as_bytes()).unwrap()
}

#[test]
fn certificate_is_selected_by_sni() {
    let resolver = SniResolver::new(vec![
        chain_for(&["first.test"]),
        chain_for(&["*.example.test"]),
        chain_for(&["exact.example.test"]),
    ])
    .unwrap();
    let index = |name: Option<&str>| {
        let selected = resolver.find(name);
        if Arc::ptr_eq(selected, &resolver.default) {
            0
        } else if Arc::ptr_eq(selected, &resolver.wildcard["example.test"]) {
            1
        } else {
            2
        }
    };
    for (name, expected) in [
        (None, 0),
        (Some("first.test"), 0),
        (Some("unknown.test"), 0),
        (Some("a.example.test"), 1),
        (Some("exact.example.test"), 2),
        (Some("EXACT.example.test"), 2),
        (Some("a.b.example.test"), 0),
        (Some("example.test"), 0),
    ] {
        assert_eq!(index(name), expected, "{name:?}");
    }
}

#[test]
fn mismatched_key_and_certificate_are_rejected() {
    let (cert, key) = self_signed(&["a.test"]);
    let (_, other_key) = self_signed(&["a.test"]);
    let error = |cert: &str, key: &str| {
        parse_chain(cert.as_bytes(), key.as_bytes())
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(error(&cert, &key), None);
    assert_eq!(
        error(&cert, &other_key).unwrap(),
        TlsError::Mismatch.to_string()
    );
    assert_eq!(
        error(&key, &key).unwrap(),
        TlsError::NoCertificate.to_string()
    );
    assert_eq!(error(&cert, &cert).unwrap(), TlsError::NoKey.to_string());
    assert!(client_auth(b"nothing").is_err());
    assert!(parse_authorities(cert.as_bytes()).is_ok());
}

/// Runs a handshake in memory and returns whether it succeeds.
fn handshake(server: Arc<rustls::ServerConfig>, client: rustls::ClientConfig) -> bool {
    let name = "a.test".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = rustls::ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        client.write_tls(&mut to_server).unwrap();
        server.read_tls(&mut to_server.as_slice()).unwrap();
        if server.process_new_packets().is_err() {
            return false;
        }
        server.write_tls(&mut to_client).unwrap();
        client.read_tls(&mut to_client.as_slice()).unwrap();
        if client.process_new_packets().is_err() {
            return false;
        }
    }
    true
}

#[test]
fn client_without_required_certificate_is_rejected() {
    let (cert, key) = self_signed(&["a.test"]);
    let serve = |clients| {
        let chain = parse_chain(cert.as_bytes(), key.as_bytes()).unwrap();
        server_config(vec![chain], clients).unwrap()
    };
    let client = || {
        let builder = rustls::ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(parse_authorities(cert.as_bytes()).unwrap());
        builder.with_no_client_auth()
    };
    assert!(handshake(serve(ClientAuth::NotRequested), client()));
    let verified = client_auth(cert.as_bytes()).unwrap();
    assert!(!handshake(serve(verified), client()));
}

#[test]
fn alpn_offers_http2_and_http1() {
    let config = server_config(vec![chain_for(&["a.test"])], ClientAuth::NotRequested).unwrap();
    assert_eq!(
        config.alpn_protocols,
        [b"h2".to_vec(), b"http/1.1".to_vec()]
    );
}
