//! The listener of front proxies: sockets, TLS, reloads and routes that it alone serves.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use serde_json::json;

use super::bound_tokens::hash_of;
use crate::support::calls::Dialect;
use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::tls;
use crate::support::tokens::{hs256, modified_claims};
use crate::support::upgrade::{upgradable, upgrade};
use crate::support::upstream::Upstream;
use crate::support::wait::DEADLINE;

fn config(upstream: &Upstream) -> Config {
    Config::new(upstream.address).forward_auth()
}

#[test]
fn route_without_upstream_is_for_front_proxies_only() {
    let upstream = Upstream::start();
    let limit = json!({ "limit": 1, "window": "1h", "key": "ip" });
    let route = json!({ "name": "behind", "match": { "prefix": "/private/behind" }, "auth": "none",
        "limits": ["one"] });
    let config = config(&upstream).set("/limits/one", limit).route(route);
    let gateway = Gateway::start(config);
    for _ in 0..2 {
        let direct = gateway.get("/private/behind/a");
        direct.assert_refused(404, "ROUTE_NOT_FOUND");
    }
    let dialect = Dialect::ForwardAuth;
    let call = dialect.get("/private/behind/a");
    gateway.query(&call).assert_allowed(dialect);
    gateway
        .query(&call)
        .assert_denied(dialect, 429, "RATE_LIMITED");
    gateway
        .get("/private/a")
        .assert_refused(401, "UNAUTHENTICATED");
    let routes = gateway.admin(Request::get("/admin/routes")).data();
    assert!(routes["routes"][0]["upstream"].is_null(), "{routes}");
}

#[test]
fn unix_socket_is_served_and_replaced() {
    let upstream = Upstream::start();
    let mut config = config(&upstream);
    let path = config.folder().join("authz.sock");
    let bind = format!("unix:{}", path.display());
    config.put("/forward_auth", json!({ "bind": bind }));
    // One that no process listens to.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut gateway = Gateway::start(config);
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let query = || {
        let dialect = Dialect::AuthRequest;
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut client = Client::from_stream(stream);
        for _ in 0..2 {
            let call = dialect.get("/public/a");
            client.request(&call).assert_allowed(dialect);
            let call = dialect.get("/private/a");
            let response = client.request(&call);
            response.assert_denied(dialect, 401, "UNAUTHENTICATED");
        }
    };
    query();
    gateway.restart();
    query();
    gateway.sigterm();
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn upgrade_hands_the_sockets_over() {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    for unix in [false, true] {
        let mut config = config(&upstream).store(&redis.url());
        let path = config.folder().join("authz.sock");
        if unix {
            let bind = format!("unix:{}", path.display());
            config.put("/forward_auth", json!({ "bind": bind }));
        }
        let gateway = upgradable(config);
        let dialect = Dialect::ForwardAuth;
        let connect = || match unix {
            true => Client::from_stream(UnixStream::connect(&path).unwrap()),
            false => Client::connect(gateway.config.authorizer()),
        };
        connect()
            .request(&dialect.get("/public/a"))
            .assert_allowed(dialect);
        upgrade(&gateway);
        // The new process has the socket.
        let mut new = connect();
        new.request(&dialect.get("/public/a"))
            .assert_allowed(dialect);
        assert!(!unix || path.exists());
    }
}

#[test]
fn client_certificate_is_required_beside_the_address() {
    let upstream = Upstream::start();
    let (authority, own) = tls::issue("nginx.example");
    let server = tls::certificate("localhost");
    let config = config(&upstream);
    let tls = json!({
        "certificates": [{
            "cert": config.write_beside("site.pem", &server.cert),
            "key": config.write_beside("site.key", &server.key),
        }],
        "client_ca": config.write_beside("clients.pem", &authority.cert),
    });
    let mut gateway = Gateway::start(config.set("/forward_auth/tls", tls));
    let address = gateway.config.authorizer();
    let dialect = Dialect::ForwardAuth;
    let connect = |client: &Arc<rustls::ClientConfig>| {
        let stream = tls::connect(address, "localhost", client)?;
        std::io::Result::Ok(Client::from_stream(stream))
    };
    let with = tls::client_with_certificate(&server, &own);
    let mut client = connect(&with).unwrap();
    client
        .request(&dialect.get("/public/a"))
        .assert_allowed(dialect);
    // The certificate is that of the front proxy: no token is bound to it.
    let token = gateway.register("alice@example.com").access_token;
    let mut claims = modified_claims(&token, &json!({}));
    claims["cnf"] = json!({ "x5t#S256": hash_of(&own) });
    let call = dialect.get("/private/a");
    client
        .request(&call.clone().bearer(&token))
        .assert_allowed(dialect);
    let response = client.request(&call.bearer(&hs256(&claims)));
    response.assert_denied(dialect, 401, "TOKEN_INVALID");
    // Without a certificate, the handshake or the first read fails.
    let without = tls::client(&server, &["http/1.1"]);
    let refused = connect(&without).and_then(|mut client| {
        client.try_send(dialect.get("/public/a").to_bytes())?;
        client.read_response_to("GET")
    });
    assert!(refused.is_err(), "{refused:?}");
    gateway.reload("applied", |config| {
        config.put("/forward_auth/trusted_proxies", json!(["192.0.2.1"]));
    });
    let mut client = connect(&with).unwrap();
    let response = client.request(&dialect.get("/public/a"));
    response.assert_denied(dialect, 403, "FORBIDDEN");
}

#[test]
fn change_of_the_address_requires_a_restart() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(config(&upstream));
    gateway.reload("restart_required", |config| {
        let bind = crate::support::ports::free().to_string();
        config.put("/forward_auth/bind", json!(bind));
    });
    gateway.wait_for_log("a restart is required for forward_auth.bind");
}

#[test]
fn bound_tokens_are_not_accepted_by_way_of_a_front_proxy() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config(&upstream));
    let token = gateway.register("alice@example.com").access_token;
    let mut claims = modified_claims(&token, &json!({}));
    claims["cnf"] = json!({ "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" });
    let bound = hs256(&claims);
    for dialect in Dialect::ALL {
        let call = dialect.get("/private/a").bearer(&token);
        gateway.query(&call).assert_allowed(dialect);
        for _ in 0..3 {
            let call = dialect.get("/private/a").bearer(&bound);
            let response = gateway.query(&call);
            response.assert_denied(dialect, 401, "TOKEN_INVALID");
        }
    }
}

#[test]
fn drain_responds_to_open_connections() {
    let upstream = Upstream::start();
    let shutdown = json!({ "delay": "5s" });
    let mut gateway = Gateway::start(config(&upstream).set("/shutdown", shutdown));
    let dialect = Dialect::ForwardAuth;
    let mut client = Client::connect(gateway.config.authorizer());
    let call = dialect.get("/public/a");
    client.request(&call).assert_allowed(dialect);
    gateway.sigterm();
    let response = client.request(&call);
    response.assert_allowed(dialect);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}
