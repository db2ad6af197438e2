//! Sign-in at a provider, from the page that was asked for and back to it.

use serde_json::json;
use url::Url;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::provider::{Endpoint, Provider, User};
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

/// A provider, and a gateway at which it is the only way to sign in.
pub(crate) struct Site {
    pub(crate) provider: Provider,
    pub(crate) gateway: Gateway,
    _upstream: Upstream,
}

impl Site {
    pub(crate) fn start() -> Site {
        Site::start_with(|config| config)
    }

    pub(crate) fn start_with(change: impl FnOnce(Config) -> Config) -> Site {
        let (provider, upstream) = (Provider::start(), Upstream::start());
        let config = provider.configure(site_config(&upstream));
        let gateway = Gateway::start(change(config));
        Site {
            provider,
            gateway,
            _upstream: upstream,
        }
    }

    pub(crate) fn url(&self, target: &str) -> Url {
        Url::parse(&format!("http://{}{target}", self.gateway.public)).unwrap()
    }

    pub(crate) fn start_url(&self, return_to: &str) -> String {
        self.provider.start_url(&self.gateway, return_to)
    }

    /// Goes to the provider, and stops before the callback.
    pub(crate) fn visit_provider(&self, visitor: &mut Visitor, return_to: &str) -> Url {
        let visit = visitor.follow(&self.start_url(return_to), |url| url.path() == CALLBACK);
        visit.hops.last().unwrap().clone()
    }
}

pub(crate) const CALLBACK: &str = "/api/v1/auth/callback/corp";

/// Without passwords, with routes that send browsers to sign in.
pub(crate) fn site_config(upstream: &Upstream) -> Config {
    Config::new(upstream.address)
        .set("/identity", json!({}))
        .set("/routes/0/on_unauthenticated", json!("redirect"))
}

#[test]
fn browser_is_sent_to_the_only_provider_and_back() {
    let site = Site::start();
    site.provider.set_user(
        User::new("ann-1")
            .claim("email", json!("ann@example.com"))
            .claim("name", json!("Ann")),
    );
    let mut visitor = Visitor::new();
    let visit = visitor.open(site.url("/private/a?b=c%2Fd").as_str());
    assert_eq!(visit.response.status, 200, "{visit:?}");
    assert_eq!(visit.url, site.url("/private/a?b=c%2Fd"));
    assert_eq!(visit.hops.len(), 4, "{:#?}", visit.hops);
    let echo = visit.response.echo();
    assert_eq!(echo.header("x-user-id").as_deref(), Some("corp:ann-1"));
    assert_eq!(
        echo.header("x-user-email").as_deref(),
        Some("ann@example.com")
    );
    assert_eq!(echo.header("x-session-id").map(|id| id.len()), Some(64));
    assert!(visitor.cookies("flow").is_empty());
    assert!(visitor.session_cookie().is_some());
}

#[test]
fn program_gets_401_and_no_cookie() {
    let site = Site::start();
    let html = "text/html,application/xhtml+xml";
    for (what, request) in [
        ("a program", Request::get("/private")),
        (
            "JSON",
            Request::get("/private").header("Accept", "application/json"),
        ),
        ("a POST", Request::post("/private").header("Accept", html)),
        (
            "a script",
            Request::get("/private")
                .header("Accept", html)
                .header("Sec-Fetch-Mode", "cors"),
        ),
        (
            "a prefetch",
            Request::get("/private")
                .header("Accept", html)
                .header("Sec-Fetch-Mode", "navigate")
                .header("Sec-Purpose", "prefetch;prerender"),
        ),
        (
            "credentials",
            Request::get("/private")
                .header("Accept", html)
                .header("Authorization", "Basic YTpi"),
        ),
        ("the page", Request::get("/api/v1/sign-in")),
    ] {
        let response = site.gateway.request(&request);
        assert_eq!(response.status, 401, "{what}");
        assert_eq!(response.header("location"), None, "{what}");
        assert!(response.all("set-cookie").is_empty(), "{what}");
    }
    assert!(site.provider.received(Endpoint::Authorization).is_empty());
}

#[test]
fn start_and_callback_have_their_headers() {
    let site = Site::start();
    let mut visitor = Visitor::new();
    let start = visitor.get(&site.url("/api/v1/auth/start/corp?return_to=%2Fprivate"));
    assert_eq!(start.status, 303);
    assert_eq!(start.header("cache-control"), Some("no-store"));
    assert_eq!(start.header("referrer-policy"), Some("no-referrer"));
    let cookie = start.header("set-cookie").unwrap();
    assert!(cookie.starts_with("portcullis-flow-"), "{cookie}");
    let attributes = format!("; HttpOnly; SameSite=Lax; Path={CALLBACK}; Max-Age=600");
    assert!(cookie.ends_with(&attributes), "{cookie}");
    let location = Url::parse(start.header("location").unwrap()).unwrap();
    let parameter = |name: &str| {
        let mut pairs = location.query_pairs();
        pairs
            .find(|(known, _)| known == name)
            .unwrap()
            .1
            .into_owned()
    };
    assert_eq!(parameter("response_type"), "code");
    assert_eq!(parameter("code_challenge_method"), "S256");
    assert_eq!(parameter("redirect_uri"), site.url(CALLBACK).as_str());
    for secret in ["state", "nonce", "code_challenge"] {
        assert_eq!(parameter(secret).len(), 43, "{secret}");
    }

    let callback = site.visit_provider(&mut visitor, "/private/x");
    let back = visitor.get(&callback);
    assert_eq!(
        (back.status, back.header("location")),
        (303, Some("/private/x"))
    );
    assert_eq!(back.header("cache-control"), Some("no-store"));
    assert_eq!(back.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(back.header("x-session-id").map(str::len), Some(64));
    let cookies = back.all("set-cookie");
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    assert!(cookies.iter().any(|it| it.starts_with("portcullis=")));
    let cleared = |it: &&str| it.starts_with("portcullis-flow-") && it.ends_with("Max-Age=0");
    assert!(cookies.iter().any(cleared), "{cookies:?}");
}

fn open_page(site: &Site, target: &str) -> Response {
    Visitor::new().get(&site.url(target))
}

#[test]
fn page_that_never_gets_the_cookie_is_no_loop() {
    let site = Site::start_with(|config| config.set("/sessions/cookie/path", json!("/other")));
    for target in ["/private/a", "/api/v1/sign-in?return_to=%2Fprivate"] {
        let page = open_page(&site, target);
        assert_eq!(page.status, 401, "{target}");
        assert!(page.text().contains("/api/v1/sign-in"), "{}", page.text());
    }
    let mut visitor = Visitor::new();
    let visit = visitor.open(&site.start_url("/private/a"));
    assert_eq!(visit.response.status, 401);
}

#[test]
fn third_party_starts_a_sign_in_at_the_issuer_it_names() {
    let site = Site::start();
    let encode =
        |text: &str| -> String { url::form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let start = |issuer: &str| {
        let page = encode(site.url("/private/x").as_str());
        let issuer = encode(issuer);
        format!("/api/v1/auth/start/corp?iss={issuer}&target_link_uri={page}")
    };
    for issuer in [
        "https://other.example",
        &format!("{}/", site.provider.issuer),
    ] {
        let refused = site.gateway.get(&start(issuer));
        refused.assert_refused(400, "VALIDATION_FAILED");
        assert!(refused.all("set-cookie").is_empty());
    }
    let own = site.url(&start(&site.provider.issuer));
    let visit = Visitor::new().open(own.as_str());
    assert_eq!(visit.response.status, 200, "{visit:?}");
    assert_eq!(visit.url, site.url("/private/x"));
}

#[test]
fn two_ways_to_sign_in_have_a_page() {
    let site = Site::start_with(|config| config.set("/identity/builtin", json!({})));
    let mut visitor = Visitor::new();
    let visit = visitor.open(site.url("/private/a").as_str());
    assert_eq!(visit.url.path(), "/api/v1/sign-in");
    assert_eq!(visit.response.status, 200);
    let start = "/api/v1/auth/start/corp?return_to=%2Fprivate%2Fa";
    assert!(visit.response.text().contains(start), "{visit:?}");
    let policy = visit.response.header("content-security-policy").unwrap();
    assert!(policy.contains(&site.provider.issuer), "{policy}");
    assert!(site.provider.received(Endpoint::Authorization).is_empty());
    // Both kinds of users keep to their own.
    let local = site.gateway.request(&Request::post("/api/v1/auth/login"));
    assert_eq!(local.status, 415);
}

/// A site whose provider is down.
fn site_of_unreachable_provider(change: impl FnOnce(Config) -> Config) -> Site {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    provider.stop();
    let config = provider.configure(site_config(&upstream));
    let gateway = Gateway::start(change(config));
    Site {
        provider,
        gateway,
        _upstream: upstream,
    }
}

#[test]
fn failed_sign_in_leads_to_other_ways_where_there_are_any() {
    let other = "/api/v1/sign-in?return_to=%2Fprivate%2Fa";
    for has_passwords in [false, true] {
        let site = site_of_unreachable_provider(|config| match has_passwords {
            true => config.set("/identity/builtin", json!({})),
            false => config,
        });
        let page = Visitor::new().open(&site.start_url("/private/a"));
        let text = page.response.text();
        assert!(text.contains("<h1>Sign-in failed</h1>"), "{text}");
        assert_eq!(
            text.contains("Other ways to sign in"),
            has_passwords,
            "{text}"
        );
        assert_eq!(
            text.contains(&format!("href=\"{other}\"")),
            has_passwords,
            "{text}"
        );
    }
}

#[test]
fn unreachable_provider_is_an_error_page_with_a_link() {
    let site = site_of_unreachable_provider(|config| config);
    let page = open_page(&site, "/private/a");
    assert_eq!(page.status, 503);
    let text = page.text();
    assert!(text.contains("PROVIDER_UNAVAILABLE"), "{text}");
    let again = "/api/v1/auth/start/corp?return_to=%2Fprivate%2Fa";
    assert!(text.contains(again), "{text}");
    assert!(page.header("retry-after").is_some());
    assert!(page.all("set-cookie").is_empty());
    let json = site.gateway.get("/api/v1/auth/start/corp");
    json.assert_refused(503, "PROVIDER_UNAVAILABLE");
    let start = &json.json()["error"]["start"];
    assert_eq!(start, "/api/v1/auth/start/corp?return_to=%2F");
}
