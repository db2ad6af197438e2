//! Invalid TLS: refused, on both sides of the gateway.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ServerConnection;
use serde_json::json;

use crate::support::client::{Client, Request, connect_socket};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, run};
use crate::support::scripted_upstream::serve_connections;
use crate::support::tls;
use crate::support::upstream::Upstream;

/// A listener with a certificate, and perhaps a CA that clients have to show one of.
fn with_tls_listener(config: Config, own: &tls::Certificate, client_ca: Option<&str>) -> Config {
    let cert = config.write_beside("site.pem", &own.cert);
    let key = config.write_beside("site.key", &own.key);
    let ca = client_ca.map(|pem| config.write_beside("clients.pem", pem));
    let settings = json!({ "certificates": [{ "cert": cert, "key": key }], "client_ca": ca });
    config.set("/listeners/0/tls", settings)
}

/// Whether a request over TLS gets a response. With TLS 1.3 a client learns only by its first read
/// that its certificate was refused.
fn is_served(gateway: &Gateway, config: &Arc<rustls::ClientConfig>) -> bool {
    let Ok(stream) = tls::connect(gateway.public, "localhost", config) else {
        return false;
    };
    let mut client = Client::from_stream(stream);
    let sent = client.try_send(Request::get("/public/a").to_bytes());
    sent.and_then(|()| client.read_response_to("GET"))
        .is_ok_and(|response| response.status == 200)
}

#[test]
fn client_certificate_must_be_issued_by_the_ca() {
    let upstream = Upstream::start();
    let own = tls::certificate("localhost");
    let cached = tls::certificate("known-client");
    let config = with_tls_listener(Config::new(upstream.address), &own, Some(&cached.cert));
    let gateway = Gateway::start(config);
    let stranger = tls::certificate("known-client");
    let expired = tls::expired_certificate("known-client");
    assert!(
        !is_served(&gateway, &tls::client(&own, &["http/1.1"])),
        "none"
    );
    assert!(
        !is_served(&gateway, &tls::client_with_certificate(&own, &stranger)),
        "of another CA"
    );
    assert!(
        !is_served(&gateway, &tls::client_with_certificate(&own, &expired)),
        "expired"
    );
    assert_eq!(upstream.requests(), 0);
    assert!(is_served(
        &gateway,
        &tls::client_with_certificate(&own, &cached)
    ));
    let refused = ["reason=\"handshake\""];
    assert!(gateway.metric("portcullis_connections_refused_total", &refused) >= 3.0);
}

#[test]
fn old_tls_versions_are_refused_with_an_alert() {
    let upstream = Upstream::start();
    let own = tls::certificate("localhost");
    let gateway = Gateway::start(with_tls_listener(Config::new(upstream.address), &own, None));
    // SSL 3.0, TLS 1.0 and TLS 1.1.
    for minor in [0, 1, 2] {
        let mut hello = vec![3, minor];
        hello.extend([7; 32]);
        // No session, three old suites, no compression.
        hello.extend([0, 0, 6, 0, 0x2f, 0, 0x35, 0xc0, 0x13, 1, 0]);
        let mut record = vec![
            0x16,
            3,
            minor,
            0,
            hello.len() as u8 + 4,
            1,
            0,
            0,
            hello.len() as u8,
        ];
        record.extend(hello);
        let mut stream = connect_socket(gateway.public).unwrap();
        stream.write_all(&record).unwrap();
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        // A fatal alert: protocol_version or handshake_failure (RFC 8446, section 6).
        assert_eq!(response.first(), Some(&0x15), "3.{minor}: {response:?}");
        let alert = response.get(5..7);
        assert!(
            matches!(alert, Some([2, 40 | 70])),
            "3.{minor}: {response:?}"
        );
    }
}

#[test]
fn unusable_certificates_fail_check_and_startup() {
    let own = tls::certificate("localhost");
    let other = tls::certificate("localhost");
    let mismatched = tls::Certificate {
        key: other.key.clone(),
        ..tls::certificate("localhost")
    };
    let nowhere = "127.0.0.1:3000".parse().unwrap();
    let missing = with_tls_listener(Config::new(nowhere), &own, None).set(
        "/listeners/0/tls/client_ca",
        json!("/nonexistent/clients.pem"),
    );
    let cases = [
        (
            "a key of another certificate",
            with_tls_listener(Config::new(nowhere), &mismatched, None),
        ),
        ("a client CA that is not there", missing),
        (
            "a client CA that is no PEM",
            with_tls_listener(Config::new(nowhere), &own, Some("garbage")),
        ),
        (
            "an empty client CA",
            with_tls_listener(Config::new(nowhere), &own, Some("")),
        ),
        (
            "a client CA that is a key",
            with_tls_listener(Config::new(nowhere), &own, Some(&own.key)),
        ),
    ];
    for (what, config) in cases {
        let file = config.write();
        let (status, out, err) = run(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(status, 1, "{what}: {out}{err}");
        assert!(
            format!("{out}{err}").contains("portcullis.yaml:"),
            "{what}: {out}{err}"
        );
        let mut gateway = Gateway::spawn(config, &[]);
        assert_eq!(gateway.wait_exit().code(), Some(1), "{what}");
        assert!(!gateway.logs().contains("PRIVATE KEY"), "{what}");
    }
}

#[test]
fn invalid_upstream_certificate_is_502_without_retries() {
    let inside = tls::certificate("inside.example");
    let expired = tls::expired_certificate("inside.example");
    let elsewhere = tls::certificate("elsewhere.example");
    for (what, shown) in [
        ("expired", &expired),
        ("of another name", &elsewhere),
        ("of another CA", &inside),
    ] {
        let settings = tls::server(shown);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let server = serve_connections(move |mut stream| {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut session = ServerConnection::new(Arc::clone(&settings)).unwrap();
            while session.is_handshaking() && session.complete_io(&mut stream).is_ok() {}
        });
        let config = Config::new(server).set(
            "/upstreams/echo",
            json!({ "servers": [format!("https://{server}")], "retries": 3 }),
        );
        let trusted = match what {
            "of another CA" => tls::certificate("inside.example").cert,
            _ => shown.cert.clone(),
        };
        let ca = config.write_beside("ca.pem", trusted);
        let tls = json!({ "server_name": "inside.example", "ca": ca });
        let gateway = Gateway::start(config.set("/upstreams/echo/tls", tls));
        for _ in 0..3 {
            gateway
                .get("/public/a")
                .assert_refused(502, "UPSTREAM_UNREACHABLE");
        }
        let made = connections.load(Ordering::SeqCst);
        assert!((1..=12).contains(&made), "{what}: {made} connections");
    }
}
