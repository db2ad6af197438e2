//! Trusted issuers by discovery, and those whose signed tokens must pass introspection too.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::provider::{Endpoint, Jwt, Provider};
use crate::support::tokens::now;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

fn config(provider: &Provider, introspection: Option<&str>) -> Config {
    let mut issuer =
        json!({ "issuer": provider.issuer, "audience": "shop", "user_prefix": "corp:" });
    if let Some(name) = introspection {
        issuer["introspection"] = json!(name);
    }
    let mut entry = provider.introspection_settings("corp");
    entry["issuer"] = json!(provider.issuer);
    entry["cached_for"] = json!("1s");
    Config::new(Upstream::start().address)
        .set("/tokens/trusted_issuers", json!([issuer]))
        .set("/tokens/introspection", json!([entry]))
}

fn token(provider: &Provider, user: &str) -> String {
    let claims = json!({ "iss": provider.issuer, "aud": "shop", "sub": user,
        "exp": now() + 600, "jti": format!("token-of-{user}") });
    Jwt::new(&provider.key(), claims).encode()
}

fn private(token: &str) -> Request {
    Request::get("/private/a").bearer(token)
}

fn members(provider: &Provider) -> Value {
    json!({ "sub": "ann", "iss": provider.issuer })
}

#[test]
fn keys_of_an_issuer_are_discovered() {
    let provider = Provider::start();
    let gateway = Gateway::start(config(&provider, None));
    eventually("the keys are fetched", || {
        (gateway.request(&private(&token(&provider, "ann"))).status == 200).then_some(())
    });
    let echo = gateway.request(&private(&token(&provider, "ann"))).echo();
    assert_eq!(echo.header("x-user-id").as_deref(), Some("corp:ann"));
    // Without `introspection`, no signed token is sent anywhere.
    assert!(provider.received(Endpoint::Introspection).is_empty());
    // The document that was fetched is this issuer's, and no other's keys are used.
    let other = Provider::start();
    other.vary(Endpoint::Discovery, {
        let issuer = provider.issuer.clone();
        move |reply| reply.set("issuer", json!(issuer))
    });
    let gateway = Gateway::start(config(&other, None));
    other.await_received(Endpoint::Discovery, 1);
    let response = gateway.request(&private(&token(&other, "ann")));
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(other.received(Endpoint::Keys).is_empty());
}

#[test]
fn signed_token_must_pass_introspection_too() {
    let provider = Provider::start();
    let gateway = Gateway::start(config(&provider, Some("corp")));
    let (good, revoked) = (token(&provider, "ann"), token(&provider, "bob"));
    provider.set_token(&good, members(&provider));
    eventually("the keys are fetched", || {
        (gateway.request(&private(&good)).status == 200).then_some(())
    });
    let echo = gateway.request(&private(&good)).echo();
    assert_eq!(echo.header("x-user-id").as_deref(), Some("corp:ann"));
    gateway
        .request(&private(&revoked))
        .assert_refused(401, "TOKEN_INVALID");
    // The signature is checked first: no forged token is sent.
    let before = provider.received(Endpoint::Introspection).len();
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    provider.set_token(&forged, members(&provider));
    gateway
        .request(&private(&forged))
        .assert_refused(401, "TOKEN_INVALID");
    let sent = provider.received(Endpoint::Introspection);
    assert_eq!(sent.len(), before);
    // A token that is known, and recalled without a look-up, is rejected all the same.
    for _ in 0..4 {
        assert_eq!(gateway.request(&private(&good)).status, 200);
    }
    provider.forget_token(&good);
    eventually("the revocation is noticed", || {
        (gateway.request(&private(&good)).status == 401).then_some(())
    });
    provider.set_token(&good, members(&provider));
    eventually("the token is accepted again", || {
        (gateway.request(&private(&good)).status == 200).then_some(())
    });
    provider.vary(Endpoint::Introspection, |reply| reply.status = 500);
    eventually("the outage is noticed", || {
        let response = gateway.request(&private(&good));
        (response.status == 503)
            .then(|| response.assert_refused(503, "PROVIDER_UNAVAILABLE").status)
    });
}
