//! Flows of one browser: tabs, limits of flows, planted cookies, and callbacks of other flows.

use serde_json::json;
use url::Url;

use super::provider_sign_in::{CALLBACK, Site, site_config};
use crate::support::client::{Request, Response};
use crate::support::clock::Clock;
use crate::support::gateway::Gateway;
use crate::support::provider::{CORP, Endpoint, Provider, User};
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

/// What a callback leads to, without following it.
fn finish(visitor: &mut Visitor, callback: &Url) -> (u16, String) {
    let response = visitor.get(callback);
    let location = response.header("location").unwrap_or_default();
    (response.status, location.to_owned())
}

fn is_flow_invalid(response: &Response) -> bool {
    response.status == 400 && response.text().contains("FLOW_INVALID")
}

#[test]
fn each_tab_returns_to_its_own_page() {
    let site = Site::start();
    let mut visitor = Visitor::new();
    let pages = ["/private/1", "/private/2", "/private/3"];
    let callbacks = pages.map(|page| site.visit_provider(&mut visitor, page));
    for (page, callback) in pages.iter().zip(&callbacks).rev() {
        let back = finish(&mut visitor, callback);
        assert_eq!(back, (303, (*page).to_owned()));
    }
    assert!(visitor.cookies("flow").is_empty());
}

#[test]
fn sixth_flow_supersedes_the_first() {
    let site = Site::start();
    let mut visitor = Visitor::new();
    // A session makes it no back button: its flow is here.
    visitor.open(&site.start_url("/private/a"));
    let callbacks: Vec<Url> = (0..6)
        .map(|number| site.visit_provider(&mut visitor, &format!("/private/{number}")))
        .collect();
    assert_eq!(visitor.cookies("flow").len(), 6);
    let first = visitor.get(&callbacks[0]);
    assert!(is_flow_invalid(&first), "{first:?}");
    // It was cleared, and the others are left.
    assert_eq!(visitor.cookies("flow").len(), 5);
    for (number, callback) in callbacks.iter().enumerate().skip(1) {
        let back = finish(&mut visitor, callback);
        assert_eq!(back, (303, format!("/private/{number}")));
    }
    assert_eq!(site.provider.exchanges("authorization_code"), 6);
}

#[test]
fn callback_without_its_flow_redeems_nothing() {
    let site = Site::start();
    let (mut victim, mut attacker) = (Visitor::new(), Visitor::new());
    let own = site.visit_provider(&mut victim, "/private/own");
    let foreign = site.visit_provider(&mut attacker, "/private/foreign");
    // Sign-in of the victim as the attacker.
    assert!(is_flow_invalid(&victim.get(&foreign)));
    // Injection of the attacker's code into the victim's flow: the nonce and the verifier differ.
    let parameter = |url: &Url, name: &str| {
        let mut pairs = url.query_pairs();
        pairs
            .find(|(known, _)| known == name)
            .unwrap()
            .1
            .into_owned()
    };
    let mut injected = own.clone();
    injected
        .query_pairs_mut()
        .clear()
        .append_pair("state", &parameter(&own, "state"))
        .append_pair("code", &parameter(&foreign, "code"))
        .append_pair("iss", &site.provider.issuer);
    let refused = victim.get(&injected);
    assert!(is_flow_invalid(&refused), "{refused:?}");
    // The flow is over, whatever its outcome.
    assert!(is_flow_invalid(&victim.get(&own)));
    assert!(victim.session_cookie().is_none());
}

#[test]
fn callback_finishes_once_and_the_back_button_goes_on() {
    let site = Site::start();
    let mut visitor = Visitor::new();
    let callback = site.visit_provider(&mut visitor, "/private/a");
    assert_eq!(
        finish(&mut visitor, &callback),
        (303, "/private/a".to_owned())
    );
    let session = visitor.session_cookie();
    assert_eq!(finish(&mut visitor, &callback), (303, "/".to_owned()));
    assert_eq!(visitor.session_cookie(), session);
    assert_eq!(site.provider.exchanges("authorization_code"), 1);
    // Malformed callbacks are rejected even so.
    let twice = format!("{callback}&state=x");
    assert!(is_flow_invalid(&visitor.get(&Url::parse(&twice).unwrap())));
    // Without the session, it is a replay.
    visitor.lose_cookies("portcullis");
    assert!(is_flow_invalid(&visitor.get(&callback)));
}

#[test]
fn head_redeems_nothing() {
    let site = Site::start();
    let mut visitor = Visitor::new();
    let callback = site.visit_provider(&mut visitor, "/private/a");
    let target = format!("{}?{}", callback.path(), callback.query().unwrap());
    let head = visitor.send(&callback, Request::new("HEAD", &target));
    assert_eq!(head.status, 405);
    assert!(site.provider.received(Endpoint::Token).is_empty());
    assert_eq!(
        finish(&mut visitor, &callback),
        (303, "/private/a".to_owned())
    );
    let start = Request::new("HEAD", "/private/b")
        .header("Accept", "text/html")
        .header("Sec-Fetch-Mode", "navigate");
    let start = site.gateway.request(&start);
    assert_eq!(start.status, 303);
    let location = start.header("location").unwrap();
    assert!(location.starts_with(&site.provider.issuer), "{location}");
}

#[test]
fn flow_of_one_provider_is_none_of_another() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let config = provider.configure(site_config(&upstream));
    let mut other = provider.settings();
    other["user_prefix"] = json!("other:");
    let config = config.set("/identity/providers/other", other);
    let gateway = Gateway::start(config);
    let mut visitor = Visitor::new();
    let start = provider.start_url(&gateway, "/private");
    let callback = visitor.follow(&start, |url| url.path() == CALLBACK);
    let callback = callback.hops.last().unwrap().clone();
    let cookie = visitor.cookie_header(&callback);
    let mixed = callback.as_str().replace(CORP, "other");
    let mixed = Url::parse(&mixed).unwrap();
    let target = format!("{}?{}", mixed.path(), mixed.query().unwrap());
    // The browser would not send it there: it is sent by hand.
    let refused = gateway.request(&Request::get(&target).cookie(&cookie));
    refused.assert_refused(400, "FLOW_INVALID");
    assert!(provider.received(Endpoint::Token).is_empty());
}

#[test]
fn planted_cookies_do_not_hide_a_flow() {
    let site = Site::start();
    let mut visitor = Visitor::new();
    let callback = site.visit_provider(&mut visitor, "/private/a");
    let own = visitor.cookie_header(&callback);
    let (name, _) = own.split_once('=').unwrap();
    let target = format!("{}?{}", callback.path(), callback.query().unwrap());
    let planted = format!("{name}=AAAA; {own}; {name}=x; portcullis-flow-zz=1");
    let response = site
        .gateway
        .request(&Request::get(&target).cookie(&planted));
    assert_eq!(response.header("location"), Some("/private/a"));
}

#[test]
fn no_upstream_sets_or_sees_a_flow() {
    let site = Site::start();
    let mut visitor = Visitor::new();
    site.visit_provider(&mut visitor, "/private/a");
    let own = visitor.cookies("flow").remove(0);
    let pair = own.split(';').next().unwrap();
    let respelled = pair.replace("portcullis-flow", "Portcullis-Flow");
    for cookie in [pair, &respelled, &format!("__Secure-{pair}")] {
        let request = Request::get("/public").cookie(&format!("a=1; {cookie}; b=2"));
        let echo = site.gateway.request(&request).echo();
        assert_eq!(
            echo.header("cookie").as_deref(),
            Some("a=1; b=2"),
            "{cookie}"
        );
    }
}

#[test]
fn flow_ends_after_ten_minutes() {
    let clock = Clock::start();
    let site = Site::start_with(|config| config.clock(&clock));
    let mut visitor = Visitor::new();
    let callback = site.visit_provider(&mut visitor, "/private/a");
    clock.step(11 * 60);
    assert!(is_flow_invalid(&visitor.get(&callback)));
    assert!(visitor.cookies("flow").is_empty());
    assert!(site.provider.received(Endpoint::Token).is_empty());
}

#[test]
fn rotation_and_reload_lose_no_flow() {
    let mut site = Site::start();
    let mut visitor = Visitor::new();
    let callback = site.visit_provider(&mut visitor, "/private/a");
    site.gateway.reload("applied", |config| {
        let old = config.file["tokens"]["signing"].clone();
        config.put("/tokens/verify_also", json!([old]));
        let secret = "another-hmac-secret-for-tests-0123456789";
        let new = json!({ "algorithm": "HS256", "secret": secret });
        config.put("/tokens/signing", new);
        config.put("/identity/providers/corp/title", json!("Example Corp"));
    });
    assert_eq!(
        finish(&mut visitor, &callback),
        (303, "/private/a".to_owned())
    );
}

#[test]
fn sign_in_replaces_the_session_of_the_same_user_only() {
    let site = Site::start();
    let mut visitor = Visitor::new();
    visitor.open(&site.start_url("/private/a"));
    let first = visitor.session_cookie().unwrap();
    visitor.open(&site.start_url("/private/b"));
    let second = visitor.session_cookie().unwrap();
    assert_ne!(first, second);
    let with = |cookie: &str| Request::get("/private").cookie(cookie);
    site.gateway
        .request(&with(&first))
        .assert_refused(401, "SESSION_REVOKED");
    site.provider.set_user(User::new("other"));
    visitor.open(&site.start_url("/private/c"));
    assert_eq!(site.gateway.request(&with(&second)).status, 200);
}
