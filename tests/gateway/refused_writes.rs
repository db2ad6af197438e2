//! A store that serves reads and refuses writes affects only operations that need a write: cached
//! sessions stay valid, limits follow `on_outage.limits`, sign-ins and revocations are 503.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD, SignedIn};
use crate::support::http2::Http2;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{eventually, within};

const CODES: [&str; 4] = ["MISCONF", "OOM", "NOREPLICAS", "READONLY"];

struct Fixture {
    gateway: Gateway,
    redis: Redis,
    ann: SignedIn,
    _upstream: Upstream,
}

fn fixture(limits: &str) -> Fixture {
    let (redis, upstream) = (Redis::start(), Upstream::start());
    let limited = json!({ "name": "limited", "match": { "prefix": "/limited" }, "auth": "required",
        "upstream": "echo" });
    let per_user = json!({ "limit": 3, "window": "10m", "key": "user", "on_outage": limits });
    let config = Config::new(upstream.address)
        .route(limited)
        .set("/limits/per-user", per_user)
        .set("/routes/0/limits", json!(["per-user"]))
        .store(&redis.url());
    let gateway = Gateway::start(config);
    Fixture {
        ann: gateway.register("ann@example.com"),
        gateway,
        redis,
        _upstream: upstream,
    }
}

impl Fixture {
    fn statuses(&self, path: &str, many: usize) -> Vec<u16> {
        let by_cookie = Request::get(path).cookie(&self.ann.cookie);
        let by_token = Request::get(path).bearer(&self.ann.access_token);
        let both = [by_cookie, by_token];
        let each = both.iter().cycle().take(many);
        each.map(|request| self.gateway.request(request).status)
            .collect()
    }

    fn over_http2(&self, path: &str) -> u16 {
        let headers = [("cookie", &*self.ann.cookie)];
        let connection = Http2::connect(self.gateway.public);
        connection.request("GET", path, &headers).0
    }

    fn readiness(&self) -> (u16, Value) {
        let response = Request::get("/ready").send(self.gateway.admin);
        (response.status, response.json()["store"].clone())
    }
}

#[test]
fn existing_sessions_stay_valid_and_limits_are_local() {
    for code in CODES {
        let fixture = fixture("local");
        assert_eq!(fixture.statuses("/limited/a", 1), [200]);
        fixture.redis.refuse_writes(code);
        // Longer than it takes to find a connection broken that only refuses writes.
        for _ in 0..40 {
            assert_eq!(fixture.statuses("/private/a", 2), [200, 200], "{code}");
        }
        assert_eq!(fixture.over_http2("/private/a"), 200, "{code}");
        // One was used up in the store.
        assert_eq!(
            fixture.statuses("/limited/a", 4),
            [200, 200, 429, 429],
            "{code}"
        );
        assert_eq!(fixture.over_http2("/limited/a"), 429, "{code}");
        let unknown = format!("portcullis={}", "ab".repeat(32));
        let unknown = fixture
            .gateway
            .request(&Request::get("/limited/a").cookie(&unknown));
        unknown.assert_refused(401, "SESSION_NOT_FOUND");
        let gateway = &fixture.gateway;
        assert_eq!(gateway.metric("portcullis_store_up", &[]), 1.0, "{code}");
        let kind = ["kind=\"read_only\""];
        assert!(gateway.metric("portcullis_store_errors_total", &kind) > 0.0);
        let degraded = ["per-user", "degraded"];
        assert!(gateway.metric("portcullis_ratelimit_total", &degraded) > 0.0);
    }
}

#[test]
fn sign_ins_and_revocations_are_503_with_readiness_reason() {
    for code in CODES {
        let fixture = fixture("local");
        let gateway = &fixture.gateway;
        assert_eq!(fixture.readiness().1["write"], true);
        fixture.redis.refuse_writes(code);
        let body = |password: &str| json!({ "email": "ann@example.com", "password": password });
        let login = |password: &str| Request::post("/api/v1/auth/login").json(&body(password));
        let refresh = json!({ "refresh_token": fixture.ann.refresh_token });
        let current = Request::delete("/api/v1/sessions/current").same_origin();
        let logout = Request::post("/api/v1/auth/logout");
        for request in [
            login(PASSWORD),
            // Whether a password is right is not revealed either.
            login("not the password"),
            Request::post("/api/v1/auth/refresh").json(&refresh),
            logout.clone().cookie(&fixture.ann.cookie).same_origin(),
            logout.bearer(&fixture.ann.access_token),
            current.cookie(&fixture.ann.cookie),
        ] {
            for _ in 0..2 {
                gateway
                    .request(&request)
                    .assert_refused(503, "STORE_UNAVAILABLE");
            }
        }
        let list = Request::post("/admin/blacklist").json(&json!({ "jti": "x" }));
        gateway.admin(list).assert_refused(503, "STORE_UNAVAILABLE");
        let profile = Request::get("/api/v1/profile").cookie(&fixture.ann.cookie);
        gateway.request(&profile).assert_ok();
        assert_eq!(fixture.statuses("/private/a", 2), [200, 200], "{code}");
        let (status, store) = fixture.readiness();
        assert_eq!(status, 200, "{code}: {store}");
        assert_eq!(
            (&store["up"], &store["read"], &store["write"]),
            (&json!(true), &json!(true), &json!(false)),
            "{code}: {store}"
        );
        let problem = store["problem"].as_str().unwrap();
        assert!(problem.contains("read-only"), "{problem}");
        fixture.redis.accept_writes();
        let writes = || (fixture.readiness().1["write"] == true).then_some(());
        eventually("the store takes writes", writes);
        // After `READONLY`, each worker connects again in its own time, and is without the store meanwhile.
        eventually("a user can sign in", || {
            gateway.try_login("ann@example.com")
        });
        eventually("the session can be ended", || {
            let out = Request::post("/api/v1/auth/logout").bearer(&fixture.ann.access_token);
            (gateway.request(&out).status == 204).then_some(())
        });
        let there = Request::get("/private/a").cookie(&fixture.ann.cookie);
        let response = eventually("the session is looked up", || {
            let response = gateway.request(&there);
            (response.status != 503).then_some(response)
        });
        response.assert_refused(401, "SESSION_REVOKED");
        eventually("the store takes writes", writes);
    }
}

#[test]
fn limits_with_on_outage_deny_refuse() {
    for code in CODES {
        let fixture = fixture("deny");
        fixture.redis.refuse_writes(code);
        assert_eq!(fixture.statuses("/limited/a", 2), [503, 503], "{code}");
        assert_eq!(fixture.statuses("/private/a", 2), [200, 200], "{code}");
    }
}

#[test]
fn database_ended_session_is_refused_on_every_gateway() {
    let (redis, server, upstream) = (Redis::start(), Postgres::server(), Upstream::start());
    let database = server.database();
    let gateway = || {
        let config = Config::new(upstream.address).store(&redis.url());
        let config = config.postgres(server.address, &database);
        Gateway::start(config.set("/sessions/durable", json!(true)))
    };
    let (here, there) = (gateway(), gateway());
    let ann = here.register("ann@example.com");
    assert!(there.accepts(&ann));
    redis.refuse_writes("NOREPLICAS");
    let out = Request::post("/api/v1/auth/logout").cookie(&ann.cookie);
    assert_eq!(here.request(&out.same_origin()).status, 204);
    assert!(!here.accepts(&ann));
    within(
        std::time::Duration::from_secs(5),
        "the other one knows",
        || (!there.accepts(&ann)).then_some(()),
    );
    // And new sessions go on by the database.
    assert!(here.accepts(&here.login("ann@example.com")));
}
