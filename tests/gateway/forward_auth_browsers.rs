//! Browsers behind front proxies: sign-in, preflights, WebSockets and cookies.

use serde_json::json;

use crate::support::calls::Dialect;
use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::ext_authz::Query;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const ACCEPT: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

struct Fixture {
    gateway: Gateway,
    _upstream: Upstream,
}

fn fixture(vary: impl FnOnce(Config) -> Config) -> Fixture {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).forward_auth();
    let config = config.set("/routes/0/on_unauthenticated", json!("redirect"));
    Fixture {
        gateway: Gateway::start(vary(config)),
        _upstream: upstream,
    }
}

impl Fixture {
    fn open(&self, dialect: Dialect, target: &str) -> Response {
        self.gateway
            .query(&dialect.get(target).header("Accept", ACCEPT))
    }

    #[track_caller]
    fn assert_leads_to(&self, target: &str, location: &str) {
        for dialect in Dialect::ALL {
            let response = self.open(dialect, target);
            assert_eq!(response.status, dialect.status(303), "{response:?}");
            assert_eq!(response.header("location"), Some(location), "{dialect:?}");
            assert_eq!(
                response.header("x-portcullis-code"),
                Some("UNAUTHENTICATED")
            );
            assert_eq!(response.header("cache-control"), Some("no-store"));
            assert!(response.header("www-authenticate").is_some(), "{dialect:?}");
        }
    }
}

#[test]
fn browser_is_sent_to_the_sign_in_page_of_the_requested_host() {
    let fixture = fixture(|config| config);
    fixture.assert_leads_to(
        "/private/a?b=c",
        "https://shop.example/api/v1/sign-in?return_to=%2Fprivate%2Fa%3Fb%3Dc",
    );
    for dialect in Dialect::ALL {
        // Programs receive an error.
        let program = fixture.gateway.query(&dialect.get("/private/a"));
        program.assert_denied(dialect, 401, "UNAUTHENTICATED");
        assert_eq!(program.header("location"), None);
    }
}

#[test]
fn sign_in_page_of_another_host_returns_to_listed_hosts_by_their_url() {
    let fixture = fixture(|config| {
        config
            .set("/api/public_url", json!("https://login.example"))
            .set("/api/return_hosts", json!(["shop.example"]))
    });
    fixture.assert_leads_to(
        "/private/a",
        "https://login.example/api/v1/sign-in?return_to=https%3A%2F%2Fshop%2Eexample%2Fprivate%2Fa",
    );
}

#[test]
fn sign_in_page_of_another_host_does_not_return_to_other_hosts() {
    let fixture = fixture(|config| config.set("/api/public_url", json!("https://login.example")));
    fixture.assert_leads_to(
        "/private/a",
        "https://login.example/api/v1/sign-in?return_to=%2F",
    );
}

#[test]
fn sign_in_page_may_be_the_backends() {
    let page = json!({ "name": "login", "match": { "prefix": "/login" }, "upstream": "echo",
        "on_unauthenticated": "redirect" });
    let fixture = fixture(|config| {
        config
            .route(page)
            .set("/forward_auth/sign_in_url", json!("/login"))
            .set("/routes/1/on_unauthenticated", json!("redirect"))
    });
    fixture.assert_leads_to("/private/a", "/login?return_to=%2Fprivate%2Fa");
    // It is not redirected to itself.
    for dialect in Dialect::ALL {
        let response = fixture.open(dialect, "/login");
        response.assert_denied(dialect, 401, "UNAUTHENTICATED");
    }
}

#[test]
fn preflight_passes_as_anonymous() {
    let fixture = fixture(|config| {
        config.set(
            "/routes/0/cors",
            json!({ "origins": ["https://app.example"], "methods": ["PUT"] }),
        )
    });
    for dialect in Dialect::ALL {
        let preflight = dialect
            .call("OPTIONS", "/private/a")
            .header("Origin", "https://app.example")
            .header("Access-Control-Request-Method", "PUT");
        let response = fixture.gateway.query(&preflight);
        response.assert_allowed(dialect);
        assert_eq!(response.all("x-user-id"), [""]);
        let other = dialect.call("OPTIONS", "/private/a");
        let other = fixture.gateway.query(&other);
        other.assert_denied(dialect, 401, "UNAUTHENTICATED");
    }
}

#[test]
fn websocket_of_another_origin_is_refused() {
    let fixture = fixture(|config| config);
    let alice = fixture.gateway.register("alice@example.com");
    for dialect in Dialect::ALL {
        let upgrade = || {
            dialect
                .get("/private/ws")
                .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        };
        for (call, origin, allowed) in [
            (
                upgrade().cookie(&alice.cookie),
                "https://evil.example",
                false,
            ),
            (
                upgrade().cookie(&alice.cookie),
                "https://shop.example",
                true,
            ),
            (
                upgrade().bearer(&alice.access_token),
                "https://evil.example",
                true,
            ),
            // By HTTP/2, there is no key.
            (
                dialect
                    .get("/private/ws")
                    .header("Sec-WebSocket-Version", "13")
                    .cookie(&alice.cookie),
                "https://evil.example",
                false,
            ),
            (
                dialect.get("/private/a").cookie(&alice.cookie),
                "https://evil.example",
                true,
            ),
        ] {
            let response = fixture.gateway.query(&call.header("Origin", origin));
            match allowed {
                true => response.assert_allowed(dialect),
                false => response.assert_denied(dialect, 403, "CSRF_REJECTED"),
            };
        }
    }
}

#[test]
fn credentials_are_returned_as_an_upstream_would_receive_them() {
    let fixture = fixture(|config| config.set("/forward_auth/return_credentials", json!(true)));
    let alice = fixture.gateway.register("alice@example.com");
    for dialect in Dialect::ALL {
        for (call, cookie, authorization) in [
            (dialect.get("/private/a").cookie(&alice.cookie), "", ""),
            (
                dialect
                    .get("/private/a")
                    .cookie(&format!("a=1; {}; b=2", alice.cookie)),
                "a=1; b=2",
                "",
            ),
            (
                dialect.get("/private/a").bearer(&alice.access_token),
                "",
                "",
            ),
            (
                dialect
                    .get("/private/a")
                    .cookie(&alice.cookie)
                    .header("Authorization", "Basic YTpi"),
                "",
                "Basic YTpi",
            ),
            (
                dialect.get("/public/a").bearer("theirs"),
                "",
                "Bearer theirs",
            ),
            (dialect.get("/public/a"), "", ""),
        ] {
            let response = fixture.gateway.query(&call);
            response.assert_allowed(dialect);
            assert_eq!(response.all("cookie"), [cookie], "{dialect:?}");
            assert_eq!(
                response.all("authorization"),
                [authorization],
                "{dialect:?}"
            );
        }
    }
}

#[test]
fn own_endpoints_are_no_destination_of_a_front_proxy() {
    let fixture = fixture(|config| config);
    for dialect in Dialect::ALL {
        for call in [
            dialect.get("/api/v1/health"),
            dialect.get("/api/v1/sign-in").header("Accept", ACCEPT),
        ] {
            let response = fixture.gateway.query(&call);
            response.assert_denied(dialect, 404, "ROUTE_NOT_FOUND");
        }
        let login = dialect.call("POST", "/api/v1/auth/login");
        let login: Request = login.json(&json!({ "email": "a@example.com", "password": "x" }));
        let response = fixture.gateway.query(&login);
        response.assert_denied(dialect, 404, "ROUTE_NOT_FOUND");
    }
}

/// The front proxy asks about a path that it should forward to the gateway.
#[test]
fn paths_of_own_endpoints_are_decided_by_the_routes() {
    let all = json!({ "name": "all", "match": { "prefix": "/" }, "upstream": "echo",
        "on_unauthenticated": "redirect" });
    let fixture = fixture(|config| config.route(all));
    let alice = fixture.gateway.register("alice@example.com");
    for dialect in Dialect::ALL {
        for path in [
            "/api/v1/sign-in",
            "/api/v1/profile",
            "/.well-known/oauth-protected-resource",
        ] {
            let call = dialect.get(path);
            let response = fixture.gateway.query(&call);
            response.assert_denied(dialect, 401, "UNAUTHENTICATED");
            let response = fixture.gateway.query(&call.cookie(&alice.cookie));
            response.assert_allowed(dialect);
        }
        // The page is not redirected to itself.
        let page = fixture.open(dialect, "/api/v1/sign-in?return_to=%2Fa");
        page.assert_denied(dialect, 401, "UNAUTHENTICATED");
        assert_eq!(page.header("location"), None, "{dialect:?}");
    }
}

/// OAuth clients find the authorization servers of a route (RFC 9728, section 5.1).
#[test]
fn challenge_names_the_metadata_of_the_requested_host() {
    let resource = json!({ "name": "tools", "match": { "prefix": "/tools" }, "upstream": "echo",
        "oauth_resource": true, "require": { "scopes": ["tools"] } });
    let metadata =
        "resource_metadata=\"https://shop.example/.well-known/oauth-protected-resource/tools\"";
    let fixture = fixture(|config| config.route(resource));
    let alice = fixture.gateway.register("alice@example.com");
    for dialect in Dialect::ALL {
        for (call, status, code, error) in [
            (dialect.get("/tools/a"), 401, "UNAUTHENTICATED", ""),
            (
                dialect.get("/tools/a").bearer("nonsense"),
                401,
                "TOKEN_INVALID",
                "error=\"invalid_token\"",
            ),
            (
                dialect.get("/tools/a").bearer(&alice.access_token),
                403,
                "FORBIDDEN",
                "error=\"insufficient_scope\", scope=\"tools\"",
            ),
        ] {
            let response = fixture.gateway.query(&call);
            response.assert_denied(dialect, status, code);
            let challenge = response.header("www-authenticate").unwrap();
            assert!(challenge.contains(error), "{challenge}");
            assert!(challenge.ends_with(metadata), "{challenge}");
        }
        // The front proxy forwards requests for the metadata to the gateway, without a query.
        let metadata = dialect.get("/.well-known/oauth-protected-resource/tools");
        let metadata = fixture.gateway.query(&metadata);
        metadata.assert_denied(dialect, 404, "ROUTE_NOT_FOUND");
        // A route that is no resource.
        let other = fixture.gateway.query(&dialect.get("/private/a"));
        let challenge = other.header("www-authenticate").unwrap();
        assert_eq!(challenge, "Bearer realm=\"portcullis\"");
    }
    let verdict = Query::get("/tools/a").send(fixture.gateway.config.authorizer());
    let challenge = format!("Bearer realm=\"portcullis\", {metadata}");
    assert_eq!(verdict.all("www-authenticate"), [challenge]);
}
