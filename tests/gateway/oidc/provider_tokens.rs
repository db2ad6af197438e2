//! Tokens of a provider that sessions keep: forwarded, exchanged once in the fleet, checked again, revoked.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::introspection;
use crate::support::postgres::Postgres;
use crate::support::provider::{Endpoint, Provider, Transfer, User};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

pub(super) const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const TOKENS: &str = "/identity/providers/corp/tokens";
const TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than the first pause after an exchange that failed.
pub(super) const AFTER_PAUSE: Duration = Duration::from_secs(25);

/// Gateways, the first of which signs users in, and all of which serve them.
pub(super) struct Fixture {
    pub(super) gateways: Vec<Gateway>,
    pub(super) provider: Provider,
    _upstream: Upstream,
    pub(super) redis: Option<Redis>,
    pub(super) postgres: Option<(&'static Postgres, String)>,
}

impl Fixture {
    /// One gateway with the memory store and SQLite.
    pub(super) fn memory(vary: impl Fn(Config) -> Config) -> Fixture {
        Fixture::memory_by(Gateway::start, vary)
    }

    pub(super) fn memory_by(
        start: fn(Config) -> Gateway,
        vary: impl Fn(Config) -> Config,
    ) -> Fixture {
        let (provider, upstream) = (Provider::start(), Upstream::start());
        let config = vary(configure(&provider, Config::new(upstream.address)));
        Fixture {
            gateways: vec![start(config)],
            provider,
            _upstream: upstream,
            redis: None,
            postgres: None,
        }
    }

    /// Two gateways with Redis and PostgreSQL, with rows for sessions.
    pub(super) fn fleet(vary: impl Fn(Config) -> Config) -> Fixture {
        Fixture::fleet_on(Redis::start(), vary)
    }

    pub(super) fn fleet_on(redis: Redis, vary: impl Fn(Config) -> Config) -> Fixture {
        Fixture::fleet_by(Gateway::start, redis, vary)
    }

    pub(super) fn fleet_by(
        start: fn(Config) -> Gateway,
        redis: Redis,
        vary: impl Fn(Config) -> Config,
    ) -> Fixture {
        let (provider, upstream) = (Provider::start(), Upstream::start());
        let server = Postgres::server();
        let database = server.database();
        let gateways = (0..2).map(|_| {
            let config = Config::new(upstream.address)
                .store(&redis.url())
                .postgres(server.address, &database)
                .set("/sessions/durable", json!(true));
            start(vary(configure(&provider, config)))
        });
        Fixture {
            gateways: gateways.collect(),
            provider,
            _upstream: upstream,
            redis: Some(redis),
            postgres: Some((server, database)),
        }
    }

    pub(super) fn each(vary: impl Fn(Config) -> Config) -> [Fixture; 2] {
        [Fixture::memory(&vary), Fixture::fleet(&vary)]
    }

    /// Signs in at the first gateway; returns the session cookie.
    pub(super) fn sign_in(&self) -> String {
        self.sign_in_at(&self.provider)
    }

    /// Signs in at a provider that is configured in place of the first one.
    pub(super) fn sign_in_at(&self, provider: &Provider) -> String {
        let mut visitor = Visitor::new();
        let url = provider.start_url(&self.gateways[0], "/private/a");
        let page = visitor.open(&url);
        assert_eq!(page.response.status, 200, "{page:?}");
        visitor.session_cookie().unwrap()
    }

    pub(super) fn get(&self, gateway: usize, path: &str, cookie: &str) -> Response {
        self.gateways[gateway].request(&Request::get(path).cookie(cookie))
    }

    /// Uses a session at every gateway until this is so of the last one's response.
    fn await_response(
        &self,
        what: &str,
        deadline: Duration,
        cookie: &str,
        is_so: impl Fn(&Response) -> bool,
    ) {
        within(deadline, what, || {
            let mut responses =
                (0..self.gateways.len()).map(|at| self.get(at, "/private/a", cookie));
            responses.all(|response| is_so(&response)).then_some(())
        });
    }

    /// A metric, of all gateways together.
    fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let gateways = self.gateways.iter();
        gateways.map(|gateway| gateway.metric(name, labels)).sum()
    }

    pub(super) fn rechecks(&self, outcome: &str) -> f64 {
        let labels = ["provider=\"corp\"", &format!("outcome=\"{outcome}\"")];
        self.metric("portcullis_provider_rechecks_total", &labels)
    }
}

/// Keeps the provider's tokens, and forwards them on routes of their own.
fn configure(provider: &Provider, config: Config) -> Config {
    let route = |name: &str, field: Value| {
        json!({
            "name": name, "match": { "prefix": format!("/{name}") }, "auth": "optional",
            "upstream": "echo", "provider_token": field,
        })
    };
    provider
        .configure(config)
        .set("/encryption", json!({ "key": KEY }))
        .set(TOKENS, json!({ "keep": true }))
        .set("/identity/providers/corp/timeout", json!("1s"))
        .set(
            "/identity/providers/corp/claims",
            json!({ "roles": "groups" }),
        )
        .route(route("bearer", json!({})))
        .route(route(
            "id",
            json!({ "header": "X-Id-Token", "token": "id" }),
        ))
}

pub(super) fn with_recheck(
    recheck: &'static str,
    on_outage: &'static str,
) -> impl Fn(Config) -> Config {
    move |config| {
        let tokens = json!({ "keep": true, "recheck": recheck, "on_outage": on_outage });
        config.set(TOKENS, tokens)
    }
}

pub(super) fn is_ok(response: &Response) -> bool {
    response.status == 200
}

#[track_caller]
pub(super) fn assert_ok(response: &Response) {
    assert_eq!(response.status, 200, "{}", response.text());
}

pub(super) fn code(response: &Response) -> String {
    response.json()["error"]["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn upstream_receives_the_token_of_the_session() {
    for fixture in Fixture::each(|config| config) {
        let cookie = fixture.sign_in();
        for gateway in 0..fixture.gateways.len() {
            let echo = fixture.get(gateway, "/bearer/a", &cookie).echo();
            let bearer = echo.header("authorization").unwrap();
            let token = bearer.strip_prefix("Bearer ").unwrap();
            assert!(
                fixture
                    .provider
                    .secrets()
                    .iter()
                    .any(|secret| secret == token)
            );
            let echo = fixture.get(gateway, "/id/a", &cookie).echo();
            assert!(echo.header("x-id-token").unwrap().starts_with("ey"));
            // A route that does not ask for it, and a request without a session.
            let echo = fixture.get(gateway, "/private/a", &cookie).echo();
            assert_eq!(echo.header("authorization"), None);
            for name in ["X-Id-Token", "x-id-token", "X.Id.Token", "X~Id-Token"] {
                let forged = Request::get("/id/a").header(name, "forged");
                for request in [forged.clone().cookie(&cookie), forged] {
                    let response = fixture.gateways[gateway].request(&request);
                    assert_eq!(response.status, 200);
                    assert!(!response.text().contains("forged"), "{name}");
                }
            }
            let basic = Request::get("/bearer/a").header("Authorization", "Basic YTpi");
            let echo = fixture.gateways[gateway].request(&basic).echo();
            assert_eq!(echo.header("authorization"), None);
        }
        assert_eq!(fixture.provider.exchanges("refresh_token"), 0);
    }
}

#[test]
fn many_requests_with_an_expired_token_are_one_exchange() {
    for fixture in Fixture::each(|config| config) {
        // Less than ten seconds are left.
        fixture.provider.set_expires_in(5);
        let cookie = fixture.sign_in();
        fixture.provider.set_expires_in(300);
        fixture.provider.vary(Endpoint::Token, |reply| {
            reply.delay = Duration::from_millis(300);
        });
        let tokens: Vec<String> = thread::scope(|scope| {
            let request = |index: usize| {
                let (fixture, cookie) = (&fixture, &cookie);
                let gateway = index % fixture.gateways.len();
                let response = fixture.get(gateway, "/bearer/a", cookie);
                assert_eq!(response.status, 200, "{}", response.text());
                response.echo().header("authorization").unwrap()
            };
            let threads: Vec<_> = (0..24)
                .map(|index| scope.spawn(move || request(index)))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined.collect()
        });
        assert_eq!(fixture.provider.exchanges("refresh_token"), 1);
        assert!(tokens.iter().all(|token| *token == tokens[0]));
    }
}

#[test]
fn tokens_that_are_too_large_to_keep_sign_no_user_in() {
    let fixture = Fixture::memory(|config| config);
    fixture.provider.vary(Endpoint::Token, |reply| {
        reply.set("refresh_token", json!("r".repeat(128 * 1024)));
    });
    let mut visitor = Visitor::new();
    let url = fixture
        .provider
        .start_url(&fixture.gateways[0], "/private/a");
    let page = visitor.open(&url).response;
    assert_eq!(page.status, 502, "{}", page.text());
    assert!(page.text().contains("PROVIDER_ERROR"));
    assert_eq!(visitor.session_cookie(), None);
    let sessions = Request::get("/admin/sessions?user=corp:ann&status=all");
    assert_eq!(fixture.gateways[0].admin(sessions).data()["count"], 0);
}

#[test]
fn request_that_needs_a_token_waits_and_is_then_unavailable() {
    let fixture = Fixture::memory(|config| config);
    fixture.provider.set_expires_in(5);
    let cookie = fixture.sign_in();
    fixture
        .provider
        .vary(Endpoint::Token, |reply| reply.transfer = Transfer::Silent);
    let response = fixture.get(0, "/bearer/a", &cookie);
    assert_eq!(
        (response.status, &*code(&response)),
        (503, "PROVIDER_UNAVAILABLE")
    );
    assert!(response.header("retry-after").is_some());
    assert_eq!(response.header("set-cookie"), None);
    // Other routes go on.
    assert_ok(&fixture.get(0, "/private/a", &cookie));
}

#[test]
fn recheck_puts_new_roles_in_force() {
    for fixture in Fixture::each(with_recheck("1s", "continue")) {
        let user = |groups: &[&str]| User::new("ann").claim("groups", json!(groups));
        fixture.provider.set_user(user(&["staff"]));
        let cookie = fixture.sign_in();
        let roles = |response: &Response| response.echo().header("x-user-roles");
        assert_eq!(
            roles(&fixture.get(0, "/private/a", &cookie)).as_deref(),
            Some("staff")
        );
        fixture.provider.set_user(user(&["admin", "ops"]));
        let what = "new roles at every gateway";
        fixture.await_response(what, AFTER_PAUSE, &cookie, |response| {
            roles(response).as_deref() == Some("admin,ops")
        });
        eventually("the metric", || {
            (fixture.rechecks("renewed") >= 1.0).then_some(())
        });
        assert_eq!(fixture.rechecks("ended"), 0.0);
    }
}

#[test]
fn session_that_the_provider_no_longer_confirms_ends_everywhere() {
    for fixture in Fixture::each(with_recheck("1s", "continue")) {
        let cookie = fixture.sign_in();
        let last = fixture.gateways.len() - 1;
        let headers = [
            ("Cookie", cookie.as_str()),
            ("Sec-Fetch-Site", "same-origin"),
        ];
        let address = fixture.gateways[last].public;
        let mut socket = WebSocketClient::open(address, "/private/ws", &headers)
            .ok()
            .unwrap();
        fixture.provider.revoke_grants();
        let what = "the end of the session at every gateway";
        fixture.await_response(what, AFTER_PAUSE, &cookie, |response| {
            response.status == 401 && code(response) == "SESSION_REVOKED"
        });
        assert_eq!(
            socket.close_code(PROPAGATION_DEADLINE),
            Some(POLICY_VIOLATION)
        );
        assert_eq!(fixture.rechecks("ended"), 1.0);
        let reason = ["reason=\"provider\""];
        assert_eq!(
            fixture.metric("portcullis_sessions_ended_total", &reason),
            1.0
        );
        let event = eventually("the event", || {
            let events = fixture.gateways.iter().flat_map(Gateway::events);
            events
                .into_iter()
                .find(|event| event["event"] == "provider_ended_session")
        });
        assert_eq!(event["provider"], "corp");
        assert_eq!(event["user_id"], "corp:ann");
    }
}

#[test]
fn user_that_allow_rejects_is_signed_out() {
    let fixture = Fixture::memory(|config| {
        with_recheck("1s", "continue")(config).set(
            "/identity/providers/corp/allow",
            json!({ "groups": ["staff"] }),
        )
    });
    let user = |groups: &[&str]| User::new("ann").claim("groups", json!(groups));
    fixture.provider.set_user(user(&["staff"]));
    let cookie = fixture.sign_in();
    fixture.provider.set_user(user(&["guests"]));
    fixture.await_response("the end", AFTER_PAUSE, &cookie, |response| {
        response.status == 401
    });
    // The refresh token is revoked with the session.
    fixture.provider.await_received(Endpoint::Revocation, 1);
}

#[test]
fn tokens_of_another_user_end_the_session() {
    let fixture = Fixture::memory(with_recheck("1s", "continue"));
    let cookie = fixture.sign_in();
    fixture
        .provider
        .vary_id_token(|token| token.claims["sub"] = json!("bob"));
    fixture.await_response("the end", AFTER_PAUSE, &cookie, |response| {
        response.status == 401
    });
}

#[test]
fn outage_of_the_provider_signs_no_user_out() {
    for (index, fixture) in Fixture::each(with_recheck("1s", "continue"))
        .iter()
        .enumerate()
    {
        // The provider responds with 503 before it uses the refresh token.
        fixture.provider.set_rotation(false);
        let cookie = fixture.sign_in();
        match index {
            0 => fixture.provider.stop(),
            _ => fixture
                .provider
                .vary(Endpoint::Token, |reply| reply.refuse(503, "server_error")),
        }
        eventually("a recheck without an outcome", || {
            assert_ok(&fixture.get(0, "/private/a", &cookie));
            (fixture.rechecks("unknown") >= 1.0).then_some(())
        });
        fixture.provider.behave();
        fixture.provider.restart();
        within(AFTER_PAUSE, "a recheck with an outcome", || {
            assert_ok(&fixture.get(0, "/private/a", &cookie));
            (fixture.rechecks("renewed") >= 1.0).then_some(())
        });
        assert_eq!(fixture.rechecks("ended"), 0.0);
    }
}

#[test]
fn session_waits_for_its_provider_after_on_outage() {
    let with_keys = |config| with_recheck("1s", "1s")(config).set("/api_keys", json!({}));
    for fixture in Fixture::each(with_keys) {
        fixture.provider.set_rotation(false);
        let cookie = fixture.sign_in();
        let backend = introspection::create_key(&fixture.gateways[0]);
        let introspect = || {
            let (_, token) = cookie.split_once('=').unwrap();
            fixture.gateways[0].request(&introspection::call(token).bearer(&backend))
        };
        assert_eq!(introspect().assert_ok().json()["active"], true);
        fixture
            .provider
            .vary(Endpoint::Token, |reply| reply.refuse(401, "invalid_client"));
        fixture.await_response("503 at every gateway", AFTER_PAUSE, &cookie, |response| {
            assert!(matches!(response.status, 200 | 503), "{}", response.text());
            assert_eq!(response.header("set-cookie"), None);
            response.status == 503 && code(response) == "PROVIDER_UNAVAILABLE"
        });
        introspect().assert_refused(503, "PROVIDER_UNAVAILABLE");
        fixture.provider.behave();
        fixture.await_response("200 at every gateway", AFTER_PAUSE, &cookie, is_ok);
    }
}

#[test]
fn lost_exchange_signs_no_user_out() {
    for fixture in Fixture::each(with_recheck("1s", "continue")) {
        let cookie = fixture.sign_in();
        // The provider has replaced the refresh token, and the new one is lost.
        fixture
            .provider
            .vary_next(Endpoint::Token, |reply| reply.transfer = Transfer::Reset);
        within(AFTER_PAUSE, "a second exchange", || {
            assert_ok(&fixture.get(0, "/private/a", &cookie));
            (fixture.rechecks("unknown") >= 2.0).then_some(())
        });
        assert_eq!(fixture.provider.exchanges("refresh_token"), 2);
        assert_eq!(fixture.rechecks("ended"), 0.0);
        assert_ok(&fixture.get(0, "/private/a", &cookie));
    }
}

#[test]
fn successor_in_a_late_response_is_kept() {
    for fixture in Fixture::each(with_recheck("1s", "continue")) {
        let cookie = fixture.sign_in();
        fixture.provider.vary_next(Endpoint::Token, |reply| {
            reply.delay = TIMEOUT + Duration::from_secs(2);
        });
        within(AFTER_PAUSE, "a recheck with an outcome", || {
            assert_ok(&fixture.get(0, "/private/a", &cookie));
            (fixture.rechecks("renewed") >= 1.0).then_some(())
        });
        assert_eq!(fixture.rechecks("ended"), 0.0);
    }
}

#[test]
fn successor_of_an_unusable_response_is_kept() {
    let fixture = Fixture::memory(with_recheck("1s", "continue"));
    let cookie = fixture.sign_in();
    fixture
        .provider
        .vary_id_token(|token| token.claims["iss"] = json!("https://other"));
    eventually("a recheck without an outcome", || {
        assert_ok(&fixture.get(0, "/private/a", &cookie));
        (fixture.rechecks("unknown") >= 1.0).then_some(())
    });
    fixture.provider.behave();
    // The provider takes each refresh token once.
    within(AFTER_PAUSE, "a recheck with an outcome", || {
        assert_ok(&fixture.get(0, "/private/a", &cookie));
        (fixture.rechecks("renewed") >= 1.0).then_some(())
    });
}

#[test]
fn session_that_is_not_used_is_not_rechecked() {
    let fixture = Fixture::memory(with_recheck("1s", "continue"));
    let cookie = fixture.sign_in();
    eventually("a recheck of a session in use", || {
        assert_ok(&fixture.get(0, "/private/a", &cookie));
        (fixture.rechecks("renewed") >= 1.0).then_some(())
    });
    let other = fixture.sign_in();
    drop(other);
    let before = fixture.provider.exchanges("refresh_token");
    // Without a use there is nothing to wait for: uses are looked at every second.
    thread::sleep(Duration::from_secs(4));
    assert!(fixture.provider.exchanges("refresh_token") <= before + 2);
}

#[test]
fn sign_out_revokes_the_refresh_token() {
    for fixture in Fixture::each(|config| config) {
        let cookie = fixture.sign_in();
        let last = &fixture.gateways[fixture.gateways.len() - 1];
        let sign_out = Request::post("/api/v1/auth/logout").cookie(&cookie);
        let response = last.request(&sign_out.header("Sec-Fetch-Site", "same-origin"));
        assert_eq!(response.status, 204, "{}", response.text());
        let revoked = fixture.provider.await_received(Endpoint::Revocation, 1);
        let token = revoked[0].parameter("token").unwrap();
        assert!(fixture.provider.secrets().contains(&token));
        assert_eq!(
            revoked[0].parameter("token_type_hint").as_deref(),
            Some("refresh_token")
        );
        if let Some(redis) = &fixture.redis {
            assert!(
                !redis
                    .keys()
                    .iter()
                    .any(|key| key.contains("provider-tokens"))
            );
        }
    }
}

#[test]
fn older_encryption_key_opens_and_seals_anew() {
    let mut fixture = Fixture::memory(|config| config);
    let cookie = fixture.sign_in();
    let new = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
    let keys = json!({ "key": new, "also": [KEY] });
    fixture.gateways[0].reload("applied", |config| config.put("/encryption", keys));
    // The gateway looks at the store again once what it has cached is a few seconds old.
    let token = |fixture: &Fixture| fixture.get(0, "/bearer/a", &cookie);
    within(AFTER_PAUSE, "tokens that the new key has sealed", || {
        assert!(is_ok(&token(&fixture)));
        let keys = json!({ "key": new });
        fixture.gateways[0].reload("applied", |config| config.put("/encryption", keys));
        thread::sleep(Duration::from_secs(6));
        if is_ok(&token(&fixture)) {
            return Some(());
        }
        let keys = json!({ "key": new, "also": [KEY] });
        fixture.gateways[0].reload("applied", |config| config.put("/encryption", keys));
        None
    });
}
