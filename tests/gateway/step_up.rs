//! Routes that require a recent or a stronger sign-in.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, Request, Response};
use crate::support::clock::Clock;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::http2::Http2;
use crate::support::provider::{Endpoint, Provider};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::visitor::{Visit, Visitor};

const CODE: &str = "INSUFFICIENT_AUTHENTICATION";
const CHALLENGE: &str = "Bearer realm=\"portcullis\", error=\"insufficient_user_authentication\"";

fn route(name: &str, require: &Value) -> Value {
    json!({
        "name": name, "match": { "prefix": format!("/{name}") }, "upstream": "echo",
        "require": require, "limits": ["counted"],
    })
}

/// Routes with each requirement, and one limit that counts admitted requests.
fn with_routes(config: Config) -> Config {
    let corp = json!({
        "issuer": "https://id.example.com", "client_id": "portcullis", "client_auth": "none",
        "allow": "anyone",
    });
    config
        .set("/identity/providers/corp", corp)
        .set("/tokens/leeway", json!("0s"))
        .limit(
            "counted",
            json!({ "limit": 1000, "window": "1h", "key": "user" }),
        )
        .route(route("recent", &json!({ "max_auth_age": "1h" })))
        .route(route(
            "strong",
            &json!({ "acr": ["mfa", "phr"], "max_auth_age": "90s" }),
        ))
        .route(route("corp", &json!({ "providers": ["corp"] })))
        .route(route(
            "staff",
            &json!({ "roles": ["staff"], "acr": ["mfa"] }),
        ))
        .route(json!({
            "name": "page", "match": { "prefix": "/page" }, "upstream": "echo",
            "require": { "max_auth_age": "1h" }, "on_unauthenticated": "redirect",
        }))
}

fn assert_challenged(response: &Response, more: &str) {
    response.assert_refused(401, CODE);
    let challenge = response.header("www-authenticate").unwrap();
    assert_eq!(challenge, format!("{CHALLENGE}{more}"));
    // Nothing has ended.
    assert!(response.all("set-cookie").is_empty());
}

fn get(gateway: &Gateway, path: &str, user: &SignedIn) -> Response {
    gateway.request(&Request::get(path).cookie(&user.cookie))
}

fn remaining(gateway: &Gateway, user: &SignedIn) -> u64 {
    let response = get(gateway, "/recent/a", user);
    response.assert_ok().numeric_header("x-ratelimit-remaining")
}

#[test]
fn password_meets_an_age_and_no_acr() {
    let redis = Redis::start();
    for url in ["memory", &redis.url()] {
        let upstream = Upstream::start();
        let gateway = Gateway::start(with_routes(Config::new(upstream.address)).store(url));
        let alice = gateway.register("alice@example.com");
        let before = remaining(&gateway, &alice);
        for _ in 0..4 {
            assert_challenged(
                &get(&gateway, "/strong/a", &alice),
                ", acr_values=\"mfa phr\", max_age=\"90\"",
            );
            get(&gateway, "/corp/a", &alice).assert_refused(403, "FORBIDDEN");
            // Another sign-in would not help.
            get(&gateway, "/staff/a", &alice).assert_refused(403, "FORBIDDEN");
        }
        // Requests that are not admitted spend no limit with identity.
        assert_eq!(remaining(&gateway, &alice), before - 1);
        let bearer = |path: &str| gateway.request(&Request::get(path).bearer(&alice.access_token));
        bearer("/recent/a").assert_ok();
        bearer("/strong/a").assert_refused(401, CODE);
        bearer("/corp/a").assert_refused(403, "FORBIDDEN");
        let anonymous = gateway.get("/strong/a");
        anonymous.assert_refused(401, "UNAUTHENTICATED");
        assert_eq!(
            gateway.metric(
                "portcullis_auth_total",
                &["outcome=\"insufficient_authentication\""]
            ),
            5.0
        );
    }
}

#[test]
fn challenge_is_the_same_on_http2_and_in_every_format() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(with_routes(Config::new(upstream.address)));
    let alice = gateway.register("alice@example.com");
    let http2 = Http2::connect(gateway.public);
    let headers = [("cookie", alice.cookie.as_str())];
    let mut stream = http2.open("GET", "/strong/a", &headers, b"").unwrap();
    assert!(stream.text().contains(CODE));
    let challenge = &stream.headers["www-authenticate"];
    let expected = format!("{CHALLENGE}, acr_values=\"mfa phr\", max_age=\"90\"");
    assert_eq!(*challenge, expected);
    let problem = Request::get("/strong/a")
        .cookie(&alice.cookie)
        .header("accept", "application/problem+json");
    let problem = gateway.request(&problem);
    assert_eq!(
        (problem.status, &problem.json()["code"]),
        (401, &json!(CODE))
    );
}

#[test]
fn sign_in_becomes_too_old_while_it_is_used() {
    let clock = Clock::start();
    let upstream = Upstream::start();
    let config = with_routes(Config::new(upstream.address)).clock(&clock);
    let gateway = Gateway::start(config.set("/tokens/access_ttl", json!("3h")));
    let alice = gateway.register("alice@example.com");
    let mut client = Client::connect(gateway.public);
    let request = Request::get("/recent/a").cookie(&alice.cookie);
    for _ in 0..4 {
        client.request(&request).assert_ok();
    }
    clock.step(3590);
    client.request(&request).assert_ok();
    clock.step(3601);
    for _ in 0..4 {
        assert_challenged(&client.request(&request), ", max_age=\"3600\"");
    }
    let token = Request::get("/recent/a").bearer(&alice.access_token);
    gateway.request(&token).assert_refused(401, CODE);
    get(&gateway, "/private/a", &alice).assert_ok();
    // A sign-in anew meets it.
    let again = gateway.login("alice@example.com");
    get(&gateway, "/recent/a", &again).assert_ok();
}

/// A gateway with one provider and no passwords, whose pages require more of a sign-in.
fn start_site() -> (Provider, Gateway, Upstream) {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let page = |name: &str, require: Value| {
        json!({
            "name": name, "match": { "prefix": format!("/{name}") }, "upstream": "echo",
            "on_unauthenticated": "redirect", "require": require,
        })
    };
    let config = provider.configure(Config::new(upstream.address).set("/identity", json!({})));
    let config = config
        .set("/routes/0/on_unauthenticated", json!("redirect"))
        .route(page("strong", json!({ "acr": ["mfa", "phr"] })))
        .route(page("recent", json!({ "max_auth_age": "1h" })));
    (provider, Gateway::start(config), upstream)
}

fn open(gateway: &Gateway, visitor: &mut Visitor, path: &str) -> Visit {
    visitor.open(&format!("http://{}{path}", gateway.public))
}

#[test]
fn browser_signs_in_again_for_a_page_that_requires_more() {
    let (provider, gateway, _upstream) = start_site();
    let mut visitor = Visitor::new();
    let mut open = |path: &str| open(&gateway, &mut visitor, path);
    assert_eq!(open("/private/a").response.status, 200);
    let strong = open("/strong/a?b=c");
    assert_eq!(strong.response.status, 200, "{strong:?}");
    assert!(strong.url.as_str().ends_with("/strong/a?b=c"));
    let asked = provider.received(Endpoint::Authorization);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].parameter("acr_values").as_deref(), Some("mfa phr"));
    // Once is enough.
    assert_eq!(open("/strong/b").response.status, 200);
    assert_eq!(open("/recent/a").response.status, 200);
    assert_eq!(provider.received(Endpoint::Authorization).len(), 2);
}

#[test]
fn provider_that_does_not_give_more_leads_to_a_page() {
    let (provider, gateway, _upstream) = start_site();
    provider.set_authentication_age(Duration::from_secs(7200));
    provider.vary_id_token(|token| token.remove("acr"));
    for path in ["/strong/a", "/recent/a"] {
        let mut visitor = Visitor::new();
        let visit = open(&gateway, &mut visitor, path);
        assert_eq!(visit.response.status, 403, "{visit:?}");
        assert!(visit.response.text().contains("SIGN_IN_REFUSED"));
        assert_eq!(visit.visits("/authorize"), 2, "{:#?}", visit.hops);
        // The session is as it was.
        assert_eq!(
            open(&gateway, &mut visitor, "/private/a").response.status,
            200
        );
        // A program is not redirected.
        let cookie = visitor.session_cookie().unwrap();
        let program = gateway.request(&Request::get(path).cookie(&cookie));
        program.assert_refused(401, CODE);
    }
    let asked = provider.received(Endpoint::Authorization);
    assert_eq!(asked[3].parameter("max_age").as_deref(), Some("3600"));
}
