#![expect(clippy::unwrap_used, reason = "tests")]

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
    let chains = vec![
        chain_for(&["first.test"]),
        chain_for(&["*.example.test"]),
        chain_for(&["exact.example.test"]),
    ];
    let keys: Vec<_> = chains
        .iter()
        .map(|one| Arc::clone(&one.certified))
        .collect();
    let resolver = SniResolver::new(chains, None);
    let index = |name: Option<&str>| {
        let selected = resolver.find(name).unwrap();
        keys.iter().position(|key| Arc::ptr_eq(key, &selected))
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
        assert_eq!(index(name), Some(expected), "{name:?}");
    }
}

#[test]
fn issued_certificates_come_after_those_of_files() {
    let (of_file, wildcard) = (chain_for(&["a.test"]), chain_for(&["*.w.test"]));
    let [issued_a, issued_b] = [chain_for(&["a.test"]), chain_for(&["b.w.test"])];
    let all = [&of_file, &wildcard, &issued_a, &issued_b];
    let keys = all.map(|one| Arc::clone(&one.certified));
    let issued = Arc::new(IssuedCertificates::default());
    let index = |resolver: &SniResolver, name| {
        let selected = resolver.find(name)?;
        keys.iter().position(|key| Arc::ptr_eq(key, &selected))
    };
    let alone = SniResolver::new(Vec::new(), Some(Arc::clone(&issued)));
    let both = SniResolver::new(vec![of_file, wildcard], Some(Arc::clone(&issued)));
    assert_eq!(index(&alone, Some("a.test")), None, "none is issued yet");
    assert_eq!(index(&both, Some("b.w.test")), Some(1));
    issued.replace([("b.w.test", &issued_b), ("a.test", &issued_a)]);
    for (name, by_alone, by_both) in [
        (Some("a.test"), 2, 0),
        (Some("B.w.test"), 3, 3),
        (Some("c.w.test"), 3, 1),
        (Some("c.d.w.test"), 3, 0),
        (None, 3, 0),
    ] {
        assert_eq!(index(&alone, name), Some(by_alone), "{name:?}");
        assert_eq!(index(&both, name), Some(by_both), "{name:?}");
    }
    issued.replace([]);
    assert_eq!(index(&alone, Some("a.test")), None);
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
        server_config(vec![chain], None, clients).unwrap()
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
fn challenge_is_responded_to_with_its_protocol() {
    let config = challenge_config("a.test", "token.thumbprint").unwrap();
    assert_eq!(config.alpn_protocols, [b"acme-tls/1".to_vec()]);
    assert!(challenge_config("\u{e9}", "token.thumbprint").is_err());
}

#[test]
fn alpn_offers_http2_and_http1() {
    let config =
        server_config(vec![chain_for(&["a.test"])], None, ClientAuth::NotRequested).unwrap();
    assert_eq!(
        config.alpn_protocols,
        [b"h2".to_vec(), b"http/1.1".to_vec()]
    );
}
