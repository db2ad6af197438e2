//! The sign-in page, byte by byte: when it is shown, what it accepts, and what it refuses.

use serde_json::json;

use crate::support::client::{Client, Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::http2::Http2;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

const ACCEPT: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn config() -> Config {
    Config::new(Upstream::start().address).set("/routes/0/on_unauthenticated", json!("redirect"))
}

fn gateway() -> Gateway {
    let gateway = Gateway::start(config());
    gateway.register("ann@example.com");
    gateway
}

fn form(path: &str, fields: &[(&str, &str)]) -> Request {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(fields);
    Request::post(&format!("/api/v1{path}"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(body.finish())
}

/// A right sign-in, as a browser sends it from the page.
fn sign_in(return_to: &str) -> Request {
    let fields = [
        ("login", "ann@example.com"),
        ("password", PASSWORD),
        ("return_to", return_to),
    ];
    form("/sign-in", &fields).header("Origin", "http://localhost")
}

fn session_cookie(response: &Response) -> Option<String> {
    let cookies = response.all("set-cookie");
    let own = cookies
        .iter()
        .find(|cookie| cookie.starts_with("portcullis=") && !cookie.contains("Max-Age=0"));
    own.map(|cookie| cookie.split(';').next().unwrap().to_owned())
}

/// What every page promises.
#[track_caller]
fn page(response: &Response, status: u16) -> String {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    let header = |name| response.header(name).unwrap_or_default().to_owned();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("x-content-type-options"), "nosniff");
    let policy = header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(text.contains("<html lang=\"en\">") && !text.contains("<script"));
    text
}

#[test]
fn only_page_navigation_redirects_to_sign_in() {
    let gateway = gateway();
    let open = || Request::get("/private/a?b=c&d").header("Accept", ACCEPT);
    let response = gateway.request(&open());
    assert_eq!(response.status, 303);
    assert_eq!(
        response.header("location"),
        Some("/api/v1/sign-in?return_to=%2Fprivate%2Fa%3Fb%3Dc%26d")
    );
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(
        gateway
            .request(&open().header("Sec-Fetch-Mode", "navigate"))
            .status,
        303
    );
    let head = Request::new("HEAD", "/private/a").header("Accept", ACCEPT);
    assert_eq!(gateway.request(&head).status, 303);
    // A session that has ended is one to replace; the cookie goes.
    let stale = format!("portcullis={}", "0".repeat(64));
    let response = gateway.request(&open().cookie(&stale));
    assert_eq!(response.status, 303);
    assert!(
        response
            .all("set-cookie")
            .iter()
            .any(|cookie| cookie.contains("Max-Age=0"))
    );
    for (what, request) in [
        ("a program", Request::get("/private/a")),
        (
            "anything",
            Request::get("/private/a").header("Accept", "*/*"),
        ),
        ("a script", open().header("Sec-Fetch-Mode", "cors")),
        (
            "a form",
            Request::post("/private/a")
                .header("Accept", ACCEPT)
                .body(""),
        ),
        ("a token", open().bearer("a.b.c")),
        (
            "another route",
            Request::get("/optional/a")
                .header("Accept", ACCEPT)
                .bearer("a.b.c"),
        ),
    ] {
        assert_eq!(gateway.request(&request).status, 401, "{what}");
    }
    let long = Request::get(&format!("/private/{}", "a".repeat(4000))).header("Accept", ACCEPT);
    assert_eq!(
        gateway.request(&long).header("location"),
        Some("/api/v1/sign-in?return_to=%2F")
    );
}

#[test]
fn sign_in_returns_to_this_origin_only() {
    let gateway = gateway();
    let response = gateway.request(&sign_in("/private/a?b=c"));
    assert_eq!(response.status, 303, "{}", response.text());
    assert_eq!(response.header("location"), Some("/private/a?b=c"));
    let cookie = session_cookie(&response).unwrap();
    gateway
        .request(&Request::get("/private/a").cookie(&cookie))
        .assert_ok();
    for trick in [
        "//evil.example",
        "/\\evil.example",
        "https:evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "/%0d%0aSet-Cookie:x=y\u{e9}",
        "",
    ] {
        let response = gateway.request(&sign_in(trick));
        assert_eq!(
            (response.status, response.header("location")),
            (303, Some("/")),
            "{trick}"
        );
    }
    // The same holds on the way there, for a signed-in user (the first session was evicted).
    let cookie = session_cookie(&gateway.request(&sign_in("/"))).unwrap();
    for (query, target) in [
        ("?return_to=%2Fprivate%2Fa", "/private/a"),
        ("?return_to=%2F%2Fevil.example", "/"),
        ("?return_to=%2F%5Cevil.example", "/"),
        ("?return_to=https%3Aevil.example", "/"),
        ("?return_to=/%09/evil.example", "/"),
        ("", "/"),
    ] {
        let open = Request::get(&format!("/api/v1/sign-in{query}")).cookie(&cookie);
        let response = gateway.request(&open);
        assert_eq!(
            (response.status, response.header("location")),
            (303, Some(target)),
            "{query}"
        );
    }
}

#[test]
fn failed_sign_in_shows_the_page_again() {
    let config = config().set(
        "/identity/builtin/sign_in_limits/failures_per_account",
        json!({ "limit": 2, "window": "10m" }),
    );
    let gateway = Gateway::start(config);
    gateway.register("ann@example.com");
    let wrong = |login: &str| {
        let fields = [
            ("login", login),
            ("password", "wrong"),
            ("return_to", "/private/x"),
        ];
        gateway.request(&form("/sign-in", &fields).same_origin())
    };
    let hostile = wrong("\"><script>alert(1)</script>");
    let text = page(&hostile, 401);
    assert!(text.contains("&quot;&gt;&lt;script&gt;alert(1)"), "{text}");
    let response = wrong("ann@example.com");
    let text = page(&response, 401);
    assert!(text.contains("role=\"alert\"") && text.contains("The name or the password is wrong."));
    assert!(
        text.contains("value=\"/private/x\"") && !text.contains("\"wrong\""),
        "{text}"
    );
    assert!(
        response
            .header("www-authenticate")
            .unwrap()
            .starts_with("Bearer")
    );
    assert!(session_cookie(&response).is_none());
    page(&wrong("ann@example.com"), 401);
    let limited = wrong("ann@example.com");
    assert!(page(&limited, 429).contains("Too many attempts"));
    assert!(limited.numeric_header("retry-after") > 0);
    limited.numeric_header("x-ratelimit-limit");
    let twice = [("login", "a"), ("login", "b"), ("password", "c")];
    gateway
        .request(&form("/sign-in", &twice).same_origin())
        .assert_refused(400, "VALIDATION_FAILED");
}

#[test]
fn cross_site_form_is_refused() {
    let gateway = gateway();
    let fields = [("login", "ann@example.com"), ("password", PASSWORD)];
    let bare = || form("/sign-in", &fields);
    for (what, request) in [
        (
            "another origin",
            bare().header("Origin", "http://evil.example"),
        ),
        ("none that it says", bare().header("Origin", "null")),
        (
            "another site",
            bare().header("Sec-Fetch-Site", "cross-site"),
        ),
        ("a neighbour", bare().header("Sec-Fetch-Site", "same-site")),
        ("a silent browser without the page's secret", bare()),
    ] {
        let response = gateway.request(&request);
        page(&response, 403);
        assert!(session_cookie(&response).is_none(), "{what}");
    }
    for kind in [
        "text/plain",
        "application/json",
        "multipart/form-data; boundary=x",
    ] {
        let other = Request::post("/api/v1/sign-in")
            .header("Content-Type", kind)
            .same_origin()
            .body("login=ann%40example.com&password=x");
        assert_eq!(gateway.request(&other).status, 415, "{kind}");
    }
    // A silent browser brings back what the page gave it.
    let shown = gateway.get("/api/v1/sign-in");
    let text = page(&shown, 200);
    let (_, rest) = text.split_once("name=\"token\" value=\"").unwrap();
    let token = &rest[..64];
    let cookie = shown.header("set-cookie").unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    let mut with_token = fields.to_vec();
    with_token.push(("token", token));
    let response = gateway.request(&form("/sign-in", &with_token).cookie(pair));
    assert_eq!(response.status, 303, "{}", response.text());
    page(&gateway.request(&form("/sign-in", &with_token)), 403);
    page(
        &gateway.request(&form("/sign-in", &fields).cookie(pair)),
        403,
    );
    // The form in another of its tabs has the same, so that both are good.
    let second = gateway.request(&Request::get("/api/v1/sign-in").cookie(pair));
    assert!(page(&second, 200).contains(token));
    // Browsers of today get none.
    let modern = gateway.request(&Request::get("/api/v1/sign-in").header("Sec-Fetch-Site", "none"));
    assert!(modern.header("set-cookie").is_none());
}

#[test]
fn sign_out_requires_a_post() {
    let gateway = gateway();
    let cookie = session_cookie(&gateway.request(&sign_in("/"))).unwrap();
    let private = || gateway.request(&Request::get("/private/a").cookie(&cookie));
    let shown = gateway.request(&Request::get("/api/v1/sign-out").cookie(&cookie));
    assert!(page(&shown, 200).contains("<button"));
    let foreign = form("/sign-out", &[]).header("Origin", "http://evil.example");
    page(&gateway.request(&foreign.cookie(&cookie)), 403);
    private().assert_ok();
    let out = form("/sign-out", &[]).cookie(&cookie).same_origin();
    let response = gateway.request(&out);
    assert!(page(&response, 200).contains("You are signed out"));
    assert!(
        response
            .all("set-cookie")
            .iter()
            .any(|cookie| cookie.contains("Max-Age=0"))
    );
    private().assert_refused(401, "SESSION_REVOKED");
    page(&gateway.request(&out), 200);
    assert!(page(&gateway.get("/api/v1/sign-out"), 200).contains("You are signed out"));
}

#[test]
fn store_outage_is_shown_on_the_page() {
    let mut redis = Redis::start();
    let gateway = Gateway::start(config().store(&redis.url()));
    gateway.register("ann@example.com");
    let cookie = session_cookie(&gateway.request(&sign_in("/"))).unwrap();
    redis.kill();
    let response = gateway.request(&sign_in("/"));
    assert!(page(&response, 503).contains("does not work at the moment"));
    response.numeric_header("retry-after");
    let out = form("/sign-out", &[]).cookie(&cookie).same_origin();
    let response = gateway.request(&out);
    page(&response, 503);
    assert!(response.header("set-cookie").is_none(), "the cookie stays");
    // A page that needs a session returns 503 without a redirect.
    let open = Request::get("/private/a")
        .header("Accept", ACCEPT)
        .cookie(&cookie);
    assert_eq!(gateway.request(&open).status, 503);
}

#[test]
fn pages_follow_the_api_prefix() {
    let upstream = Upstream::start();
    let config = || {
        Config::new(upstream.address).route(json!({
            "name": "rest", "auth": "none", "upstream": "echo",
        }))
    };
    let gateway = Gateway::start(config());
    assert!(page(&gateway.get("/api/v1/sign-in"), 200).contains("<form"));
    assert!(page(&gateway.get("/api/v1/sign-out"), 200).contains("You are signed out"));
    let http2 = Http2::connect(gateway.public);
    for path in ["/api/v1/sign-in", "/api/v1/sign-out"] {
        assert_eq!(http2.request("GET", path, &[]).0, 200, "{path}");
    }
    let without = Gateway::start(config().set("/api", json!(null)));
    let target = "/api/v1/sign-in";
    assert_eq!(without.get(target).echo().target(), target);
}

#[test]
fn form_may_return_to_allowed_origins() {
    let origins = json!(["https://app.example", "http://localhost:3000"]);
    let gateway = Gateway::start(config().set("/api/allowed_origins", origins));
    for path in ["/api/v1/sign-in", "/api/v1/sign-out"] {
        let shown = gateway.get(path);
        let policy = shown.header("content-security-policy").unwrap();
        let named = "form-action 'self' https://app.example http://localhost:3000;";
        assert!(policy.contains(named), "{policy}");
    }
}

#[test]
fn missing_cookie_is_explained_on_the_page() {
    let gateway = gateway();
    let open = |referer: &str, cookie: &str| {
        let request = Request::get("/api/v1/sign-in?return_to=%2Fprivate%2Fa");
        let request = request.header("Referer", referer);
        gateway.request(&match cookie {
            "" => request,
            cookie => request.cookie(cookie),
        })
    };
    let reported = |response: &Response| page(response, 200).contains("did not keep the cookie");
    let from = "http://localhost/api/v1/sign-in?return_to=%2Fprivate%2Fa";
    assert!(reported(&open(from, "")));
    let ended = format!("portcullis={}", "0".repeat(64));
    assert!(!reported(&open(from, &ended)), "the cookie came");
    for elsewhere in [
        "http://localhost/private/a",
        "http://other.example/api/v1/sign-in",
        "http://localhost/api/v1/sign-out",
        "nonsense",
    ] {
        assert!(!reported(&open(elsewhere, "")), "{elsewhere}");
    }
}

#[test]
fn error_page_offers_the_next_step() {
    let limit = json!({ "algorithm": "sliding_window", "limit": 1, "window": "10m", "key": "ip" });
    let config = Config::new(Upstream::start().address)
        .set("/limits/few", limit)
        .set("/routes/2/limits", json!(["few"]));
    let gateway = Gateway::start(config);
    let open = |path: &str| gateway.request(&Request::get(path).header("Accept", ACCEPT));
    let refused = open("/private/a?b=c");
    let text = error_page(&refused, 401);
    let address = "href=\"/api/v1/sign-in?return_to=%2Fprivate%2Fa%3Fb%3Dc\"";
    assert!(text.contains(address), "{text}");
    let limited = open("/public/a");
    assert_eq!(limited.status, 200);
    let limited = open("/public/a");
    let text = error_page(&limited, 429);
    let wait = limited.numeric_header("retry-after");
    assert!(
        text.contains(&format!("try again in {wait} second")),
        "{text}"
    );
    assert!(!text.contains("sign-in"), "{text}");
    assert!(!text.contains("Too many requests."), "the heading: {text}");
    error_page(&open("/nowhere"), 404);
    // Without endpoints there is nowhere to sign in.
    let config = Config::new(Upstream::start().address).set("/api", json!(null));
    let without = Gateway::start(config);
    let refused = without.request(&Request::get("/private/a").header("Accept", ACCEPT));
    assert!(!error_page(&refused, 401).contains("<a "));
}

/// What every page of an error promises.
#[track_caller]
fn error_page(response: &Response, status: u16) -> String {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    let policy = response.header("content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "style-src 'sha256-",
        "form-action 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    for part in [
        "<meta name=\"viewport\"",
        "<style>",
        "prefers-color-scheme:dark",
        "<main>",
        "<html lang=\"en\">",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("<script"), "{text}");
    text
}

#[test]
fn head_response_matches_get() {
    let gateway = gateway();
    let mut client = Client::connect(gateway.public);
    let target = "/api/v1/sign-in";
    client.send(Request::new("HEAD", target).to_bytes());
    let head = client.read_response_to("HEAD").unwrap();
    let whole = client.request(&Request::get(target));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        head.numeric_header("content-length"),
        whole.body.len() as u64
    );
}
