//! Back-channel logout: a provider ends sessions, in force on every gateway within a second.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::Gateway;
use crate::support::open_streams::{OpenStreams, start_fleet};
use crate::support::postgres::Postgres;
use crate::support::provider::{CORP, Endpoint, Jwt, Provider, SigningKey, User};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait::{eventually, within};

/// A signed-in browser.
struct Browser {
    cookie: String,
    /// The provider's session.
    sid: Option<String>,
}

impl Browser {
    fn sign_in(provider: &Provider, gateway: &Gateway, user: &str) -> Browser {
        provider.set_user(User::new(user));
        let mut visitor = Visitor::new();
        let visit = visitor.open(&provider.start_url(gateway, "/private/a"));
        assert_eq!(visit.response.status, 200, "{visit:?}");
        Browser {
            cookie: visitor.session_cookie().unwrap(),
            sid: provider.latest_sid(),
        }
    }

    /// The session as a program shows it.
    fn scheme(&self) -> String {
        let (_, token) = self.cookie.split_once('=').unwrap();
        format!("Session {token}")
    }

    fn request(&self, gateway: &Gateway) -> Response {
        gateway.request(&Request::get("/private/a").cookie(&self.cookie))
    }

    #[track_caller]
    fn assert_ended(&self, gateway: &Gateway) {
        self.request(gateway).assert_refused(401, "SESSION_REVOKED");
    }
}

#[track_caller]
fn log_out(provider: &Provider, gateway: &Gateway, claims: &Value) {
    let response = provider.send_logout(gateway, &provider.logout_token(claims).encode());
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

#[track_caller]
fn assert_invalid(response: &Response) {
    assert_eq!(response.status, 400, "{response:?}");
    assert_eq!(response.json(), json!({ "error": "invalid_request" }));
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

fn logouts(gateway: &Gateway, outcome: &str) -> f64 {
    let outcome = format!("outcome=\"{outcome}\"");
    gateway.metric("portcullis_backchannel_logouts_total", &[&outcome])
}

#[test]
fn logout_is_in_force_on_the_other_gateway_within_a_second() {
    let provider = Provider::start();
    let fleet = start_fleet(|config| provider.configure(config));
    assert_eq!(logouts(&fleet.one, "ok"), 0.0);
    let ann = Browser::sign_in(&provider, &fleet.one, "ann");
    let tablet = Browser::sign_in(&provider, &fleet.one, "ann");
    let mut ended = OpenStreams::open_on(&fleet, ("Authorization", &ann.scheme()));
    let mut kept = OpenStreams::open_on(&fleet, ("Authorization", &tablet.scheme()));
    let since = Instant::now();
    log_out(
        &provider,
        &fleet.one,
        &json!({ "sub": "ann", "sid": ann.sid }),
    );
    ann.assert_ended(&fleet.one);
    ended.await_closed(since);
    ann.assert_ended(&fleet.two);
    kept.assert_still_open(&fleet.upstream);
    tablet.request(&fleet.two).assert_ok();
    let reason = ["reason=\"backchannel\""];
    let sessions_ended = "portcullis_sessions_ended_total";
    assert_eq!(fleet.one.metric(sessions_ended, &reason), 1.0);
    assert_eq!(logouts(&fleet.one, "ok"), 1.0);
    let events = eventually("the event is listed", || {
        let events = fleet.two.admin(Request::get("/admin/events"));
        let listed = events.data()["events"].clone();
        let named = |name| move |event: &Value| event["event"] == name;
        let listed = listed.as_array().unwrap().clone();
        let logout = listed
            .iter()
            .find(|event| named("backchannel_logout")(event))?;
        let revoked = listed.iter().find(|event| named("revoked")(event))?;
        Some((logout.clone(), revoked.clone()))
    });
    assert_eq!(events.0["provider"], CORP);
    assert_eq!(events.1["reason"], "backchannel");
    assert_eq!(events.1["user_id"], "corp:ann");
}

/// One gateway with its store in memory, at which passwords work too.
fn in_memory(provider: &Provider, upstream: &Upstream) -> Gateway {
    Gateway::start(provider.configure(Config::new(upstream.address)))
}

#[test]
fn subject_ends_all_sessions_and_bearer_tokens_of_the_user() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let trusted = json!([{ "issuer": provider.issuer, "audience": "api", "algorithms": ["RS256", "ES256"],
        "jwks_url": format!("{}/keys", provider.issuer), "user_prefix": "corp:" }]);
    let config = provider.configure(Config::new(upstream.address));
    let gateway = Gateway::start(config.set("/tokens/trusted_issuers", trusted));
    let password = gateway.register("ann@example.com");
    let with_sid = Browser::sign_in(&provider, &gateway, "ann");
    provider.set_sid(None);
    let without = Browser::sign_in(&provider, &gateway, "ann");
    let bob = Browser::sign_in(&provider, &gateway, "bob");
    let bearer = |user: &str| {
        let now = crate::support::tokens::now();
        let claims = json!({ "iss": provider.issuer, "aud": "api", "sub": user,
            "iat": now - 60, "exp": now + 600 });
        let mut token = Jwt::new(&provider.key(), claims);
        token.header["typ"] = json!("at+jwt");
        let token = token.encode();
        Request::get("/private/a").bearer(&token)
    };
    let (of_ann, of_bob) = (bearer("ann"), bearer("bob"));
    gateway.request(&of_ann).assert_ok();
    // The end of one session at the provider leaves the user's bearer tokens.
    let one = json!({ "sub": "ann", "sid": "another" });
    log_out(&provider, &gateway, &one);
    without.assert_ended(&gateway);
    with_sid.request(&gateway).assert_ok();
    gateway.request(&of_ann).assert_ok();
    log_out(&provider, &gateway, &json!({ "sub": "ann" }));
    with_sid.assert_ended(&gateway);
    gateway
        .request(&of_ann)
        .assert_refused(401, "TOKEN_REVOKED");
    bob.request(&gateway).assert_ok();
    gateway.request(&of_bob).assert_ok();
    assert!(gateway.accepts(&password));
    // She may come back.
    let again = Browser::sign_in(&provider, &gateway, "ann");
    again.request(&gateway).assert_ok();
}

#[test]
fn sid_ends_its_sessions_and_those_without_one() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = in_memory(&provider, &upstream);
    let first = Browser::sign_in(&provider, &gateway, "ann");
    let second = Browser::sign_in(&provider, &gateway, "ann");
    provider.set_sid(None);
    let without = Browser::sign_in(&provider, &gateway, "ann");
    log_out(&provider, &gateway, &json!({ "sid": "unknown" }));
    log_out(&provider, &gateway, &json!({ "sid": first.sid }));
    first.assert_ended(&gateway);
    without.request(&gateway).assert_ok();
    log_out(
        &provider,
        &gateway,
        &json!({ "sid": "another", "sub": "ann" }),
    );
    without.assert_ended(&gateway);
    second.request(&gateway).assert_ok();
}

/// What is wrong with a logout token.
type Lie = (&'static str, Box<dyn Fn(&mut Jwt)>);

fn claim(lie: &'static str, name: &'static str, value: Value) -> Lie {
    (
        lie,
        Box::new(move |token| token.claims[name] = value.clone()),
    )
}

fn header(lie: &'static str, name: &'static str, value: Value) -> Lie {
    (
        lie,
        Box::new(move |token| token.header[name] = value.clone()),
    )
}

fn missing(lie: &'static str, names: &'static [&'static str]) -> Lie {
    let remove = move |token: &mut Jwt| names.iter().for_each(|name| token.remove(name));
    (lie, Box::new(remove))
}

fn lies_in_claims() -> Vec<Lie> {
    let event = "http://schemas.openid.net/event/backchannel-logout";
    let other = "https://other.example";
    let now = crate::support::tokens::now();
    vec![
        claim("iss", "iss", json!(other)),
        missing("iss missing", &["iss"]),
        claim("aud", "aud", json!("other")),
        missing("aud missing", &["aud"]),
        missing("iat missing", &["iat"]),
        claim("iat in the future", "iat", json!(now + 600)),
        missing("exp missing", &["exp"]),
        claim("exp past", "exp", json!(now - 600)),
        missing("jti missing", &["jti"]),
        claim("jti empty", "jti", json!("")),
        missing("events missing", &["events"]),
        claim("events of a list", "events", json!([event])),
        claim("another event", "events", json!({ other: {} })),
        claim("two events", "events", json!({ event: {}, other: {} })),
        claim("event of a text", "events", json!({ event: "" })),
        claim("nonce", "nonce", json!("n")),
        claim("nonce null", "nonce", json!(null)),
        claim("sub of a number", "sub", json!(1)),
        claim("sid of a number", "sid", json!(1)),
        missing("neither sub nor sid", &["sub", "sid"]),
    ]
}

fn lies_in_form_and_signature(provider: &Provider) -> Vec<Lie> {
    let foreign = SigningKey::generate("RS256", "foreign");
    let id = provider.key().jwk()["kid"].as_str().unwrap().to_owned();
    let same_id = SigningKey::generate("RS256", &id);
    vec![
        header("typ of an access token", "typ", json!("at+jwt")),
        header("crit", "crit", json!(["b64"])),
        (
            "repeated sub",
            Box::new(|token| token.duplicate("sub", &json!("bob"))),
        ),
        (
            "unknown key",
            Box::new(move |token| token.sign_with(&foreign)),
        ),
        (
            "another key of the same id",
            Box::new(move |token| token.sign_with(&same_id)),
        ),
    ]
}

#[test]
fn malformed_logout_token_is_refused_and_ends_nothing() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = in_memory(&provider, &upstream);
    let ann = Browser::sign_in(&provider, &gateway, "ann");
    let mut lies = lies_in_claims();
    lies.extend(lies_in_form_and_signature(&provider));
    for (name, lie) in &lies {
        let mut token = provider.logout_token(&json!({ "sub": "ann", "sid": ann.sid }));
        lie(&mut token);
        let response = provider.send_logout(&gateway, &token.encode());
        assert_eq!(response.status, 400, "{name}: {response:?}");
        assert_invalid(&response);
    }
    let good = provider.logout_token(&json!({ "sub": "ann" })).encode();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let unsigned = format!("{head}.");
    let flipped = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let long = format!("{good}.{signature}");
    for token in ["", "x", "a.b.c", &unsigned, &flipped, &long] {
        assert_invalid(&provider.send_logout(&gateway, token));
    }
    ann.request(&gateway).assert_ok();
    assert_eq!(logouts(&gateway, "refused"), (lies.len() + 6) as f64);
    let lines = gateway.wait_for_log("backchannel_logout_refused");
    assert!(!lines.contains(&good), "a logout token is in the log");
}

#[test]
fn logout_request_is_a_form_with_one_token() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = in_memory(&provider, &upstream);
    let ann = Browser::sign_in(&provider, &gateway, "ann");
    let token = provider.logout_token(&json!({ "sub": "ann" })).encode();
    let send = |kind: &str, body: String, path: &str| {
        let path = format!("/api/v1/auth/backchannel-logout/{path}");
        gateway.request(&Request::post(&path).header("Content-Type", kind).body(body))
    };
    let form = "application/x-www-form-urlencoded";
    for (kind, body) in [
        (form, String::new()),
        (form, "logout_token=".to_owned()),
        (form, format!("token={token}")),
        (form, format!("logout_token={token}&logout_token={token}")),
        (
            "application/json",
            json!({ "logout_token": token }).to_string(),
        ),
        ("text/plain", format!("logout_token={token}")),
    ] {
        assert_invalid(&send(kind, body, CORP));
    }
    let body = format!("logout_token={token}");
    let unknown = send(form, body.clone(), "other");
    unknown.assert_refused(404, "NOT_FOUND");
    let path = format!("/api/v1/auth/backchannel-logout/{CORP}");
    gateway.get(&path).assert_refused(405, "METHOD_NOT_ALLOWED");
    ann.request(&gateway).assert_ok();
    // Further members are ignored.
    assert_eq!(send(form, format!("a=b&{body}"), CORP).status, 200);
    ann.assert_ended(&gateway);
}

#[test]
fn logout_can_be_switched_off() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let config = provider.configure(Config::new(upstream.address));
    let pointer = format!("/identity/providers/{CORP}/logout");
    let gateway = Gateway::start(config.set(&pointer, json!({ "back_channel": false })));
    let ann = Browser::sign_in(&provider, &gateway, "ann");
    let token = provider.logout_token(&json!({ "sub": "ann" })).encode();
    let response = provider.send_logout(&gateway, &token);
    response.assert_refused(404, "NOT_FOUND");
    ann.request(&gateway).assert_ok();
}

#[test]
fn provider_without_id_tokens_ends_no_session() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = Gateway::start(provider.configure_github(Config::new(upstream.address)));
    let token = provider.logout_token(&json!({ "sub": "ann" })).encode();
    let path = "/api/v1/auth/backchannel-logout/hub";
    let form = Request::post(path).header("Content-Type", "application/x-www-form-urlencoded");
    let response = gateway.request(&form.body(format!("logout_token={token}")));
    response.assert_refused(404, "NOT_FOUND");
}

#[test]
fn logout_token_is_used_once_in_the_fleet() {
    let provider = Provider::start();
    let fleet = start_fleet(|config| provider.configure(config));
    let ann = Browser::sign_in(&provider, &fleet.one, "ann");
    let token = provider.logout_token(&json!({ "sub": "ann" })).encode();
    assert_eq!(provider.send_logout(&fleet.one, &token).status, 200);
    ann.assert_ended(&fleet.one);
    let again = Browser::sign_in(&provider, &fleet.one, "ann");
    for gateway in [&fleet.one, &fleet.two] {
        assert_invalid(&provider.send_logout(gateway, &token));
    }
    again.request(&fleet.two).assert_ok();
}

#[test]
fn logout_ends_a_sign_in_in_progress() {
    let provider = Provider::start();
    let fleet = start_fleet(|config| provider.configure(config));
    for claims in [
        &|provider: &Provider| json!({ "sub": "ann", "sid": provider.latest_sid() }),
        &(|_: &Provider| json!({ "sub": "ann" })) as &dyn Fn(&Provider) -> Value,
    ] {
        let before = provider.received(Endpoint::Token).len();
        // The tokens are issued, and are on their way for long enough.
        provider.vary_next(Endpoint::Token, |reply| {
            reply.delay = Duration::from_millis(1_500);
        });
        provider.set_user(User::new("ann"));
        std::thread::scope(|scope| {
            let visit = scope.spawn(|| {
                let mut visitor = Visitor::new();
                let visit = visitor.open(&provider.start_url(&fleet.one, "/private/a"));
                (visit, visitor.session_cookie())
            });
            provider.await_received(Endpoint::Token, before + 1);
            log_out(&provider, &fleet.two, &claims(&provider));
            let (visit, cookie) = visit.join().unwrap();
            assert_eq!(visit.response.status, 403, "{visit:?}");
            assert!(visit.response.text().contains("SIGN_IN_REFUSED"));
            assert_eq!(cookie, None);
        });
        let active = fleet
            .one
            .admin(Request::get("/admin/sessions?user=corp:ann"));
        assert_eq!(active.data()["count"], 0);
        let again = Browser::sign_in(&provider, &fleet.one, "ann");
        again.request(&fleet.one).assert_ok();
    }
}

#[test]
fn logout_during_an_outage_of_the_store_is_503_and_then_in_force() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let mut redis = Redis::start();
    let server = Postgres::server();
    let config = Config::new(upstream.address)
        .set("/sessions/durable", json!(true))
        .store(&redis.url())
        .postgres(server.address, &server.database());
    let gateway = Gateway::start(provider.configure(config));
    let ann = Browser::sign_in(&provider, &gateway, "ann");
    let bob = Browser::sign_in(&provider, &gateway, "bob");
    redis.kill();
    let by_ann = provider.logout_token(&json!({ "sub": "ann" })).encode();
    let by_bob = provider
        .logout_token(&json!({ "sub": "bob", "sid": bob.sid }))
        .encode();
    for token in [&by_ann, &by_bob] {
        let response = provider.send_logout(&gateway, token);
        assert_eq!(response.status, 503, "{response:?}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert!(response.header("retry-after").is_some());
    }
    assert_eq!(logouts(&gateway, "unavailable"), 2.0);
    // The rows have ended.
    within(Duration::from_secs(3), "the sessions have ended", || {
        let refused = [&ann, &bob].map(|browser| browser.request(&gateway).status == 401);
        (refused == [true, true]).then_some(())
    });
    redis.restart();
    // The gateway repeats them, and the provider's own retry is none that was used.
    gateway.wait_for_log("\"event\":\"backchannel_logout\"");
    let response = within(Duration::from_secs(5), "the retry is answered", || {
        let response = provider.send_logout(&gateway, &by_ann);
        (response.status != 503).then_some(response)
    });
    assert_eq!(response.status, 200, "{response:?}");
    assert_invalid(&provider.send_logout(&gateway, &by_ann));
    for browser in [&ann, &bob] {
        browser.assert_ended(&gateway);
    }
}

#[test]
fn logout_during_an_outage_of_the_database_uses_no_token() {
    let (provider, upstream, redis) = (Provider::start(), Upstream::start(), Redis::start());
    let server = Postgres::server();
    let database = FaultProxy::before(server.address);
    let config = Config::new(upstream.address)
        .set("/sessions/durable", json!(true))
        .store(&redis.url())
        .postgres(database.address, &server.database());
    let gateway = Gateway::start(provider.configure(config));
    let ann = Browser::sign_in(&provider, &gateway, "ann");
    database.cut();
    let token = provider.logout_token(&json!({ "sub": "ann" })).encode();
    let response = provider.send_logout(&gateway, &token);
    assert_eq!(response.status, 503, "{response:?}");
    database.restore();
    let response = within(Duration::from_secs(10), "the retry is answered", || {
        let response = provider.send_logout(&gateway, &token);
        (response.status != 503).then_some(response)
    });
    assert_eq!(response.status, 200, "{response:?}");
    assert_invalid(&provider.send_logout(&gateway, &token));
    ann.assert_ended(&gateway);
}

#[test]
fn logout_token_of_a_key_that_cannot_be_fetched_is_no_invalid_one() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = in_memory(&provider, &upstream);
    let ann = Browser::sign_in(&provider, &gateway, "ann");
    provider.add_key("ES256");
    provider.vary(Endpoint::Keys, |reply| reply.status = 500);
    let token = provider.logout_token(&json!({ "sub": "ann" })).encode();
    for _ in 0..2 {
        let response = provider.send_logout(&gateway, &token);
        assert_eq!(response.status, 503, "{response:?}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert!(response.header("retry-after").is_some());
    }
    assert_eq!(logouts(&gateway, "unavailable"), 2.0);
    ann.request(&gateway).assert_ok();
    provider.behave();
    let response = within(Duration::from_secs(20), "the keys are fetched", || {
        let response = provider.send_logout(&gateway, &token);
        (response.status != 503).then_some(response)
    });
    assert_eq!(response.status, 200, "{response:?}");
    ann.assert_ended(&gateway);
}

#[test]
fn logout_outlasts_the_store_of_durable_sessions() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let redis = Redis::start();
    let config = Config::new(upstream.address).set("/sessions/durable", json!(true));
    let gateway = Gateway::start(provider.configure(config.store(&redis.url())));
    let ann = Browser::sign_in(&provider, &gateway, "ann");
    // The index of sign-ins is lost, the row is not.
    redis.command(&["FLUSHALL"]);
    ann.request(&gateway).assert_ok();
    let session = gateway.request(&Request::get("/api/v1/sessions/current").cookie(&ann.cookie));
    assert_eq!(session.data()["provider"], CORP);
    log_out(&provider, &gateway, &json!({ "sid": ann.sid }));
    ann.assert_ended(&gateway);
    redis.command(&["FLUSHALL"]);
    ann.assert_ended(&gateway);
}
