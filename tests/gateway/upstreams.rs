//! Upstream servers: failing, unhealthy, remote and unusual ones.

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::ports;
use crate::support::upstream::{Recorder, Upstream};
use crate::support::wait::eventually;

#[test]
fn upstream_failures_are_distinguished() {
    let missing = ports::free();
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .set("/upstreams/gone", json!({ "servers": [format!("http://{missing}")] }))
        .set("/upstreams/echo/timeouts", json!({ "read": "300ms" }))
        .route(json!({ "name": "gone", "match": { "prefix": "/gone" }, "auth": "none", "upstream": "gone" }));
    let gateway = Gateway::start(config);
    gateway
        .get("/gone/a")
        .assert_refused(502, "UPSTREAM_UNREACHABLE");
    gateway
        .get("/public/garbage")
        .assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    gateway
        .get("/public/slow?ms=2000")
        .assert_refused(504, "UPSTREAM_TIMEOUT");
    let closed = gateway.request(&Request::post("/public/close").body("x"));
    assert_eq!(closed.status, 502, "{}", closed.text());
    assert!(
        !closed.text().contains(&upstream.address.to_string()),
        "addresses are not told"
    );
    gateway.get("/public/a").assert_ok();
    assert_eq!(
        gateway.get("/public/status-503").status,
        503,
        "the upstream's own answer passes"
    );
}

#[test]
fn only_idempotent_requests_are_retried() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let post = gateway.request(&Request::post("/public/close").body("pay"));
    assert_eq!(post.status, 502);
    assert_eq!(
        upstream.requests(),
        1,
        "a POST that may have been processed is not repeated"
    );
}

#[test]
fn dead_server_is_skipped() {
    let alive = Upstream::start();
    let missing = ports::free();
    let config = Config::new(alive.address).set(
        "/upstreams/echo",
        json!({ "servers": [format!("http://{missing}"), format!("http://{}", alive.address)], "retries": 1 }),
    );
    let gateway = Gateway::start(config);
    for _ in 0..10 {
        gateway.get("/public/a").assert_ok();
    }
}

#[test]
fn connect_failures_try_further_servers_for_any_method() {
    let alive = Upstream::start();
    let dead = [ports::free(), ports::free(), ports::free()];
    let mut servers: Vec<String> = dead.iter().map(|it| format!("http://{it}")).collect();
    servers.push(format!("http://{}", alive.address));
    let config = Config::new(alive.address).set(
        "/upstreams/echo",
        json!({ "servers": servers, "retries": 0 }),
    );
    let gateway = Gateway::start(config);
    for _ in 0..4 {
        gateway
            .request(&Request::post("/public/a").body("pay"))
            .assert_ok();
    }
    assert_eq!(alive.requests(), 4);
}

#[test]
fn failed_connection_cause_is_logged() {
    let dead = [ports::free(), ports::free()];
    let config = Config::new(dead[0]).set(
        "/upstreams/echo/servers",
        json!([format!("http://{}", dead[0]), format!("http://{}", dead[1])]),
    );
    let gateway = Gateway::start(config);
    let response = gateway.get("/public/a");
    response.assert_refused(502, "UPSTREAM_UNREACHABLE");
    let id = response.json()["error"]["request_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let line = eventually("the access line", || {
        let lines = gateway.logs();
        lines
            .lines()
            .find(|line| line.contains("\"access\"") && line.contains(&id))
            .map(str::to_owned)
    });
    assert!(line.contains("the server refused the connection"), "{line}");
    for server in dead {
        let server = server.to_string();
        eventually(
            "each attempt is logged with its server and the request",
            || {
                let named = |line: &&str| {
                    line.contains("WARN") && line.contains(&id) && line.contains(&server)
                };
                gateway.logs().lines().find(named).map(|_| ())
            },
        );
    }
}

#[test]
fn failing_health_check_removes_server_until_healthy() {
    let well = Upstream::start();
    let ill = ports::free();
    let config = Config::new(well.address).set(
        "/upstreams/echo",
        json!({
            "servers": [format!("http://{}", well.address), format!("http://{ill}")],
            "health_check": { "path": "/healthz", "interval": "100ms", "timeout": "100ms",
                              "unhealthy_after": 1, "healthy_after": 1 },
        }),
    );
    let gateway = Gateway::start(config);
    let label = format!("server=\"http://{ill}\"");
    let healthy = || gateway.metric("portcullis_upstream_healthy", &[&label]);
    eventually("it is out", || (healthy() == 0.0).then_some(()));
    let late = Upstream::at(ill);
    eventually("it is in again", || (healthy() == 1.0).then_some(()));
    eventually("it is used", || {
        gateway.get("/public/a").assert_ok();
        late.has_seen("/public/a").then_some(())
    });
}

#[test]
fn response_ends_a_row_of_failures() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let two = Http2::connect(gateway.public);
    let shown = || gateway.admin(Request::get("/admin/upstreams")).text();
    // One fewer than those that eject a server, several times.
    for _ in 0..3 {
        for _ in 0..4 {
            assert_eq!(gateway.get("/public/garbage").status, 502);
        }
        gateway.get("/public/a").assert_ok();
        for _ in 0..4 {
            assert_eq!(two.request("GET", "/public/garbage", &[]).0, 502);
        }
        assert_eq!(two.request("GET", "/public/a", &[]).0, 200);
    }
    assert!(shown().contains("\"ejected_until\":null"), "{}", shown());
    // The first one over a connection that is reused.
    for _ in 0..5 {
        assert_eq!(two.request("GET", "/public/garbage", &[]).0, 502);
    }
    assert!(!shown().contains("\"ejected_until\":null"), "{}", shown());
}

#[test]
fn invalid_responses_eject_a_server_over_a_reused_connection_too() {
    let upstream = Upstream::start();
    let gateway = Gateway::start_on_one_worker(Config::new(upstream.address));
    gateway.get("/public/a").assert_ok();
    for _ in 0..5 {
        assert_eq!(gateway.get("/public/garbage").status, 502);
    }
    let shown = gateway.admin(Request::get("/admin/upstreams")).text();
    assert!(!shown.contains("\"ejected_until\":null"), "{shown}");
}

#[test]
fn unix_socket_is_an_upstream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let upstream = Upstream::on_unix_socket(&path);
    let config = Config::new(upstream.address).set(
        "/upstreams/echo/servers",
        json!([format!("unix:{}", path.display())]),
    );
    let gateway = Gateway::start(config);
    let request = Request::get("/public/a").header("Host", "shop.example");
    assert_eq!(
        gateway.request(&request).echo().header("host").as_deref(),
        Some("shop.example")
    );
}

#[test]
fn host_header_follows_the_upstream_setting() {
    let upstream = Upstream::start();
    let own = upstream.address.to_string();
    for (host, expected) in [
        ("preserve", "shop.example"),
        ("upstream", &own),
        ("api.internal", "api.internal"),
    ] {
        let config = Config::new(upstream.address).set("/upstreams/echo/host", json!(host));
        let gateway = Gateway::start(config);
        let request = Request::get("/public/a").header("Host", "shop.example");
        assert_eq!(
            gateway.request(&request).echo().header("host").as_deref(),
            Some(expected)
        );
    }
}

#[test]
fn excess_upstream_bytes_never_reach_another_client() {
    let poisoned = Recorder::responding(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    let gateway = Gateway::start(Config::new(poisoned.address));
    for _ in 0..5 {
        let response = gateway.get("/public/a");
        assert!(!response.text().contains("poison"), "{response:?}");
    }
}
