//! Addresses and connection settings.

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate, which may stand for a CA, and its key, both PEM.
fn certificate() -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["gateway".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (
        certificate.pem().into_bytes(),
        key.serialize_pem().into_bytes(),
    )
}

fn over_tls(tls: UpstreamTls) -> settings::Upstream {
    let server = Server {
        tls: true,
        ..tcp("127.0.0.1", 443)
    };
    settings::Upstream {
        tls,
        ..upstream(vec![server], Balance::RoundRobin)
    }
}

#[tokio::test]
async fn unresolvable_name_is_out_of_rotation() {
    let servers = vec![tcp("nowhere.invalid", 80), tcp("10.0.0.1", 80)];
    let orders = start(upstream(servers, Balance::RoundRobin)).await;
    for _ in 0..4 {
        assert_eq!(orders.choose(None, &[]).unwrap().server(), 1);
    }
    let servers = vec![tcp("nowhere.invalid", 80)];
    let alone = start(upstream(servers, Balance::RoundRobin)).await;
    assert!(alone.choose(None, &[]).is_none());
}

#[tokio::test]
async fn addresses_are_sockets_and_paths() {
    for (server, socket, authority) in [
        (tcp("10.0.0.1", 80), "10.0.0.1:80", "10.0.0.1"),
        (tcp("[::1]", 8080), "[::1]:8080", "[::1]:8080"),
        (
            unix("/run/orders.sock".into()),
            "/run/orders.sock",
            "localhost",
        ),
    ] {
        let orders = start(upstream(vec![server], Balance::RoundRobin)).await;
        let chosen = orders.choose(None, &[]).unwrap();
        assert_eq!(chosen.address().socket().to_string(), socket);
        assert_eq!(chosen.host(), Some(authority));
    }
    let long = unix("/a".repeat(100).into());
    let orders = start(upstream(vec![long], Balance::RoundRobin)).await;
    assert!(orders.choose(None, &[]).is_none());
}

#[tokio::test]
async fn unusable_tls_settings_keep_a_server_out_of_rotation() {
    let (pem, key) = certificate();
    let good = UpstreamTls {
        ca: Some(pem.clone()),
        client: Some((pem.clone(), key)),
        server_name: Some("orders.internal".to_owned()),
    };
    let (mut no_ca, mut no_key, mut no_name) = (good.clone(), good.clone(), good.clone());
    no_ca.ca = Some(b"not a certificate".to_vec());
    no_key.client = Some((pem, b"no key".to_vec()));
    // No request is sent rather than one to an unverified server.
    no_name.server_name = Some(String::new());
    for (tls, usable) in [
        (good, true),
        (no_ca, false),
        (no_key, false),
        (no_name, false),
    ] {
        let orders = start(over_tls(tls)).await;
        assert_eq!(orders.choose(None, &[]).is_some(), usable);
    }
}

#[tokio::test]
async fn connections_with_different_settings_are_never_shared() {
    let plain = over_tls(UpstreamTls::default());
    let mut other_ca = plain.clone();
    other_ca.tls.ca = Some(certificate().0);
    let mut other_client = plain.clone();
    other_client.tls.client = Some(certificate());
    let mut other_server_name = plain.clone();
    other_server_name.tls.server_name = Some("orders.internal".to_owned());
    let mut other_name = plain.clone();
    other_name.name = "other".into();
    let mut h2 = plain.clone();
    h2.protocol = Protocol::H2;
    let mut cleartext = plain.clone();
    cleartext.servers = vec![tcp("127.0.0.1", 443)];
    let mut groups = Vec::new();
    for settings in [
        plain.clone(),
        other_ca,
        other_client,
        other_server_name,
        other_name,
        h2,
        cleartext,
    ] {
        let chosen = start(settings).await.choose(None, &[]).unwrap();
        groups.push(chosen.address().connection().pool_group);
    }
    let mut distinct = groups.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), groups.len());
    let again = start(plain).await.choose(None, &[]).unwrap();
    let group = again.address().connection().pool_group;
    assert_eq!(Some(&group), groups.first());
}
