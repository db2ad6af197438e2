//! Redis is away and sessions have a second home: people go on, nobody is signed out, nothing is a
//! 500, and what ended meanwhile has ended afterwards.

use std::time::Duration;

use serde_json::json;

use super::durable::{config, refresh};
use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::cuttable::Cuttable;
use crate::support::gateway::{Gateway, PASSWORD, SignedIn};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{eventually, within};

struct Scene {
    gateway: Gateway,
    redis: Redis,
    /// The line to the database.
    database: Cuttable,
    _upstream: Upstream,
}

fn scene(adjust: impl FnOnce(Config) -> Config) -> Scene {
    let (upstream, redis, server) = (Upstream::start(), Redis::start(), Postgres::server());
    let database = Cuttable::before(server.address);
    let config = config(&upstream)
        .store(&redis.url())
        .postgres(database.address, &server.database());
    Scene {
        gateway: Gateway::start(adjust(config)),
        redis,
        database,
        _upstream: upstream,
    }
}

impl Scene {
    fn cookie(&self, who: &SignedIn) -> Response {
        self.gateway
            .ask(&Request::get("/private/a").cookie(&who.cookie))
    }

    fn bearer(&self, who: &SignedIn) -> Response {
        self.gateway
            .ask(&Request::get("/private/a").bearer(&who.access_token))
    }

    fn ready(&self) -> u16 {
        Request::get("/ready").send(self.gateway.admin).status
    }

    fn await_store(&self, up: f64) {
        eventually("the store's state is noticed", || {
            (self.gateway.metric("portcullis_store_up", &[]) == up).then_some(())
        });
    }
}

#[test]
fn people_go_on_from_the_database_and_tokens_wait() {
    let mut scene = scene(|config| config);
    let ann = scene.gateway.register("ann@example.com");
    scene.redis.kill();
    scene.cookie(&ann).ok();
    let header = format!("Session {}", ann.session_token);
    let header = Request::get("/private/a").header("authorization", &header);
    scene.gateway.ask(&header).ok();
    scene.bearer(&ann).refused(503, "STORE_UNAVAILABLE");
    assert_eq!(scene.ready(), 200);
    // Signing in, refreshing, listing and ending work from the database alone.
    let phone = scene.gateway.login("ann@example.com");
    scene.cookie(&phone).ok();
    assert_eq!(refresh(&scene.gateway, &phone.refresh_token).status, 200);
    let list = Request::get("/api/v1/sessions").cookie(&ann.cookie);
    assert_eq!(scene.gateway.ask(&list).data()["count"], 2);
    let end = Request::delete(&format!("/api/v1/sessions/{}", phone.session));
    let end = end.same_origin().cookie(&ann.cookie);
    assert_eq!(scene.gateway.ask(&end).status, 204);
    scene.cookie(&phone).refused(401, "SESSION_REVOKED");
    // The row settles this token, whatever `on_outage` says.
    scene.bearer(&phone).refused(401, "SESSION_REVOKED");
    let wrong = json!({ "email": "ann@example.com", "password": "not the password" });
    let wrong = Request::post("/api/v1/auth/login").json(&wrong);
    scene
        .gateway
        .ask(&wrong)
        .refused(401, "INVALID_CREDENTIALS");
    let unknown = format!("portcullis={}", "ab".repeat(32));
    let unknown = Request::get("/private/a").cookie(&unknown);
    scene
        .gateway
        .ask(&unknown)
        .refused(401, "SESSION_NOT_FOUND");
    scene.redis.restart();
    scene.await_store(1.0);
    for _ in 0..20 {
        scene.cookie(&phone).refused(401, "SESSION_REVOKED");
    }
    within(Duration::from_secs(5), "tokens are served again", || {
        (scene.bearer(&ann).status == 200).then_some(())
    });
}

#[test]
fn a_token_signs_out_although_redis_is_away() {
    let mut scene = scene(|config| config);
    let ann = scene.gateway.register("ann@example.com");
    let bob = scene.gateway.register("bob@example.com");
    // A token that this gateway knows to be revoked is still its session's.
    let listed = json!({ "token": bob.access_token });
    let listed = Request::post("/admin/blacklist").json(&listed);
    assert_eq!(scene.gateway.admin(listed).status, 200);
    scene.bearer(&bob).refused(401, "TOKEN_REVOKED");
    scene.redis.kill();
    scene.await_store(0.0);
    for who in [&ann, &bob] {
        let out = Request::post("/api/v1/auth/logout").bearer(&who.access_token);
        let out = scene.gateway.ask(&out);
        assert_eq!(out.status, 204, "{}", out.text());
        scene.cookie(who).refused(401, "SESSION_REVOKED");
    }
    scene.redis.restart();
    scene.await_store(1.0);
    // What was on the blacklist is on it again.
    for (who, code) in [(&ann, "SESSION_REVOKED"), (&bob, "TOKEN_REVOKED")] {
        scene.cookie(who).refused(401, "SESSION_REVOKED");
        scene.bearer(who).refused(401, code);
    }
    // Nothing can be made sure without either.
    let eve = scene.gateway.register("eve@example.com");
    scene.redis.kill();
    scene.database.cut();
    let out = Request::post("/api/v1/auth/logout").bearer(&eve.access_token);
    scene.gateway.ask(&out).refused(503, "STORE_UNAVAILABLE");
}

#[test]
fn what_ended_while_redis_stood_still_has_ended_afterwards() {
    let scene = scene(|config| config.set("/store/timeout", json!("300ms")));
    let ann = scene.gateway.register("ann@example.com");
    let bob = scene.gateway.register("bob@example.com");
    scene.bearer(&ann).ok();
    scene.redis.stop();
    let out = Request::post("/api/v1/auth/logout").cookie(&ann.cookie);
    assert_eq!(scene.gateway.ask(&out.same_origin()).status, 204);
    scene.cookie(&ann).refused(401, "SESSION_REVOKED");
    scene.redis.cont();
    // Its record in Redis still says that it lives, until Redis is told.
    for _ in 0..200 {
        for answer in [scene.cookie(&ann), scene.bearer(&ann)] {
            assert!([401, 503].contains(&answer.status), "{}", answer.text());
        }
        if scene.bearer(&bob).status == 200 {
            break;
        }
    }
    scene.await_store(1.0);
    within(Duration::from_secs(5), "everybody is sure", || {
        let sure = scene.bearer(&ann).status == 401 && scene.bearer(&bob).status == 200;
        sure.then_some(())
    });
}

#[test]
fn a_user_who_is_disabled_while_redis_is_away_is_out_at_once() {
    let mut scene = scene(|config| config);
    let ann = scene.gateway.register("ann@example.com");
    scene.redis.kill();
    scene.cookie(&ann).ok();
    let user = format!("/admin/users/{}", ann.user);
    let disabled = Request::new("PATCH", &user).json(&json!({"disabled": true}));
    // Whether the profile that Redis keeps is forgotten is not known.
    scene
        .gateway
        .admin(disabled)
        .refused(503, "STORE_UNAVAILABLE");
    scene.cookie(&ann).refused(401, "SESSION_REVOKED");
}

#[test]
fn another_gateway_hears_within_a_second_of_an_end_that_only_the_database_was_told() {
    let (upstream, redis, server) = (Upstream::start(), Redis::start(), Postgres::server());
    let line = Cuttable::before(redis.address);
    let database = server.database();
    let with = |url: &str| {
        let config = config(&upstream).store(url);
        Gateway::start(config.postgres(server.address, &database))
    };
    let here = with(&format!("redis://{}", line.address));
    let there = with(&redis.url());
    let ann = here.register("ann@example.com");
    assert!(there.lets_in(&ann));
    line.cut();
    let out = Request::post("/api/v1/auth/logout").cookie(&ann.cookie);
    assert_eq!(here.ask(&out.same_origin()).status, 204);
    within(Duration::from_secs(3), "the other gateway knows", || {
        (!there.lets_in(&ann)).then_some(())
    });
}

#[test]
fn every_home_up_or_down_has_its_verdict() {
    let mut scene = scene(|config| config);
    let ann = scene.gateway.register("ann@example.com");
    scene.cookie(&ann).ok();
    scene.bearer(&ann).ok();
    // The database alone is away: the store knows.
    scene.database.cut();
    scene.cookie(&ann).ok();
    scene.bearer(&ann).ok();
    // A session that the store does not know is unknown, not gone.
    let unknown = format!("portcullis={}", "ab".repeat(32));
    let unknown = Request::get("/private/a").cookie(&unknown);
    let answer = scene.gateway.ask(&unknown);
    answer.refused(503, "STORE_UNAVAILABLE");
    assert!(answer.header("retry-after").is_some() && answer.header("set-cookie").is_none());
    // Both are away.
    scene.redis.kill();
    within(
        Duration::from_secs(3),
        "the last answer has grown old",
        || {
            let answer = scene.cookie(&ann);
            assert_ne!(answer.status, 401, "{}", answer.text());
            (answer.status == 503).then_some(())
        },
    );
    for answer in [
        scene.cookie(&ann),
        scene.bearer(&ann),
        scene.gateway.ask(&unknown),
    ] {
        answer.refused(503, "STORE_UNAVAILABLE");
        assert!(answer.header("set-cookie").is_none());
    }
    let login = json!({ "email": "ann@example.com", "password": PASSWORD });
    let login = Request::post("/api/v1/auth/login").json(&login);
    assert_eq!(scene.gateway.ask(&login).status, 503);
    // The database is back, the store is not.
    scene.database.restore();
    within(
        Duration::from_secs(15),
        "the database is used again",
        || (scene.cookie(&ann).status == 200).then_some(()),
    );
    scene.bearer(&ann).refused(503, "STORE_UNAVAILABLE");
    // Both are back, the store with nothing in it.
    scene.redis.restart();
    within(Duration::from_secs(10), "all is as it was", || {
        let both = scene.cookie(&ann).status == 200 && scene.bearer(&ann).status == 200;
        both.then_some(())
    });
}

#[test]
fn limits_hold_in_this_process_meanwhile() {
    let per_user = json!({ "limit": 3, "window": "10m", "key": "user" });
    let mut scene = scene(|config| config.limited("per-user", per_user));
    let ann = scene.gateway.register("ann@example.com");
    scene.redis.kill();
    let statuses: Vec<u16> = (0..5).map(|_| scene.cookie(&ann).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[test]
fn the_limit_on_sessions_holds_meanwhile_and_afterwards() {
    let mut scene = scene(|config| config.set("/sessions/max_per_user", json!(2)));
    let first = scene.gateway.register("ann@example.com");
    scene.redis.kill();
    let others: Vec<SignedIn> = (0..2)
        .map(|_| scene.gateway.login("ann@example.com"))
        .collect();
    scene.cookie(&first).refused(401, "SESSION_REVOKED");
    scene.redis.restart();
    scene.await_store(1.0);
    scene.cookie(&first).refused(401, "SESSION_REVOKED");
    for who in &others {
        scene.cookie(who).ok();
    }
}

/// Redis dies before step `at` and stays away, or comes back empty at once.
fn tour(at: usize, back: bool) {
    let mut scene = scene(|config| config);
    let mut step = 0;
    let mut next = |scene: &mut Scene| {
        if step == at {
            scene.redis.kill();
            if back {
                scene.redis.restart();
            }
        }
        step += 1;
    };
    let fine = |what: &str, answer: &Response, wanted: u16| {
        // A token waits while the store is away; everything else goes on.
        assert_eq!(
            answer.status,
            wanted,
            "{what}, {at}, {back}: {}",
            answer.text()
        );
    };
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    next(&mut scene);
    let answer = scene
        .gateway
        .ask(&Request::post("/api/v1/auth/register").json(&body));
    fine("register", &answer, 201);
    next(&mut scene);
    let ann = scene.gateway.login("ann@example.com");
    next(&mut scene);
    fine("call", &scene.cookie(&ann), 200);
    next(&mut scene);
    fine("refresh", &refresh(&scene.gateway, &ann.refresh_token), 200);
    next(&mut scene);
    let listed = scene
        .gateway
        .ask(&Request::get("/api/v1/sessions").cookie(&ann.cookie));
    fine("list", &listed, 200);
    assert_eq!(listed.data()["count"], 2, "{at}, {back}");
    let sessions = listed.data()["sessions"].clone();
    let other = sessions
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["current"] == false)
        .unwrap();
    let path = format!("/api/v1/sessions/{}", other["id"].as_str().unwrap());
    next(&mut scene);
    let ended = Request::delete(&path).same_origin().cookie(&ann.cookie);
    fine("terminate", &scene.gateway.ask(&ended), 204);
    next(&mut scene);
    let out = Request::post("/api/v1/auth/logout").same_origin();
    fine("logout", &scene.gateway.ask(&out.cookie(&ann.cookie)), 204);
    next(&mut scene);
    scene.cookie(&ann).refused(401, "SESSION_REVOKED");
}

#[test]
fn who_is_disabled_or_has_another_password_is_out_although_redis_cannot_be_told() {
    let mut scene = scene(|config| config);
    let ann = scene.gateway.register("ann@example.com");
    let here = scene.gateway.register("bob@example.com");
    let there = scene.gateway.login("bob@example.com");
    scene.redis.kill();
    scene.await_store(0.0);
    let disable = Request::new("PATCH", &format!("/admin/users/{}", ann.user));
    let disable = disable.json(&json!({ "disabled": true }));
    let told = scene.gateway.admin(disable);
    told.refused(503, "STORE_UNAVAILABLE");
    scene.cookie(&ann).refused(401, "SESSION_REVOKED");
    let body = json!({ "current_password": PASSWORD, "new_password": "another-long-one-7" });
    let change = Request::new("PUT", "/api/v1/profile/password").json(&body);
    let told = scene
        .gateway
        .ask(&change.same_origin().cookie(&here.cookie));
    told.refused(503, "STORE_UNAVAILABLE");
    scene.cookie(&here).ok();
    scene.cookie(&there).refused(401, "SESSION_REVOKED");
}

#[test]
fn redis_may_die_between_any_two_steps() {
    for at in 0..8 {
        tour(at, false);
    }
}

#[test]
fn redis_may_come_back_empty_between_any_two_steps() {
    for at in 0..8 {
        tour(at, true);
    }
}
