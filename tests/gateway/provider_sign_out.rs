//! Sign-out of sessions that signed in at a provider: here first, then there.

use std::collections::HashMap;

use serde_json::{Value, json};
use url::Url;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::provider::{CLIENT_ID, CORP, Endpoint, Provider, User};
use crate::support::redis::Redis;
use crate::support::tokens;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

fn sign_in(provider: &Provider, gateway: &Gateway) -> Visitor {
    provider.set_user(User::new("ann"));
    let mut visitor = Visitor::new();
    let visit = visitor.open(&provider.start_url(gateway, "/private/a"));
    assert_eq!(visit.response.status, 200, "{visit:?}");
    visitor
}

fn page(gateway: &Gateway) -> Url {
    Url::parse(&format!("http://{}/api/v1/sign-out", gateway.public)).unwrap()
}

/// Presses the button.
fn submit(visitor: &mut Visitor, gateway: &Gateway) -> Response {
    let form = Request::post("/api/v1/sign-out")
        .header("Host", &gateway.public.to_string())
        .header("Content-Type", "application/x-www-form-urlencoded")
        .same_origin();
    visitor.send(&page(gateway), form)
}

fn is_ended(gateway: &Gateway, cookie: &str) -> bool {
    let request = Request::get("/private/a").cookie(cookie);
    gateway.request(&request).status == 401
}

fn parameters(url: &str) -> HashMap<String, String> {
    let url = Url::parse(url).unwrap();
    url.query_pairs().into_owned().collect()
}

#[track_caller]
fn assert_end_session(provider: &Provider, gateway: &Gateway, url: &str) {
    assert!(url.starts_with(&provider.issuer), "{url}");
    let parameters = parameters(url);
    assert_eq!(parameters["client_id"], CLIENT_ID);
    let back = page(gateway);
    assert_eq!(parameters["post_logout_redirect_uri"], back.as_str());
    assert!(parameters["state"].len() >= 16, "{url}");
    // The tokens are not kept.
    assert!(!parameters.contains_key("id_token_hint"), "{url}");
}

fn alone(provider: &Provider, upstream: &Upstream) -> Config {
    let config = Config::new(upstream.address).set("/identity", json!({}));
    provider.configure(config)
}

#[test]
fn page_leads_to_the_provider_and_back() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = Gateway::start(alone(&provider, &upstream));
    let mut visitor = sign_in(&provider, &gateway);
    let cookie = visitor.session_cookie().unwrap();
    let form = visitor.get(&page(&gateway));
    let policy = form.header("content-security-policy").unwrap().to_owned();
    let origin = Url::parse(&provider.issuer).unwrap().origin();
    let origin = origin.ascii_serialization();
    assert!(
        policy.contains(&origin),
        "form-action bars the way: {policy}"
    );
    let response = submit(&mut visitor, &gateway);
    assert_eq!(response.status, 303, "{response:?}");
    let location = response.header("location").unwrap();
    assert_end_session(&provider, &gateway, location);
    assert!(is_ended(&gateway, &cookie));
    assert_eq!(visitor.session_cookie(), None);
    let end = visitor.open(location);
    assert_eq!(provider.received(Endpoint::EndSession).len(), 1);
    // Whatever comes back, the sign-out is complete, and nothing leads on by itself.
    for query in ["", "?state=unknown", "?error=access_denied"] {
        let url = format!("{}{query}", page(&gateway));
        let signed_out = visitor.open(&url);
        assert_eq!(signed_out.response.status, 200, "{query}");
        assert_eq!(signed_out.hops.len(), 1, "{query}");
        let text = signed_out.response.text();
        assert!(text.contains("You are signed out"), "{text}");
        assert!(text.contains("prompt=login"), "{text}");
    }
    drop(end);
}

#[test]
fn program_receives_the_address_at_the_provider() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let config = provider.configure(Config::new(upstream.address));
    let gateway = Gateway::start(config);
    let log_out = |cookie: &str, query: &str| {
        let path = format!("/api/v1/auth/logout{query}");
        let host = gateway.public.to_string();
        let request = Request::post(&path).header("Host", &host).same_origin();
        gateway.request(&request.cookie(cookie))
    };
    let cookie = sign_in(&provider, &gateway).session_cookie().unwrap();
    let malformed = log_out(&cookie, "?provider=maybe");
    malformed.assert_refused(400, "VALIDATION_FAILED");
    let response = log_out(&cookie, "?provider=true");
    assert_eq!(response.status, 200, "{response:?}");
    let data = response.data();
    assert_end_session(&provider, &gateway, data["logout_url"].as_str().unwrap());
    assert!(is_ended(&gateway, &cookie));
    let cleared = response.all("set-cookie").join("\n");
    assert!(cleared.contains("Max-Age=0"), "{cleared}");
    // Again, in case the response was lost.
    let response = log_out(&cookie, "?provider=true");
    assert_end_session(
        &provider,
        &gateway,
        response.data()["logout_url"].as_str().unwrap(),
    );
    // Without the parameter, and with a password.
    let cookie = sign_in(&provider, &gateway).session_cookie().unwrap();
    assert_eq!(log_out(&cookie, "").status, 204);
    let password = gateway.register("ann@example.com").cookie;
    let response = log_out(&password, "?provider=true");
    assert_eq!(response.data(), json!({ "logout_url": Value::Null }));
    assert!(is_ended(&gateway, &password));
}

#[test]
fn sign_out_at_the_provider_can_be_switched_off() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let pointer = format!("/identity/providers/{CORP}/logout");
    let config = alone(&provider, &upstream).set(&pointer, json!({ "at_provider": false }));
    let gateway = Gateway::start(config);
    let mut visitor = sign_in(&provider, &gateway);
    let cookie = visitor.session_cookie().unwrap();
    assert_eq!(submit(&mut visitor, &gateway).status, 200);
    assert!(is_ended(&gateway, &cookie));
}

#[test]
fn kept_id_token_is_a_hint() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let pointer = format!("/identity/providers/{CORP}/tokens");
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let config = alone(&provider, &upstream)
        .set(&pointer, json!({ "keep": true }))
        .set("/encryption", json!({ "key": key }));
    let gateway = Gateway::start(config);
    let mut visitor = sign_in(&provider, &gateway);
    let response = submit(&mut visitor, &gateway);
    assert_eq!(response.status, 303, "{response:?}");
    let parameters = parameters(response.header("location").unwrap());
    let claims = tokens::claims(&parameters["id_token_hint"]);
    assert_eq!(claims["sub"], "ann");
    assert!(!gateway.logs().contains(&parameters["id_token_hint"]));
}

#[test]
fn token_that_names_the_session_of_another_user_reveals_no_hint() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let pointer = format!("/identity/providers/{CORP}/tokens");
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let config = alone(&provider, &upstream)
        .set(&pointer, json!({ "keep": true }))
        .set("/encryption", json!({ "key": key }));
    let gateway = Gateway::start(config);
    let cookie = sign_in(&provider, &gateway).session_cookie().unwrap();
    let current = gateway.request(&Request::get("/api/v1/sessions/current").cookie(&cookie));
    let session = current.data()["id"].as_str().unwrap().to_owned();
    let log_out = |user: &str| {
        let now = tokens::now();
        let token = tokens::hs256(&json!({
            "iss": "portcullis", "aud": "portcullis", "sub": user, "sid": session, "jti": user,
            "iat": now - 120, "exp": now - 60,
        }));
        let request = Request::post("/api/v1/auth/logout?provider=true");
        let response =
            gateway.request(&request.header("Authorization", &format!("Bearer {token}")));
        assert_eq!(response.status, 200, "{}", response.text());
        response.data()["logout_url"].clone()
    };
    assert_eq!(log_out("corp:eve"), Value::Null);
    assert!(!is_ended(&gateway, &cookie));
    let url = log_out("corp:ann");
    assert!(parameters(url.as_str().unwrap()).contains_key("id_token_hint"));
    assert!(is_ended(&gateway, &cookie));
}

#[test]
fn unreachable_provider_keeps_no_session_alive() {
    let (provider, upstream, redis) = (Provider::start(), Upstream::start(), Redis::start());
    let config = alone(&provider, &upstream).store(&redis.url());
    let mut gateway = Gateway::start(config);
    let mut visitor = sign_in(&provider, &gateway);
    let cookie = visitor.session_cookie().unwrap();
    provider.stop();
    // A gateway that has never reached the provider.
    gateway.restart();
    let response = submit(&mut visitor, &gateway);
    assert_eq!(response.status, 200, "{response:?}");
    assert!(is_ended(&gateway, &cookie));
}
