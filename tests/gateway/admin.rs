//! The admin listener: who has access, and what it returns.

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::config::{ADMIN_TOKEN, Config};
use crate::support::gateway::{Gateway, PASSWORD, run};
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, eventually};

fn gateway() -> Gateway {
    Gateway::start(Config::new(Upstream::start().address))
}

#[test]
fn admin_endpoints_need_their_own_token() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let paths = [
        "/admin/sessions",
        "/admin/users",
        "/admin/routes",
        "/admin/upstreams",
        "/admin/limits",
    ];
    for path in paths {
        for request in [
            Request::get(path),
            Request::get(path).bearer("wrong"),
            Request::get(path).bearer(&alice.access_token),
            Request::get(path).header("Authorization", ADMIN_TOKEN),
            Request::get(path).cookie(&alice.cookie),
        ] {
            let status = request.send(gateway.admin).status;
            assert!([401, 403].contains(&status), "{path}: {status}");
        }
        gateway.admin(Request::get(path)).assert_ok();
        // And none of it is on a public listener.
        let public = gateway.request(&Request::get(path).bearer(ADMIN_TOKEN));
        public.assert_refused(404, "ROUTE_NOT_FOUND");
    }
    for path in ["/metrics", "/ready", "/health"] {
        gateway.get(path).assert_refused(404, "ROUTE_NOT_FOUND");
    }
    let response = gateway.admin(Request::post("/admin/sessions"));
    response.assert_refused(405, "METHOD_NOT_ALLOWED");
    assert_eq!(response.header("allow"), Some("GET,HEAD"));
}

#[test]
fn admin_endpoints_are_closed_without_a_token() {
    let config = Config::new(Upstream::start().address).set("/admin/token", Value::Null);
    let gateway = Gateway::start(config);
    for request in [
        Request::get("/admin/sessions"),
        Request::get("/admin/sessions").bearer(""),
    ] {
        assert_eq!(request.send(gateway.admin).status, 403);
    }
    assert_eq!(Request::get("/health").send(gateway.admin).status, 200);
}

#[test]
fn rebound_host_and_foreign_origin_are_refused() {
    let gateway = gateway();
    let port = gateway.admin.port();
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
    ] {
        for path in ["/admin/sessions", "/metrics", "/health"] {
            let status = gateway
                .admin(Request::get(path).header("Host", host))
                .status;
            assert!((400..500).contains(&status), "{host} {path}: {status}");
        }
    }
    for host in [
        "localhost".to_owned(),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
    ] {
        gateway
            .admin(Request::get("/admin/sessions").header("Host", &host))
            .assert_ok();
    }
    let reload = || Request::post("/admin/reload");
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        assert_eq!(
            gateway.admin(reload().header(name, value)).status,
            403,
            "{name}: {value}"
        );
    }
}

#[test]
fn machine_and_configured_host_names_are_accepted() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set("/admin/names", json!(["Gateway.Internal"]));
    let mut gateway = Gateway::start(config);
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let by = |gateway: &Gateway, host: &str| {
        Request::get("/health")
            .header("Host", host)
            .send(gateway.admin)
    };
    for host in [machine.trim(), "gateway.internal:9090", "GATEWAY.internal."] {
        by(&gateway, host).assert_ok();
    }
    let refused = by(&gateway, "other.internal");
    refused.assert_refused(403, "FORBIDDEN");
    assert!(refused.text().contains("admin.names"), "{}", refused.text());
    gateway.reload("applied", |config| config.put("/admin/names", json!(["*"])));
    by(&gateway, "other.internal").assert_ok();
    let page = Request::get("/health").header("Origin", "https://evil.example");
    page.send(gateway.admin).assert_refused(403, "FORBIDDEN");
}

#[test]
fn http_1_0_health_check_needs_no_host() {
    let gateway = gateway();
    let mut check = Client::connect(gateway.admin);
    check.send("GET /ready HTTP/1.0\r\n\r\n");
    check.read_response().assert_ok();
    let mut check = Client::connect(gateway.admin);
    check.send("GET /ready HTTP/1.1\r\n\r\n");
    check.read_response().assert_refused(403, "FORBIDDEN");
}

#[test]
fn slow_admin_clients_are_cut_off() {
    let upstream = Upstream::start();
    let limits = json!({ "head_timeout": "1s" });
    let gateway = Gateway::start(Config::new(upstream.address).set("/listeners/0/limits", limits));
    for head in [
        "",
        "GET /health HTTP/1.1\r\nHost: localhost\r\n",
        "POST /admin/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf",
    ] {
        let mut slow = Client::connect(gateway.admin);
        slow.send(head);
        assert!(slow.closes_within(DEADLINE), "{head}");
    }
}

#[test]
fn admin_connections_are_bounded() {
    let upstream = Upstream::start();
    let limits = json!({ "head_timeout": "60s" });
    let gateway = Gateway::start(Config::new(upstream.address).set("/listeners/0/limits", limits));
    let held: Vec<Client> = (0..256).map(|_| Client::connect(gateway.admin)).collect();
    let mut further = Client::connect(gateway.admin);
    assert!(further.closes_within(DEADLINE));
    drop(held);
    let reason = ["reason=\"admin_connections\""];
    eventually("it responds again, and has counted", || {
        let response = Request::get("/health").try_send(gateway.admin);
        response.ok().filter(|response| response.status == 200)
    });
    assert!(gateway.metric("portcullis_connections_refused_total", &reason) >= 1.0);
}

#[test]
fn health_command_exit_status_reports_readiness() {
    let gateway = gateway();
    let url = format!("http://{}/", gateway.admin);
    assert_eq!(run(&["health", "--admin", &url]).0, 0);
    let address = gateway.admin.to_string();
    for wrong in [&*address, "localhost:9090", "ftp://localhost"] {
        let (status, _, problem) = run(&["health", "--admin", wrong]);
        assert_eq!(status, 2, "{problem}");
        assert!(
            problem.contains("such as http://127.0.0.1:9090"),
            "{problem}"
        );
    }
    for scheme in ["http", "ftp"] {
        let wrong = format!("{scheme}://user:hunter2@{address}");
        let (status, _, problem) = run(&["health", "--admin", &wrong]);
        assert_eq!(status, 2, "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
    gateway.sigterm();
    eventually("it is not ready", || {
        let (status, _, problem) = run(&["health", "--admin", &url]);
        (status == 1 && problem.lines().count() == 1).then_some(())
    });
}

#[test]
fn health_and_readiness_report_each_component() {
    let gateway = gateway();
    let health = Request::get("/health").send(gateway.admin);
    let body = health.assert_ok().json();
    assert_eq!(
        (&body["status"], &body["store"]),
        (&json!("OK"), &json!("connected"))
    );
    for count in ["activeSessions", "cachedProfiles", "blacklistedTokens"] {
        assert!(body["sessionStats"].get(count).is_some(), "{count}: {body}");
    }
    let ready = Request::get("/ready").send(gateway.admin);
    let body = ready.assert_ok().json().to_string();
    for part in ["store", "database", "upstreams"] {
        assert!(body.contains(part), "{part}: {body}");
    }
}

#[test]
fn admin_lists_and_ends_sessions() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let second = gateway.login("alice@example.com");
    let list = gateway.admin(Request::get(&format!(
        "/admin/sessions?user={}",
        alice.user
    )));
    assert!(
        list.assert_ok().text().contains(&alice.session) && list.text().contains(&second.session)
    );
    assert!(!list.text().contains(&alice.session_token));
    let one = gateway.admin(Request::delete(&format!(
        "/admin/sessions/{}",
        alice.session
    )));
    assert_eq!(one.assert_ok().data(), json!({ "revoked": 1 }));
    let cookie = |caller: &str| {
        gateway
            .request(&Request::get("/private/a").cookie(caller))
            .status
    };
    assert_eq!((cookie(&alice.cookie), cookie(&second.cookie)), (401, 200));
    let all = gateway.admin(Request::delete(&format!(
        "/admin/users/{}/sessions",
        alice.user
    )));
    assert_eq!(all.assert_ok().data(), json!({ "revoked": 1 }));
    assert_eq!(cookie(&second.cookie), 401);
}

#[test]
fn admin_blacklists_one_token() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let body = json!({ "token": alice.access_token });
    let response = gateway.admin(Request::post("/admin/blacklist").json(&body));
    assert!((200..300).contains(&response.status), "{}", response.text());
    let bearer = Request::get("/private/a").bearer(&alice.access_token);
    gateway
        .request(&bearer)
        .assert_refused(401, "TOKEN_REVOKED");
    gateway
        .request(&Request::get("/private/a").cookie(&alice.cookie))
        .assert_ok();
    // It still says whose session is to end.
    let out = Request::post("/api/v1/auth/logout").bearer(&alice.access_token);
    assert_eq!(gateway.request(&out).status, 204);
    assert!(!gateway.accepts(&alice));
}

#[test]
fn admin_reads_and_resets_a_counter() {
    let upstream = Upstream::start();
    let spec = json!({ "algorithm": "sliding_window", "limit": 1, "window": "10m", "key": "ip" });
    let gateway = Gateway::start(Config::new(upstream.address).limit("per-address", spec));
    gateway.get("/public/a").assert_ok();
    gateway.get("/public/a").assert_refused(429, "RATE_LIMITED");
    let counter = "/admin/limits/per-address/127.0.0.1";
    gateway.admin(Request::get(counter)).assert_ok();
    let reset = gateway.admin(Request::delete(counter));
    assert!((200..300).contains(&reset.status), "{}", reset.text());
    gateway.get("/public/a").assert_ok();
}

#[test]
fn disabled_user_is_signed_out_and_cannot_sign_in() {
    let gateway = gateway();
    let alice = gateway.register("alice@example.com");
    let disable = Request::new("PATCH", &format!("/admin/users/{}", alice.user));
    gateway
        .admin(disable.json(&json!({ "disabled": true })))
        .assert_ok();
    assert_eq!(
        gateway
            .request(&Request::get("/private/a").cookie(&alice.cookie))
            .status,
        401
    );
    let body = json!({ "email": "alice@example.com", "password": PASSWORD });
    let login = gateway.request(&Request::post("/api/v1/auth/login").json(&body));
    login.assert_refused(401, "INVALID_CREDENTIALS");
}

#[test]
fn user_may_be_created_disabled() {
    let gateway = Gateway::start(Config::new(Upstream::start().address));
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "disabled": true });
    let created = gateway.admin(Request::post("/admin/users").json(&body));
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.data()["disabled"], true);
    assert!(gateway.try_login("ann@example.com").is_none());
    let id = created.data()["id"].as_str().unwrap().to_owned();
    let enable = Request::new("PATCH", &format!("/admin/users/{id}"));
    gateway
        .admin(enable.json(&json!({ "disabled": false })))
        .assert_ok();
    assert!(gateway.try_login("ann@example.com").is_some());
}
