//! TLS listeners: HTTP/2 by ALPN, certificates that change on disk, and gRPC end to end.

use std::time::Duration;

use serde_json::json;
use tokio_rustls::TlsConnector;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;
use crate::support::{grpc, tls};

fn with_certificate(config: Config, certificate: &tls::Certificate) -> Config {
    let cert = config.write_beside("site.pem", &certificate.cert);
    let key = config.write_beside("site.key", &certificate.key);
    config.set(
        "/listeners/0/tls",
        json!({ "certificates": [{ "cert": cert, "key": key }] }),
    )
}

#[test]
fn tls_listener_serves_http1_and_http2() {
    let upstream = Upstream::start();
    let certificate = tls::certificate("localhost");
    let gateway = Gateway::start(with_certificate(
        Config::new(upstream.address),
        &certificate,
    ));
    for (offered, agreed) in [
        (vec!["h2", "http/1.1"], Some(b"h2".as_slice())),
        (vec!["http/1.1"], Some(b"http/1.1")),
    ] {
        let config = tls::client(&certificate, &offered);
        let stream = tls::connect(gateway.public, "localhost", &config).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), agreed, "{offered:?}");
    }
    let config = tls::client(&certificate, &["http/1.1"]);
    let mut client =
        Client::from_stream(tls::connect(gateway.public, "localhost", &config).unwrap());
    let echo = client.request(&Request::get("/public/a")).echo();
    assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("https"));
}

#[test]
fn renewed_certificate_is_served_without_reload() {
    let upstream = Upstream::start();
    let old = tls::certificate("localhost");
    let gateway = Gateway::start(with_certificate(Config::new(upstream.address), &old));
    let connects = |trusted: &tls::Certificate| {
        tls::connect(
            gateway.public,
            "localhost",
            &tls::client(trusted, &["http/1.1"]),
        )
        .is_ok()
    };
    assert!(connects(&old));
    let new = tls::certificate("localhost");
    gateway.config.write_beside("site.key", &new.key);
    gateway.config.write_beside("site.pem", &new.cert);
    eventually("the new certificate is served", || {
        connects(&new).then_some(())
    });
    gateway.config.write_beside("site.pem", "not a certificate");
    eventually("the mistake is counted", || {
        let rejected = gateway.metric("portcullis_config_reloads_total", &["outcome=\"rejected\""]);
        (rejected > 0.0).then_some(())
    });
    assert!(connects(&new), "the last good one stays");
}

#[test]
fn stalled_handshake_times_out() {
    let upstream = Upstream::start();
    let certificate = tls::certificate("localhost");
    let config = with_certificate(Config::new(upstream.address), &certificate).set(
        "/listeners/0/limits",
        json!({ "handshake_timeout": "300ms" }),
    );
    let gateway = Gateway::start(config);
    let mut silent = Client::connect(gateway.public);
    assert!(silent.closes_within(Duration::from_secs(3)));
    let mut plain = Client::connect(gateway.public);
    plain.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(plain.closes_within(Duration::from_secs(3)));
}

#[test]
fn https_upstream_is_verified() {
    let upstream = Upstream::start();
    let inside = tls::certificate("inside.example");
    // A gateway of its own is the TLS server that the other one calls.
    let server = Gateway::start(with_certificate(Config::new(upstream.address), &inside));
    let request = |ca: Option<&str>| {
        let config = Config::new(upstream.address).set(
            "/upstreams/echo",
            json!({ "servers": [format!("https://{}", server.public)] }),
        );
        let mut settings = json!({ "server_name": "inside.example" });
        if let Some(pem) = ca {
            settings["ca"] = json!(config.write_beside("ca.pem", pem));
        }
        let gateway = Gateway::start(config.set("/upstreams/echo/tls", settings));
        gateway.get("/public/a").status
    };
    assert_eq!(request(Some(&inside.cert)), 200);
    assert_eq!(
        request(Some(&tls::certificate("inside.example").cert)),
        502,
        "signed by another"
    );
    assert_eq!(request(None), 502, "the system's roots do not know it");
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_end_to_end_with_its_trailers() {
    let server = grpc::serve().await;
    let certificate = tls::certificate("localhost");
    let config = with_certificate(Config::new(server), &certificate)
        .set("/upstreams/echo/protocol", json!("h2"));
    let gateway = tokio::task::spawn_blocking(|| Gateway::start(config))
        .await
        .unwrap();
    let connect = || async {
        let tcp = tokio::net::TcpStream::connect(gateway.public)
            .await
            .unwrap();
        let connector = TlsConnector::from(tls::client(&certificate, &["h2"]));
        connector
            .connect("localhost".try_into().unwrap(), tcp)
            .await
            .unwrap()
    };
    let reply = grpc::call(
        connect().await,
        "localhost",
        "/public/Echo",
        &[],
        b"\0\0\0\0\x02hi",
    )
    .await;
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (200, b"\0\0\0\0\x02hi".as_slice())
    );
    assert_eq!(reply.trailers.get("grpc-status").unwrap(), "0");
    assert_eq!(reply.trailers.get("x-saw-te").unwrap(), "trailers");
    let refused = grpc::call(connect().await, "localhost", "/private/Echo", &[], b"").await;
    assert_eq!(refused.outcome_field("grpc-status"), Some("16"));
    let spoofed = [("x-user-id", "mallory"), ("x_user_id", "mallory")];
    let reply = grpc::call(connect().await, "localhost", "/public/Echo", &spoofed, b"x").await;
    assert_eq!(reply.status, 200);
}

#[test]
fn mismatched_key_fails_startup() {
    let mut certificate = tls::certificate("localhost");
    certificate.key = tls::certificate("localhost").key;
    let config = with_certificate(Config::new("127.0.0.1:3000".parse().unwrap()), &certificate);
    let mut gateway = Gateway::spawn(config, &[]);
    assert_eq!(gateway.wait_exit().code(), Some(1));
    assert!(
        gateway.logs().contains("portcullis.yaml:"),
        "{}",
        gateway.logs()
    );
    assert!(!gateway.logs().contains("PRIVATE KEY"));
}

#[test]
fn gateway_responses_over_tls_carry_hsts() {
    let upstream = Upstream::start();
    let certificate = tls::certificate("localhost");
    let demands = |vary: &dyn Fn(Config) -> Config, path: &str| {
        let config = with_certificate(Config::new(upstream.address), &certificate);
        let gateway = Gateway::start(vary(config));
        let config = tls::client(&certificate, &["http/1.1"]);
        let stream = tls::connect(gateway.public, "localhost", &config).unwrap();
        let response = Client::from_stream(stream).request(&Request::get(path));
        let demand = response.header("strict-transport-security");
        demand.map(str::to_owned)
    };
    let year = Some("max-age=31536000".to_owned());
    for path in [
        "/api/v1/health",
        "/api/v1/sign-in",
        "/private/a",
        "/nowhere",
    ] {
        assert_eq!(demands(&|config| config, path), year, "{path}");
    }
    // Of its own responses an application decides.
    assert_eq!(demands(&|config| config, "/public/a"), None);
    let longer = json!({ "max_age": "730d", "include_subdomains": true });
    assert_eq!(
        demands(&|config| config.set("/hsts", longer.clone()), "/private/a").as_deref(),
        Some("max-age=63072000; includeSubDomains")
    );
    assert_eq!(
        demands(&|config| config.set("/hsts", json!(null)), "/private/a"),
        None
    );
    // In clear it would mean nothing; behind a proxy that ends TLS it does.
    let plain =
        Config::new(upstream.address).set("/listeners/0/trusted_proxies", json!(["127.0.0.0/8"]));
    let gateway = Gateway::start(plain);
    let send = |request: Request| {
        let response = gateway.request(&request);
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        response
            .header("strict-transport-security")
            .map(str::to_owned)
    };
    assert_eq!(send(Request::get("/api/v1/health")), None);
    let forwarded = Request::get("/api/v1/health").header("X-Forwarded-Proto", "https");
    assert_eq!(send(forwarded.header("X-Forwarded-For", "192.0.2.1")), year);
}
