//! Sessions that outlive the store: a flush or a restart signs no user out, and a revocation
//! survives both. On a memory store with SQLite, on Redis with SQLite, and on Redis with
//! PostgreSQL.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

pub(crate) fn config(upstream: &Upstream) -> Config {
    Config::new(upstream.address).set("/sessions/durable", json!(true))
}

/// A gateway, and the means to make its store forget everything.
pub(crate) struct Fixture {
    pub(crate) gateway: Gateway,
    redis: Option<Redis>,
    _upstream: Upstream,
}

impl Fixture {
    pub(crate) fn memory(adjust: impl FnOnce(Config) -> Config) -> Fixture {
        let upstream = Upstream::start();
        Fixture {
            gateway: Gateway::start(adjust(config(&upstream))),
            redis: None,
            _upstream: upstream,
        }
    }

    pub(crate) fn redis(adjust: impl FnOnce(Config) -> Config) -> Fixture {
        let (upstream, redis) = (Upstream::start(), Redis::start());
        let config = adjust(config(&upstream).store(&redis.url()));
        Fixture {
            gateway: Gateway::start(config),
            redis: Some(redis),
            _upstream: upstream,
        }
    }

    fn each_store() -> [Fixture; 3] {
        let server = Postgres::server();
        let database = server.database();
        [
            Fixture::memory(|config| config),
            Fixture::redis(|config| config),
            Fixture::redis(|config| config.postgres(server.address, &database)),
        ]
    }

    pub(crate) fn lose_store_data(&mut self) {
        match &self.redis {
            Some(redis) => {
                redis.command(&["FLUSHALL"]);
                // Responds once the gateway has received the revocation.
                let missing = Request::delete("/admin/users/nobody/sessions?wait=fleet");
                let reported = self.gateway.admin(missing).data();
                assert_eq!(
                    reported["confirmed"].as_array().unwrap().len(),
                    1,
                    "{reported}"
                );
            }
            None => self.gateway.restart(),
        }
    }

    pub(crate) fn request_by_cookie(&self, user: &SignedIn) -> Response {
        self.gateway
            .request(&Request::get("/private/a").cookie(&user.cookie))
    }

    fn request_by_bearer(&self, user: &SignedIn) -> Response {
        self.gateway
            .request(&Request::get("/private/a").bearer(&user.access_token))
    }
}

pub(crate) fn refresh(gateway: &Gateway, token: &str) -> Response {
    gateway.request(&Request::post("/api/v1/auth/refresh").json(&json!({ "refresh_token": token })))
}

fn successor(response: &Response) -> String {
    response.data()["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn store_data_loss_ends_no_session() {
    for mut fixture in Fixture::each_store() {
        let ann = fixture.gateway.register("ann@example.com");
        let phone = fixture.gateway.login("ann@example.com");
        fixture.lose_store_data();
        fixture.request_by_cookie(&ann).assert_ok();
        fixture.lose_store_data();
        fixture.request_by_bearer(&ann).assert_ok();
        let header = Request::get("/private/a")
            .header("authorization", &format!("Session {}", phone.session_token));
        fixture.lose_store_data();
        fixture.gateway.request(&header).assert_ok();
        // It is in the store again, not only in the database.
        if let Some(redis) = &fixture.redis {
            assert!(redis.keys().iter().any(|key| key.contains(&phone.session)));
        }
        // What the store lost is listed all the same, and can be ended.
        let list = Request::get("/api/v1/sessions").cookie(&ann.cookie);
        fixture.lose_store_data();
        let listed = fixture.gateway.request(&list);
        assert_eq!(listed.data()["count"], 2, "{}", listed.text());
        fixture.lose_store_data();
        let end = Request::delete(&format!("/api/v1/sessions/{}", phone.session))
            .same_origin()
            .cookie(&ann.cookie);
        assert_eq!(fixture.gateway.request(&end).status, 204);
        fixture
            .request_by_cookie(&phone)
            .assert_refused(401, "SESSION_REVOKED");
        fixture.request_by_cookie(&ann).assert_ok();
    }
}

#[test]
fn open_sockets_survive_store_data_loss() {
    let mut fixture = Fixture::redis(|config| config);
    let ann = fixture.gateway.register("ann@example.com");
    let open = || {
        let headers = [
            ("cookie", ann.cookie.as_str()),
            ("sec-fetch-site", "same-origin"),
        ];
        WebSocketClient::open(fixture.gateway.public, "/private/ws", &headers)
            .ok()
            .unwrap()
    };
    let mut socket = open();
    assert_eq!(socket.echo("before"), "before");
    fixture.lose_store_data();
    // For longer than it takes to close one whose session has ended.
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        assert_eq!(socket.echo("still here"), "still here");
        std::thread::sleep(Duration::from_millis(50));
    }
    fixture.lose_store_data();
    let out = Request::post("/api/v1/auth/logout").bearer(&ann.access_token);
    assert_eq!(fixture.gateway.request(&out).status, 204);
    assert_eq!(
        socket.close_code(PROPAGATION_DEADLINE),
        Some(POLICY_VIOLATION)
    );
}

#[test]
fn reload_enables_and_disables_durable_sessions() {
    let mut fixture = Fixture::redis(|config| config.set("/sessions/durable", json!(false)));
    let before = fixture.gateway.register("ann@example.com");
    let durable = |fixture: &mut Fixture, on: bool| {
        let vary = |config: &mut Config| config.put("/sessions/durable", json!(on));
        fixture.gateway.reload("applied", vary);
    };
    durable(&mut fixture, true);
    let during = fixture.gateway.login("ann@example.com");
    for user in [&before, &during] {
        fixture.request_by_cookie(user).assert_ok();
        fixture.request_by_bearer(user).assert_ok();
    }
    // What was there before has no row.
    fixture.lose_store_data();
    fixture
        .request_by_cookie(&before)
        .assert_refused(401, "SESSION_NOT_FOUND");
    fixture.request_by_cookie(&during).assert_ok();
    fixture.request_by_bearer(&during).assert_ok();
    // Without durable sessions the store alone decides, and its data is in the cache.
    durable(&mut fixture, false);
    fixture.request_by_cookie(&during).assert_ok();
    let after = fixture.gateway.login("ann@example.com");
    fixture.request_by_cookie(&after).assert_ok();
    fixture.lose_store_data();
    for user in [&during, &after] {
        fixture
            .request_by_cookie(user)
            .assert_refused(401, "SESSION_NOT_FOUND");
    }
    // The row is still there for when it counts again.
    durable(&mut fixture, true);
    fixture.request_by_cookie(&during).assert_ok();
    fixture
        .request_by_cookie(&after)
        .assert_refused(401, "SESSION_NOT_FOUND");
    assert_eq!(refresh(&fixture.gateway, &during.refresh_token).status, 200);
}

#[test]
fn revocation_survives_store_data_loss() {
    for mut fixture in Fixture::each_store() {
        let ann = fixture.gateway.register("ann@example.com");
        let bob = fixture.gateway.register("bob@example.com");
        let out = Request::post("/api/v1/auth/logout").bearer(&ann.access_token);
        assert_eq!(fixture.gateway.request(&out).status, 204);
        let path = format!("/admin/users/{}/sessions", bob.user);
        let ended = fixture.gateway.admin(Request::delete(&path));
        assert_eq!(ended.data()["revoked"], 1);
        fixture.lose_store_data();
        // The token that signed out is on the blacklist again as well.
        for (caller, code) in [(&ann, "TOKEN_REVOKED"), (&bob, "SESSION_REVOKED")] {
            fixture
                .request_by_cookie(caller)
                .assert_refused(401, "SESSION_REVOKED");
            fixture.request_by_bearer(caller).assert_refused(401, code);
            let refreshed = refresh(&fixture.gateway, &caller.refresh_token);
            refreshed.assert_refused(401, "SESSION_REVOKED");
        }
    }
}

#[test]
fn refresh_token_survives_store_data_loss() {
    for mut fixture in Fixture::each_store() {
        let ann = fixture.gateway.register("ann@example.com");
        let first = refresh(&fixture.gateway, &ann.refresh_token);
        let second = successor(&first);
        fixture.lose_store_data();
        let responses: Vec<Response> = std::thread::scope(|scope| {
            let request = || scope.spawn(|| refresh(&fixture.gateway, &second));
            let pending: Vec<_> = (0..20).map(|_| request()).collect();
            pending.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let third: Vec<String> = responses.iter().map(successor).collect();
        assert!(third.iter().all(|token| *token == third[0]));
        assert_ne!(third[0], second);
        // The one before it, within the grace, after the store has forgotten once more.
        fixture.lose_store_data();
        assert_eq!(successor(&refresh(&fixture.gateway, &second)), third[0]);
        let fourth = refresh(&fixture.gateway, &third[0]);
        assert_eq!(fourth.status, 200, "{}", fourth.text());
    }
}

#[test]
fn refresh_reuse_is_detected_after_data_loss() {
    let server = Postgres::server();
    let mut fixture = Fixture::redis(|config| {
        config
            .postgres(server.address, &server.database())
            .set("/tokens/refresh_grace", json!("1ms"))
    });
    let ann = fixture.gateway.register("ann@example.com");
    let next = successor(&refresh(&fixture.gateway, &ann.refresh_token));
    fixture.lose_store_data();
    let again = refresh(&fixture.gateway, &ann.refresh_token);
    again.assert_refused(401, "REFRESH_TOKEN_REUSED");
    assert_eq!(refresh(&fixture.gateway, &next).status, 401);
    fixture.lose_store_data();
    fixture
        .request_by_cookie(&ann)
        .assert_refused(401, "SESSION_REVOKED");
}

#[test]
fn restored_session_has_the_changed_roles() {
    for mut fixture in Fixture::each_store() {
        let ann = fixture.gateway.register("ann@example.com");
        fixture.request_by_cookie(&ann).assert_ok();
        let change = Request::new("PATCH", &format!("/admin/users/{}", ann.user));
        let changed = fixture
            .gateway
            .admin(change.json(&json!({ "roles": ["editor"] })));
        assert_eq!(changed.status, 200, "{}", changed.text());
        fixture.lose_store_data();
        let seen = fixture.request_by_cookie(&ann).echo();
        assert_eq!(seen.header("x-user-roles").as_deref(), Some("editor"));
    }
}

#[test]
fn session_limit_holds_after_store_data_loss() {
    for mut fixture in Fixture::each_store() {
        let mut everyone = vec![fixture.gateway.register("ann@example.com")];
        for _ in 0..4 {
            everyone.push(fixture.gateway.login("ann@example.com"));
        }
        fixture.lose_store_data();
        everyone.push(fixture.gateway.login("ann@example.com"));
        fixture
            .request_by_cookie(&everyone[0])
            .assert_refused(401, "SESSION_REVOKED");
        for user in &everyone[1..] {
            fixture.request_by_cookie(user).assert_ok();
        }
    }
}

#[test]
fn flush_under_load_fails_no_request() {
    let server = Postgres::server();
    let fixture = Fixture::redis(|config| config.postgres(server.address, &server.database()));
    let people: Vec<SignedIn> = (0..4)
        .map(|n| fixture.gateway.register(&format!("u{n}@example.com")))
        .collect();
    std::thread::scope(|scope| {
        let pending: Vec<_> = people
            .iter()
            .map(|user| {
                scope.spawn(|| {
                    for _ in 0..100 {
                        fixture.request_by_cookie(user).assert_ok();
                        fixture.request_by_bearer(user).assert_ok();
                    }
                })
            })
            .collect();
        while pending.iter().any(|one| !one.is_finished()) {
            fixture.redis.as_ref().unwrap().command(&["FLUSHALL"]);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn old_store_snapshot_does_not_revive_sessions() {
    let server = Postgres::server();
    let mut fixture = Fixture::redis(|config| config.postgres(server.address, &server.database()));
    let ann = fixture.gateway.register("ann@example.com");
    let redis = fixture.redis.as_mut().unwrap();
    redis.command(&["SAVE"]);
    let out = Request::post("/api/v1/auth/logout").cookie(&ann.cookie);
    let out = out.same_origin();
    assert_eq!(fixture.gateway.request(&out).status, 204);
    let redis = fixture.redis.as_mut().unwrap();
    redis.kill();
    redis.restart();
    assert!(redis.keys().iter().any(|key| key.contains(&ann.session)));
    eventually("the store is used again", || {
        let up = fixture.gateway.metric("portcullis_store_up", &[]);
        let response = fixture.request_by_cookie(&ann);
        assert_ne!(response.status, 200, "a revoked session came back");
        (up > 0.0 && response.status == 401).then_some(())
    });
}

#[test]
fn random_cookies_do_not_flood_the_database() {
    let server = Postgres::server();
    let database = server.database();
    let fixture = Fixture::redis(|config| config.postgres(server.address, &database));
    let ann = fixture.gateway.register("ann@example.com");
    let statuses: Vec<u16> = (0..400)
        .map(|n| {
            let cookie = format!("portcullis={n:064x}");
            let response = fixture
                .gateway
                .request(&Request::get("/private/a").cookie(&cookie));
            response.status
        })
        .collect();
    assert_eq!(statuses[0], 401);
    // Beyond the burst the database is not queried, and an unknown status is not reported as gone.
    assert_eq!(statuses.last(), Some(&503), "{statuses:?}");
    fixture.request_by_cookie(&ann).assert_ok();
    let unknown = format!("portcullis={:064x}", 7);
    within(Duration::from_secs(5), "it is asked again", || {
        let response = fixture
            .gateway
            .request(&Request::get("/private/a").cookie(&unknown));
        (response.status == 401).then_some(())
    });
}

#[test]
fn row_matches_the_session_and_is_trimmed() {
    let server = Postgres::server();
    let database = server.database();
    let fixture = Fixture::redis(|config| config.postgres(server.address, &database));
    let ann = fixture.gateway.register("ann@example.com");
    let row = |columns: &str| {
        let text = format!(
            "SELECT {columns} FROM user_sessions WHERE id = '{}'",
            ann.session
        );
        server.sql(&database, &text).unwrap()
    };
    assert_eq!(
        row("user_id, is_active, ended_at, length(device_id)"),
        format!("{}|t||32", ann.user)
    );
    assert_eq!(row("created_at = last_activity"), "t");
    fixture.request_by_cookie(&ann).assert_ok();
    eventually("the use is written", || {
        (row("last_activity > created_at") == "t").then_some(())
    });
    // No secret is in the table.
    let dump = server
        .sql(&database, "SELECT * FROM user_sessions")
        .unwrap();
    for secret in [&ann.session_token, &ann.access_token, &ann.refresh_token] {
        assert!(!dump.contains(secret.as_str()));
    }
    for _ in 0..60 {
        fixture.gateway.login("ann@example.com");
    }
    eventually("the store is told of every end", || {
        let pending = "SELECT count(*) FROM user_sessions WHERE end_untold";
        (server.sql(&database, pending).unwrap() == "0").then_some(())
    });
    fixture.gateway.login("ann@example.com");
    let kept = "SELECT count(*) FROM user_sessions WHERE NOT is_active";
    let kept: u32 = server.sql(&database, kept).unwrap().parse().unwrap();
    assert!(kept <= 51, "{kept}");
}
