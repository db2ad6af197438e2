//! Sessions that outlive the store: a flush or a restart signs nobody out, and a revocation survives
//! both. On a memory store with SQLite, on Redis with SQLite, and on Redis with PostgreSQL.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{SOON, eventually, within};
use crate::support::websocket::{POLICY, Socket};

pub(crate) fn config(upstream: &Upstream) -> Config {
    Config::new(upstream.address).set("/sessions/durable", json!(true))
}

/// A gateway, and the means to make its store forget everything.
struct Scene {
    gateway: Gateway,
    redis: Option<Redis>,
    _upstream: Upstream,
}

impl Scene {
    fn memory() -> Scene {
        let upstream = Upstream::start();
        Scene {
            gateway: Gateway::start(config(&upstream)),
            redis: None,
            _upstream: upstream,
        }
    }

    fn redis(adjust: impl FnOnce(Config) -> Config) -> Scene {
        let (upstream, redis) = (Upstream::start(), Redis::start());
        let config = adjust(config(&upstream).store(&redis.url()));
        Scene {
            gateway: Gateway::start(config),
            redis: Some(redis),
            _upstream: upstream,
        }
    }

    fn all() -> [Scene; 3] {
        let server = Postgres::server();
        let database = server.database();
        [
            Scene::memory(),
            Scene::redis(|config| config),
            Scene::redis(|config| config.postgres(server.address, &database)),
        ]
    }

    fn forget(&mut self) {
        match &self.redis {
            Some(redis) => {
                redis.command(&["FLUSHALL"]);
                // Answers when the gateway has heard of it.
                let nobody = Request::delete("/admin/users/nobody/sessions?wait=fleet");
                let told = self.gateway.admin(nobody).data();
                assert_eq!(told["confirmed"].as_array().unwrap().len(), 1, "{told}");
            }
            None => self.gateway.restart(),
        }
    }

    fn cookie(&self, who: &SignedIn) -> Response {
        self.gateway
            .ask(&Request::get("/private/a").cookie(&who.cookie))
    }

    fn bearer(&self, who: &SignedIn) -> Response {
        self.gateway
            .ask(&Request::get("/private/a").bearer(&who.access_token))
    }
}

pub(crate) fn refresh(gateway: &Gateway, token: &str) -> Response {
    gateway.ask(&Request::post("/api/v1/auth/refresh").json(&json!({ "refresh_token": token })))
}

fn successor(answer: &Response) -> String {
    answer.data()["refresh_token"].as_str().unwrap().to_owned()
}

#[test]
fn a_store_that_forgets_everything_signs_nobody_out() {
    for mut scene in Scene::all() {
        let ann = scene.gateway.register("ann@example.com");
        let phone = scene.gateway.login("ann@example.com");
        scene.forget();
        scene.cookie(&ann).ok();
        scene.forget();
        scene.bearer(&ann).ok();
        let header = Request::get("/private/a")
            .header("authorization", &format!("Session {}", phone.session_token));
        scene.forget();
        scene.gateway.ask(&header).ok();
        // It is in the store again, not only in the database.
        if let Some(redis) = &scene.redis {
            assert!(redis.keys().iter().any(|key| key.contains(&phone.session)));
        }
        // What the store lost is listed all the same, and can be ended.
        let list = Request::get("/api/v1/sessions").cookie(&ann.cookie);
        scene.forget();
        let listed = scene.gateway.ask(&list);
        assert_eq!(listed.data()["count"], 2, "{}", listed.text());
        scene.forget();
        let end = Request::delete(&format!("/api/v1/sessions/{}", phone.session))
            .same_origin()
            .cookie(&ann.cookie);
        assert_eq!(scene.gateway.ask(&end).status, 204);
        scene.cookie(&phone).refused(401, "SESSION_REVOKED");
        scene.cookie(&ann).ok();
    }
}

#[test]
fn open_sockets_stay_open_when_the_store_forgets_while_their_rows_live() {
    let mut scene = Scene::redis(|config| config);
    let ann = scene.gateway.register("ann@example.com");
    let open = || {
        let headers = [
            ("cookie", ann.cookie.as_str()),
            ("sec-fetch-site", "same-origin"),
        ];
        Socket::open(scene.gateway.public, "/private/ws", &headers)
            .ok()
            .unwrap()
    };
    let mut socket = open();
    assert_eq!(socket.echo("before"), "before");
    scene.forget();
    // For longer than it takes to close one whose session has ended.
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        assert_eq!(socket.echo("still here"), "still here");
        std::thread::sleep(Duration::from_millis(50));
    }
    scene.forget();
    let out = Request::post("/api/v1/auth/logout").bearer(&ann.access_token);
    assert_eq!(scene.gateway.ask(&out).status, 204);
    assert_eq!(socket.close_code(SOON), Some(POLICY));
}

#[test]
fn a_reload_gives_sessions_a_second_home_and_takes_it_away() {
    let mut scene = Scene::redis(|config| config.set("/sessions/durable", json!(false)));
    let before = scene.gateway.register("ann@example.com");
    let durable = |scene: &mut Scene, on: bool| {
        let vary = |config: &mut Config| config.put("/sessions/durable", json!(on));
        scene.gateway.reload("applied", vary);
    };
    durable(&mut scene, true);
    let during = scene.gateway.login("ann@example.com");
    for who in [&before, &during] {
        scene.cookie(who).ok();
        scene.bearer(who).ok();
    }
    // What was there before has no row.
    scene.forget();
    scene.cookie(&before).refused(401, "SESSION_NOT_FOUND");
    scene.cookie(&during).ok();
    scene.bearer(&during).ok();
    // Without the second home the store alone says so, and it has been warmed.
    durable(&mut scene, false);
    scene.cookie(&during).ok();
    let after = scene.gateway.login("ann@example.com");
    scene.cookie(&after).ok();
    scene.forget();
    for who in [&during, &after] {
        scene.cookie(who).refused(401, "SESSION_NOT_FOUND");
    }
    // The row is still there for when it counts again.
    durable(&mut scene, true);
    scene.cookie(&during).ok();
    scene.cookie(&after).refused(401, "SESSION_NOT_FOUND");
    assert_eq!(refresh(&scene.gateway, &during.refresh_token).status, 200);
}

#[test]
fn a_revocation_survives_a_store_that_forgets() {
    for mut scene in Scene::all() {
        let ann = scene.gateway.register("ann@example.com");
        let bob = scene.gateway.register("bob@example.com");
        let out = Request::post("/api/v1/auth/logout").bearer(&ann.access_token);
        assert_eq!(scene.gateway.ask(&out).status, 204);
        let path = format!("/admin/users/{}/sessions", bob.user);
        let ended = scene.gateway.admin(Request::delete(&path));
        assert_eq!(ended.data()["revoked"], 1);
        scene.forget();
        // The token that signed out is on the blacklist again as well.
        for (who, code) in [(&ann, "TOKEN_REVOKED"), (&bob, "SESSION_REVOKED")] {
            scene.cookie(who).refused(401, "SESSION_REVOKED");
            scene.bearer(who).refused(401, code);
            let refreshed = refresh(&scene.gateway, &who.refresh_token);
            refreshed.refused(401, "SESSION_REVOKED");
        }
    }
}

#[test]
fn a_refresh_token_survives_a_store_that_forgets_and_has_one_successor() {
    for mut scene in Scene::all() {
        let ann = scene.gateway.register("ann@example.com");
        let first = refresh(&scene.gateway, &ann.refresh_token);
        let second = successor(&first);
        scene.forget();
        let answers: Vec<Response> = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| refresh(&scene.gateway, &second));
            let asking: Vec<_> = (0..20).map(|_| ask()).collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let third: Vec<String> = answers.iter().map(successor).collect();
        assert!(third.iter().all(|token| *token == third[0]));
        assert_ne!(third[0], second);
        // The one before it, within the grace, after the store has forgotten once more.
        scene.forget();
        assert_eq!(successor(&refresh(&scene.gateway, &second)), third[0]);
        let fourth = refresh(&scene.gateway, &third[0]);
        assert_eq!(fourth.status, 200, "{}", fourth.text());
    }
}

#[test]
fn reuse_is_found_out_after_the_store_has_forgotten() {
    let server = Postgres::server();
    let mut scene = Scene::redis(|config| {
        config
            .postgres(server.address, &server.database())
            .set("/tokens/refresh_grace", json!("1ms"))
    });
    let ann = scene.gateway.register("ann@example.com");
    let next = successor(&refresh(&scene.gateway, &ann.refresh_token));
    scene.forget();
    let again = refresh(&scene.gateway, &ann.refresh_token);
    again.refused(401, "REFRESH_TOKEN_REUSED");
    assert_eq!(refresh(&scene.gateway, &next).status, 401);
    scene.forget();
    scene.cookie(&ann).refused(401, "SESSION_REVOKED");
}

#[test]
fn a_change_of_roles_is_in_what_comes_back() {
    for mut scene in Scene::all() {
        let ann = scene.gateway.register("ann@example.com");
        scene.cookie(&ann).ok();
        let change = Request::new("PATCH", &format!("/admin/users/{}", ann.user));
        let changed = scene
            .gateway
            .admin(change.json(&json!({ "roles": ["editor"] })));
        assert_eq!(changed.status, 200, "{}", changed.text());
        scene.forget();
        let seen = scene.cookie(&ann).echo();
        assert_eq!(seen.header("x-user-roles").as_deref(), Some("editor"));
    }
}

#[test]
fn the_limit_on_sessions_holds_over_what_the_store_forgot() {
    for mut scene in Scene::all() {
        let mut everyone = vec![scene.gateway.register("ann@example.com")];
        for _ in 0..4 {
            everyone.push(scene.gateway.login("ann@example.com"));
        }
        scene.forget();
        everyone.push(scene.gateway.login("ann@example.com"));
        scene.cookie(&everyone[0]).refused(401, "SESSION_REVOKED");
        for who in &everyone[1..] {
            scene.cookie(who).ok();
        }
    }
}

#[test]
fn under_load_a_flush_is_not_noticed() {
    let server = Postgres::server();
    let scene = Scene::redis(|config| config.postgres(server.address, &server.database()));
    let people: Vec<SignedIn> = (0..4)
        .map(|n| scene.gateway.register(&format!("u{n}@example.com")))
        .collect();
    std::thread::scope(|scope| {
        let asking: Vec<_> = people
            .iter()
            .map(|who| {
                scope.spawn(|| {
                    for _ in 0..100 {
                        scene.cookie(who).ok();
                        scene.bearer(who).ok();
                    }
                })
            })
            .collect();
        while asking.iter().any(|one| !one.is_finished()) {
            scene.redis.as_ref().unwrap().command(&["FLUSHALL"]);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn a_store_restored_from_an_old_snapshot_gets_its_ends_back() {
    let server = Postgres::server();
    let mut scene = Scene::redis(|config| config.postgres(server.address, &server.database()));
    let ann = scene.gateway.register("ann@example.com");
    let redis = scene.redis.as_mut().unwrap();
    redis.command(&["SAVE"]);
    let out = Request::post("/api/v1/auth/logout").cookie(&ann.cookie);
    let out = out.same_origin();
    assert_eq!(scene.gateway.ask(&out).status, 204);
    let redis = scene.redis.as_mut().unwrap();
    redis.kill();
    redis.restart();
    assert!(redis.keys().iter().any(|key| key.contains(&ann.session)));
    eventually("the store is used again", || {
        let up = scene.gateway.metric("portcullis_store_up", &[]);
        let answer = scene.cookie(&ann);
        assert_ne!(answer.status, 200, "a revoked session came back");
        (up > 0.0 && answer.status == 401).then_some(())
    });
}

#[test]
fn random_cookies_cost_the_database_little_and_the_owner_nothing() {
    let server = Postgres::server();
    let database = server.database();
    let scene = Scene::redis(|config| config.postgres(server.address, &database));
    let ann = scene.gateway.register("ann@example.com");
    let statuses: Vec<u16> = (0..400)
        .map(|n| {
            let cookie = format!("portcullis={n:064x}");
            let answer = scene
                .gateway
                .ask(&Request::get("/private/a").cookie(&cookie));
            answer.status
        })
        .collect();
    assert_eq!(statuses[0], 401);
    // Beyond the burst nobody asks any more, and nobody is told what nobody knows.
    assert_eq!(statuses.last(), Some(&503), "{statuses:?}");
    scene.cookie(&ann).ok();
    let unknown = format!("portcullis={:064x}", 7);
    within(Duration::from_secs(5), "it is asked again", || {
        let answer = scene
            .gateway
            .ask(&Request::get("/private/a").cookie(&unknown));
        (answer.status == 401).then_some(())
    });
}

#[test]
fn the_row_says_what_the_session_says_and_the_clean_up_trims_it() {
    let server = Postgres::server();
    let database = server.database();
    let scene = Scene::redis(|config| config.postgres(server.address, &database));
    let ann = scene.gateway.register("ann@example.com");
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
    scene.cookie(&ann).ok();
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
        scene.gateway.login("ann@example.com");
    }
    eventually("the store is told of every end", || {
        let untold = "SELECT count(*) FROM user_sessions WHERE end_untold";
        (server.sql(&database, untold).unwrap() == "0").then_some(())
    });
    scene.gateway.login("ann@example.com");
    let kept = "SELECT count(*) FROM user_sessions WHERE NOT is_active";
    let kept: u32 = server.sql(&database, kept).unwrap().parse().unwrap();
    assert!(kept <= 51, "{kept}");
}
