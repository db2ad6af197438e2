//! Redis is away and sessions are durable: users stay signed in, no response is a 500, and sessions
//! that ended meanwhile stay ended afterwards.

use std::time::Duration;

use serde_json::json;

use super::durable::{config, refresh};
use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::{Gateway, PASSWORD, SignedIn};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{eventually, within};

struct Fixture {
    gateway: Gateway,
    redis: Redis,
    /// The line to the database.
    database: FaultProxy,
    _upstream: Upstream,
}

fn fixture(adjust: impl FnOnce(Config) -> Config) -> Fixture {
    let (upstream, redis, server) = (Upstream::start(), Redis::start(), Postgres::server());
    let database = FaultProxy::before(server.address);
    let config = config(&upstream)
        .store(&redis.url())
        .postgres(database.address, &server.database());
    Fixture {
        gateway: Gateway::start(adjust(config)),
        redis,
        database,
        _upstream: upstream,
    }
}

impl Fixture {
    fn request_by_cookie(&self, user: &SignedIn) -> Response {
        self.gateway
            .request(&Request::get("/private/a").cookie(&user.cookie))
    }

    fn request_by_bearer(&self, user: &SignedIn) -> Response {
        self.gateway
            .request(&Request::get("/private/a").bearer(&user.access_token))
    }

    fn readiness(&self) -> u16 {
        Request::get("/ready").send(self.gateway.admin).status
    }

    fn await_store(&self, up: f64) {
        eventually("the store's state is noticed", || {
            (self.gateway.metric("portcullis_store_up", &[]) == up).then_some(())
        });
    }
}

#[test]
fn durable_sessions_work_and_tokens_get_503() {
    let mut fixture = fixture(|config| config);
    let ann = fixture.gateway.register("ann@example.com");
    fixture.redis.kill();
    fixture.request_by_cookie(&ann).assert_ok();
    let header = format!("Session {}", ann.session_token);
    let header = Request::get("/private/a").header("authorization", &header);
    fixture.gateway.request(&header).assert_ok();
    fixture
        .request_by_bearer(&ann)
        .assert_refused(503, "STORE_UNAVAILABLE");
    assert_eq!(fixture.readiness(), 200);
    // Signing in, refreshing, listing and ending work from the database alone.
    let phone = fixture.gateway.login("ann@example.com");
    fixture.request_by_cookie(&phone).assert_ok();
    assert_eq!(refresh(&fixture.gateway, &phone.refresh_token).status, 200);
    let list = Request::get("/api/v1/sessions").cookie(&ann.cookie);
    assert_eq!(fixture.gateway.request(&list).data()["count"], 2);
    let end = Request::delete(&format!("/api/v1/sessions/{}", phone.session));
    let end = end.same_origin().cookie(&ann.cookie);
    assert_eq!(fixture.gateway.request(&end).status, 204);
    fixture
        .request_by_cookie(&phone)
        .assert_refused(401, "SESSION_REVOKED");
    // The row settles this token, whatever `on_outage` says.
    fixture
        .request_by_bearer(&phone)
        .assert_refused(401, "SESSION_REVOKED");
    let wrong = json!({ "email": "ann@example.com", "password": "not the password" });
    let wrong = Request::post("/api/v1/auth/login").json(&wrong);
    fixture
        .gateway
        .request(&wrong)
        .assert_refused(401, "INVALID_CREDENTIALS");
    let unknown = format!("portcullis={}", "ab".repeat(32));
    let unknown = Request::get("/private/a").cookie(&unknown);
    fixture
        .gateway
        .request(&unknown)
        .assert_refused(401, "SESSION_NOT_FOUND");
    fixture.redis.restart();
    fixture.await_store(1.0);
    for _ in 0..20 {
        fixture
            .request_by_cookie(&phone)
            .assert_refused(401, "SESSION_REVOKED");
    }
    within(Duration::from_secs(5), "tokens are served again", || {
        (fixture.request_by_bearer(&ann).status == 200).then_some(())
    });
}

#[test]
fn sign_out_by_token_works_during_outage() {
    let mut fixture = fixture(|config| config);
    let ann = fixture.gateway.register("ann@example.com");
    let bob = fixture.gateway.register("bob@example.com");
    // A token that this gateway knows to be revoked is still its session's.
    let listed = json!({ "token": bob.access_token });
    let listed = Request::post("/admin/blacklist").json(&listed);
    assert_eq!(fixture.gateway.admin(listed).status, 200);
    fixture
        .request_by_bearer(&bob)
        .assert_refused(401, "TOKEN_REVOKED");
    fixture.redis.kill();
    fixture.await_store(0.0);
    for user in [&ann, &bob] {
        let out = Request::post("/api/v1/auth/logout").bearer(&user.access_token);
        let out = fixture.gateway.request(&out);
        assert_eq!(out.status, 204, "{}", out.text());
        fixture
            .request_by_cookie(user)
            .assert_refused(401, "SESSION_REVOKED");
    }
    fixture.redis.restart();
    fixture.await_store(1.0);
    // What was on the blacklist is on it again.
    for (user, code) in [(&ann, "SESSION_REVOKED"), (&bob, "TOKEN_REVOKED")] {
        fixture
            .request_by_cookie(user)
            .assert_refused(401, "SESSION_REVOKED");
        fixture.request_by_bearer(user).assert_refused(401, code);
    }
    // Nothing can be made sure without either.
    let eve = fixture.gateway.register("eve@example.com");
    fixture.redis.kill();
    fixture.database.cut();
    let out = Request::post("/api/v1/auth/logout").bearer(&eve.access_token);
    fixture
        .gateway
        .request(&out)
        .assert_refused(503, "STORE_UNAVAILABLE");
}

#[test]
fn session_ended_during_outage_stays_ended() {
    let fixture = fixture(|config| config.set("/store/timeout", json!("300ms")));
    let ann = fixture.gateway.register("ann@example.com");
    let bob = fixture.gateway.register("bob@example.com");
    fixture.request_by_bearer(&ann).assert_ok();
    fixture.redis.pause();
    let out = Request::post("/api/v1/auth/logout").cookie(&ann.cookie);
    assert_eq!(fixture.gateway.request(&out.same_origin()).status, 204);
    fixture
        .request_by_cookie(&ann)
        .assert_refused(401, "SESSION_REVOKED");
    fixture.redis.resume();
    // Its record in Redis is alive until the end is replayed.
    for _ in 0..200 {
        for response in [
            fixture.request_by_cookie(&ann),
            fixture.request_by_bearer(&ann),
        ] {
            assert!([401, 503].contains(&response.status), "{}", response.text());
        }
        if fixture.request_by_bearer(&bob).status == 200 {
            break;
        }
    }
    fixture.await_store(1.0);
    within(Duration::from_secs(5), "everybody is sure", || {
        let confirmed = fixture.request_by_bearer(&ann).status == 401
            && fixture.request_by_bearer(&bob).status == 200;
        confirmed.then_some(())
    });
}

#[test]
fn user_disabled_during_outage_is_refused_immediately() {
    let mut fixture = fixture(|config| config);
    let ann = fixture.gateway.register("ann@example.com");
    fixture.redis.kill();
    fixture.request_by_cookie(&ann).assert_ok();
    let user = format!("/admin/users/{}", ann.user);
    let disabled = Request::new("PATCH", &user).json(&json!({"disabled": true}));
    // Whether the profile that Redis keeps is forgotten is not known.
    fixture
        .gateway
        .admin(disabled)
        .assert_refused(503, "STORE_UNAVAILABLE");
    fixture
        .request_by_cookie(&ann)
        .assert_refused(401, "SESSION_REVOKED");
}

#[test]
fn database_only_end_reaches_other_gateways() {
    let (upstream, redis, server) = (Upstream::start(), Redis::start(), Postgres::server());
    let line = FaultProxy::before(redis.address);
    let database = server.database();
    let with = |url: &str| {
        let config = config(&upstream).store(url);
        Gateway::start(config.postgres(server.address, &database))
    };
    let here = with(&format!("redis://{}", line.address));
    let there = with(&redis.url());
    let ann = here.register("ann@example.com");
    assert!(there.accepts(&ann));
    line.cut();
    let out = Request::post("/api/v1/auth/logout").cookie(&ann.cookie);
    assert_eq!(here.request(&out.same_origin()).status, 204);
    within(Duration::from_secs(3), "the other gateway knows", || {
        (!there.accepts(&ann)).then_some(())
    });
}

#[test]
fn every_store_and_database_state_has_a_verdict() {
    let mut fixture = fixture(|config| config);
    let ann = fixture.gateway.register("ann@example.com");
    fixture.request_by_cookie(&ann).assert_ok();
    fixture.request_by_bearer(&ann).assert_ok();
    // The database alone is away: the store knows.
    fixture.database.cut();
    fixture.request_by_cookie(&ann).assert_ok();
    fixture.request_by_bearer(&ann).assert_ok();
    // A session that the store does not know is unknown, not gone.
    let unknown = format!("portcullis={}", "ab".repeat(32));
    let unknown = Request::get("/private/a").cookie(&unknown);
    let response = fixture.gateway.request(&unknown);
    response.assert_refused(503, "STORE_UNAVAILABLE");
    assert!(response.header("retry-after").is_some() && response.header("set-cookie").is_none());
    // Both are away.
    fixture.redis.kill();
    within(
        Duration::from_secs(3),
        "the last answer has grown old",
        || {
            let response = fixture.request_by_cookie(&ann);
            assert_ne!(response.status, 401, "{}", response.text());
            (response.status == 503).then_some(())
        },
    );
    for response in [
        fixture.request_by_cookie(&ann),
        fixture.request_by_bearer(&ann),
        fixture.gateway.request(&unknown),
    ] {
        response.assert_refused(503, "STORE_UNAVAILABLE");
        assert!(response.header("set-cookie").is_none());
    }
    let login = json!({ "email": "ann@example.com", "password": PASSWORD });
    let login = Request::post("/api/v1/auth/login").json(&login);
    assert_eq!(fixture.gateway.request(&login).status, 503);
    // The database is back, the store is not.
    fixture.database.restore();
    within(
        Duration::from_secs(15),
        "the database is used again",
        || (fixture.request_by_cookie(&ann).status == 200).then_some(()),
    );
    fixture
        .request_by_bearer(&ann)
        .assert_refused(503, "STORE_UNAVAILABLE");
    // Both are back, the store with nothing in it.
    fixture.redis.restart();
    within(Duration::from_secs(10), "all is as it was", || {
        let both = fixture.request_by_cookie(&ann).status == 200
            && fixture.request_by_bearer(&ann).status == 200;
        both.then_some(())
    });
}

#[test]
fn local_limits_hold_during_outage() {
    let per_user = json!({ "limit": 3, "window": "10m", "key": "user" });
    let mut fixture = fixture(|config| config.limit("per-user", per_user));
    let ann = fixture.gateway.register("ann@example.com");
    fixture.redis.kill();
    let statuses: Vec<u16> = (0..5)
        .map(|_| fixture.request_by_cookie(&ann).status)
        .collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[test]
fn session_limit_holds_during_and_after_outage() {
    let mut fixture = fixture(|config| config.set("/sessions/max_per_user", json!(2)));
    let first = fixture.gateway.register("ann@example.com");
    fixture.redis.kill();
    let others: Vec<SignedIn> = (0..2)
        .map(|_| fixture.gateway.login("ann@example.com"))
        .collect();
    fixture
        .request_by_cookie(&first)
        .assert_refused(401, "SESSION_REVOKED");
    fixture.redis.restart();
    fixture.await_store(1.0);
    fixture
        .request_by_cookie(&first)
        .assert_refused(401, "SESSION_REVOKED");
    for user in &others {
        fixture.request_by_cookie(user).assert_ok();
    }
}

/// Redis dies before step `at` and stays away, or comes back empty at once.
fn run_tour_with_failure(at: usize, back: bool) {
    let mut fixture = fixture(|config| config);
    let mut step = 0;
    let mut next = |fixture: &mut Fixture| {
        if step == at {
            fixture.redis.kill();
            if back {
                fixture.redis.restart();
            }
        }
        step += 1;
    };
    let fine = |what: &str, response: &Response, wanted: u16| {
        // A token waits while the store is away; everything else goes on.
        let text = response.text();
        assert_eq!(response.status, wanted, "{what}, {at}, {back}: {text}");
    };
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    next(&mut fixture);
    let response = fixture
        .gateway
        .request(&Request::post("/api/v1/auth/register").json(&body));
    fine("register", &response, 201);
    next(&mut fixture);
    let ann = fixture.gateway.login("ann@example.com");
    next(&mut fixture);
    fine("call", &fixture.request_by_cookie(&ann), 200);
    next(&mut fixture);
    let response = refresh(&fixture.gateway, &ann.refresh_token);
    fine("refresh", &response, 200);
    next(&mut fixture);
    let listed = fixture
        .gateway
        .request(&Request::get("/api/v1/sessions").cookie(&ann.cookie));
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
    next(&mut fixture);
    let ended = Request::delete(&path).same_origin().cookie(&ann.cookie);
    fine("terminate", &fixture.gateway.request(&ended), 204);
    next(&mut fixture);
    let out = Request::post("/api/v1/auth/logout").same_origin();
    let response = fixture.gateway.request(&out.cookie(&ann.cookie));
    fine("logout", &response, 204);
    next(&mut fixture);
    fixture
        .request_by_cookie(&ann)
        .assert_refused(401, "SESSION_REVOKED");
}

#[test]
fn disabled_or_changed_user_is_refused_during_outage() {
    let mut fixture = fixture(|config| config);
    let ann = fixture.gateway.register("ann@example.com");
    let here = fixture.gateway.register("bob@example.com");
    let there = fixture.gateway.login("bob@example.com");
    fixture.redis.kill();
    fixture.await_store(0.0);
    let disable = Request::new("PATCH", &format!("/admin/users/{}", ann.user));
    let disable = disable.json(&json!({ "disabled": true }));
    let reported = fixture.gateway.admin(disable);
    reported.assert_refused(503, "STORE_UNAVAILABLE");
    fixture
        .request_by_cookie(&ann)
        .assert_refused(401, "SESSION_REVOKED");
    let body = json!({ "current_password": PASSWORD, "new_password": "another-long-one-7" });
    let change = Request::new("PUT", "/api/v1/profile/password").json(&body);
    let reported = fixture
        .gateway
        .request(&change.same_origin().cookie(&here.cookie));
    reported.assert_refused(503, "STORE_UNAVAILABLE");
    fixture.request_by_cookie(&here).assert_ok();
    fixture
        .request_by_cookie(&there)
        .assert_refused(401, "SESSION_REVOKED");
}

#[test]
fn redis_failure_between_any_two_steps() {
    for at in 0..8 {
        run_tour_with_failure(at, false);
    }
}

#[test]
fn redis_data_loss_between_any_two_steps() {
    for at in 0..8 {
        run_tour_with_failure(at, true);
    }
}
