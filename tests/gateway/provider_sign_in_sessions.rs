//! The session of a user of a provider, and what its user may do.

use serde_json::json;

use super::provider_sign_in::{Site, site_config};
use crate::support::client::{Request, Response};
use crate::support::gateway::Gateway;
use crate::support::provider::{CORP, Provider, User};
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

/// A signed-in browser, by its session cookie.
struct Signed {
    cookie: String,
    id: String,
}

fn sign_in(site: &Site) -> Signed {
    let mut visitor = Visitor::new();
    let visit = visitor.open(&site.start_url("/private/a"));
    let echo = visit.response.echo();
    Signed {
        cookie: visitor.session_cookie().unwrap(),
        id: echo.header("x-session-id").unwrap(),
    }
}

impl Signed {
    fn call(&self, site: &Site, request: Request) -> Response {
        site.gateway
            .request(&request.cookie(&self.cookie).same_origin())
    }
}

#[test]
fn session_shows_its_sign_in() {
    let site = Site::start();
    let signed = sign_in(&site);
    let session = signed
        .call(&site, Request::get("/api/v1/sessions/current"))
        .data();
    assert_eq!(session["id"], json!(signed.id));
    assert_eq!(session["provider"], json!(CORP));
    assert!(session["user_id"].as_str().unwrap().starts_with("corp:"));
    assert!(session["authenticated_at"].is_string());
}

#[test]
fn profile_is_what_the_session_knows_and_is_changed_at_the_provider() {
    let site = Site::start();
    site.provider.set_user(User::new("ann"));
    let signed = sign_in(&site);
    let profile = signed.call(&site, Request::get("/api/v1/profile")).data();
    assert_eq!(profile["id"], "corp:ann");
    assert_eq!(profile["email"], "ann@example.com");
    assert_eq!(profile["name"], "ann");
    let password = json!({ "current_password": "a", "new_password": "correct horse battery" });
    for request in [
        Request::new("PUT", "/api/v1/profile").json(&json!({ "name": "Other" })),
        Request::new("PUT", "/api/v1/profile/password").json(&password),
        Request::delete("/api/v1/profile/avatar"),
    ] {
        signed.call(&site, request).assert_refused(403, "FORBIDDEN");
    }
}

#[test]
fn all_sessions_of_a_provider_user_end_together() {
    let site = Site::start();
    site.provider.set_user(User::new("ann"));
    let (one, other) = (sign_in(&site), sign_in(&site));
    let path = "/admin/users/corp:ann/sessions";
    let revoked = site.gateway.admin(Request::delete(path)).data();
    assert_eq!(revoked["revoked"], 2);
    for signed in [&one, &other] {
        let refused = signed.call(&site, Request::get("/private"));
        refused.assert_refused(401, "SESSION_REVOKED");
    }
    let (one, other) = (sign_in(&site), sign_in(&site));
    let everywhere = one.call(&site, Request::post("/api/v1/auth/logout-all"));
    assert_eq!(everywhere.data()["revoked"], 2);
    let refused = other.call(&site, Request::get("/private"));
    refused.assert_refused(401, "SESSION_REVOKED");
}

#[test]
fn session_ends_with_its_own_lifetime() {
    let site = Site::start_with(|config| {
        let config = config.set("/identity/providers/corp/session_ttl", json!("90s"));
        config.set("/sessions/max_per_user", json!(1))
    });
    let mut visitor = Visitor::new();
    visitor.open(&site.start_url("/private/a"));
    let line = visitor.cookies("portcullis").remove(0);
    assert!(line.ends_with("Max-Age=90"), "{line}");
    // The limit of sessions holds for users of providers, too.
    let other = sign_in(&site);
    let first = visitor.session_cookie().unwrap();
    let refused = site
        .gateway
        .request(&Request::get("/private").cookie(&first));
    refused.assert_refused(401, "SESSION_REVOKED");
    assert_eq!(other.call(&site, Request::get("/private")).status, 200);
}

#[test]
fn full_user_is_not_signed_in() {
    let site = Site::start_with(|config| {
        let config = config.set("/sessions/max_per_user", json!(1));
        config.set("/sessions/on_limit", json!("reject"))
    });
    sign_in(&site);
    let mut visitor = Visitor::new();
    let page = visitor.open(&site.start_url("/private/a"));
    assert_eq!(page.response.status, 429);
    assert!(page.response.text().contains("SESSION_LIMIT_REACHED"));
    assert!(visitor.session_cookie().is_none());
    assert!(visitor.cookies("flow").is_empty());
}

#[test]
fn sign_ins_and_failures_are_counted_and_recorded() {
    let site = Site::start();
    let signed = sign_in(&site);
    site.provider
        .vary_callback(|callback| callback.refuse("access_denied"));
    let mut visitor = Visitor::new();
    let page = visitor.open(&site.start_url("/private/a"));
    assert_eq!(page.response.status, 403);
    let text = page.response.text();
    assert!(text.contains("SIGN_IN_REFUSED"), "{text}");
    let again = "/api/v1/auth/start/corp?return_to=%2Fprivate%2Fa";
    assert!(text.contains(again), "{text}");
    let count = |outcome: &str| {
        let labels = ["method=\"corp\"", &format!("outcome=\"{outcome}\"")];
        site.gateway.metric("portcullis_sign_ins_total", &labels)
    };
    assert_eq!(count("ok"), 1.0);
    assert_eq!(count("sign_in_refused"), 1.0);
    assert_eq!(count("flow_invalid"), 0.0);
    let log = site
        .gateway
        .wait_for_log("the provider reported access_denied");
    assert!(log.contains("\"provider\":\"corp\""), "{log}");
    let events = site.gateway.events();
    let event = events
        .iter()
        .find(|event| event["event"] == "sign_in")
        .unwrap();
    assert_eq!(event["provider"], CORP);
    assert_eq!(event["session_id"], json!(signed.id));
}

#[test]
fn starts_and_callbacks_are_attempts_of_their_address() {
    let site = Site::start_with(|config| {
        let limits = json!({ "attempts_per_address": { "limit": 3, "window": "10m" } });
        config.set("/identity/sign_in_limits", limits)
    });
    let mut visitor = Visitor::new();
    visitor.open(&site.start_url("/private/a"));
    let third = site.gateway.get("/api/v1/auth/start/corp");
    assert_eq!(third.status, 303);
    assert_eq!(third.header("x-ratelimit-remaining"), Some("0"));
    let fourth = site.gateway.get("/api/v1/auth/start/corp");
    fourth.assert_refused(429, "RATE_LIMITED");
    assert!(fourth.all("set-cookie").is_empty());
    // A signed-in browser goes on.
    let cookie = visitor.session_cookie().unwrap();
    let page = site
        .gateway
        .request(&Request::get("/private").cookie(&cookie));
    assert_eq!(page.status, 200);
}

#[test]
fn providers_are_listed_for_an_application() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let config = provider.configure(site_config(&upstream));
    let gateway = Gateway::start(config.set("/identity/providers/corp/title", json!("Corp Inc")));
    let listed = gateway.get("/api/v1/auth/providers").data();
    let start = "/api/v1/auth/start/corp";
    assert_eq!(
        listed,
        json!([{ "name": "corp", "title": "Corp Inc", "start": start }])
    );
    gateway
        .get("/api/v1/auth/start/unknown")
        .assert_refused(404, "NOT_FOUND");
    for (query, field) in [
        ("iss=https%3A%2F%2Fother.example", "iss"),
        ("max_age=soon", "max_age"),
        ("return_to=a&return_to=b", "return_to"),
    ] {
        let refused = gateway.get(&format!("{start}?{query}"));
        refused.assert_refused(400, "VALIDATION_FAILED");
        assert!(
            refused.json()["error"]["fields"][field].is_string(),
            "{query}"
        );
    }
    let known = url::form_urlencoded::byte_serialize(provider.issuer.as_bytes());
    let third_party = format!("{start}?iss={}", known.collect::<String>());
    assert_eq!(gateway.get(&third_party).status, 303);
}

#[test]
fn strict_cookie_is_sent_from_a_page_of_the_gateway() {
    let site = Site::start_with(|config| config.set("/sessions/cookie/same_site", json!("strict")));
    let mut visitor = Visitor::new();
    let page = visitor.open(&site.start_url("/private/a"));
    assert_eq!(page.response.status, 200);
    assert_eq!(page.url.path(), super::provider_sign_in::CALLBACK);
    let text = page.response.text();
    let refresh = "<meta http-equiv=\"refresh\" content=\"0;url=/private/a\">";
    assert!(text.contains(refresh), "{text}");
    assert!(!text.contains("<script"), "{text}");
    assert!(visitor.session_cookie().is_some());
    assert_eq!(page.response.header("referrer-policy"), Some("no-referrer"));
}

#[test]
fn visitor_who_signed_out_is_not_signed_in_at_once() {
    let site = Site::start();
    let signed = sign_in(&site);
    let out = signed.call(
        &site,
        Request::post("/api/v1/sign-out")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Accept", "text/html")
            .body("token="),
    );
    let page = match out.header("location") {
        // By way of the provider.
        Some(_) => site
            .gateway
            .request(&Request::get("/api/v1/sign-out").header("Accept", "text/html")),
        None => out,
    };
    assert_eq!(page.status, 200);
    let link = "/api/v1/auth/start/corp?prompt=login";
    assert!(page.text().contains(link), "{}", page.text());
}
