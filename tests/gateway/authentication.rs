//! Authentication: every type of credential, valid and invalid, and what reaches the upstream.

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

#[test]
fn anonymous_requests_reach_only_open_routes() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    gateway
        .get("/private/a")
        .assert_refused(401, "UNAUTHENTICATED");
    assert_eq!(upstream.requests(), 0);
    let challenge = gateway
        .get("/private/a")
        .header("www-authenticate")
        .unwrap()
        .to_owned();
    assert!(
        !challenge.contains("error="),
        "no credential, no error (RFC 6750): {challenge}"
    );
    for target in ["/optional/a", "/public/a"] {
        let echo = gateway.get(target).echo();
        assert_eq!(echo.header("x-user-id"), None, "{target}");
    }
}

#[test]
fn every_credential_form_passes_and_identifies_the_user() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let session_scheme = format!("Session {}", alice.session_token);
    let lower_case = format!("bearer {}", alice.access_token);
    let requests = [
        Request::get("/private/a").bearer(&alice.access_token),
        Request::get("/private/a").header("Authorization", &lower_case),
        Request::get("/private/a").header("Authorization", &session_scheme),
        Request::get("/private/a").cookie(&alice.cookie),
        Request::get("/optional/a").cookie(&alice.cookie),
    ];
    for request in requests {
        let echo = gateway.request(&request).echo();
        assert_eq!(
            echo.header("x-user-id").as_deref(),
            Some(alice.user.as_str())
        );
        assert_eq!(
            echo.header("x-user-email").as_deref(),
            Some("alice@example.com")
        );
        assert_eq!(
            echo.header("x-session-id").as_deref(),
            Some(alice.session.as_str())
        );
    }
}

#[test]
fn token_in_query_or_form_is_ignored() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let query = format!("/private/a?access_token={}", alice.access_token);
    gateway.get(&query).assert_refused(401, "UNAUTHENTICATED");
    let form = Request::post("/private/a")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("access_token={}", alice.access_token));
    gateway
        .request(&form)
        .assert_refused(401, "UNAUTHENTICATED");
    assert!(
        !gateway.logs().contains(&alice.access_token),
        "the query is not logged"
    );
}

#[test]
fn revoked_session_is_refused_in_every_form() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let logout = Request::post("/api/v1/auth/logout").bearer(&alice.access_token);
    assert_eq!(gateway.request(&logout).status, 204);
    let bearer = gateway.request(&Request::get("/private/a").bearer(&alice.access_token));
    assert_eq!(bearer.status, 401);
    assert!(
        ["TOKEN_REVOKED", "SESSION_REVOKED"].contains(&bearer.code().as_str()),
        "{bearer:?}"
    );
    let cookie = gateway.request(&Request::get("/private/a").cookie(&alice.cookie));
    cookie.assert_refused(401, "SESSION_REVOKED");
    let scheme = format!("Session {}", alice.session_token);
    let session = Request::get("/private/a").header("Authorization", &scheme);
    gateway
        .request(&session)
        .assert_refused(401, "SESSION_REVOKED");
    // A cookie whose session is gone is anonymous where that will do, and is cleared.
    let response = gateway.request(&Request::get("/optional/a").cookie(&alice.cookie));
    assert_eq!(response.echo().header("x-user-id"), None);
    assert!(
        response
            .header("set-cookie")
            .is_some_and(|c| c.contains("Max-Age=0")),
        "{response:?}"
    );
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn unissued_session_token_is_not_adopted() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let unknown = format!("portcullis={}", "ab".repeat(32));
    gateway
        .request(&Request::get("/private/a").cookie(&unknown))
        .assert_refused(401, "SESSION_NOT_FOUND");
    for odd in [
        "portcullis=short",
        "portcullis=",
        "portcullis=%00",
        "portcullis=AB",
    ] {
        let response = gateway.request(&Request::get("/private/a").cookie(odd));
        assert_eq!(response.status, 401, "{odd}");
    }
    let body = json!({ "email": "alice@example.com", "password": "correct horse battery" });
    let fixed = Request::post("/api/v1/auth/register")
        .cookie(&unknown)
        .same_origin()
        .json(&body);
    assert_eq!(gateway.request(&fixed).status, 201);
    gateway
        .request(&Request::get("/private/a").cookie(&unknown))
        .assert_refused(401, "SESSION_NOT_FOUND");
}

#[test]
fn authorization_header_takes_precedence_over_the_cookie() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let bob = gateway.register("bob@example.com");
    let both = Request::get("/private/a")
        .cookie(&alice.cookie)
        .bearer(&bob.access_token);
    assert_eq!(
        gateway.request(&both).echo().header("x-user-id"),
        Some(bob.user)
    );
    for bad in ["Bearer nonsense", "Bearer", "Session nonsense", "Session"] {
        let request = Request::get("/private/a")
            .cookie(&alice.cookie)
            .header("Authorization", bad);
        assert_eq!(gateway.request(&request).status, 401, "{bad}");
    }
    // Another scheme is the upstream's affair: the cookie counts, and the header goes on.
    let basic = Request::get("/private/a")
        .cookie(&alice.cookie)
        .header("Authorization", "Basic eDp5");
    let echo = gateway.request(&basic).echo();
    assert_eq!(echo.header("x-user-id"), Some(alice.user));
    assert_eq!(echo.header("authorization").as_deref(), Some("Basic eDp5"));
}

#[test]
fn duplicate_credentials_are_refused_and_clear_the_cookie() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let two_headers = Request::get("/private/a")
        .bearer(&alice.access_token)
        .bearer(&alice.access_token);
    gateway
        .request(&two_headers)
        .assert_refused(400, "AMBIGUOUS_CREDENTIALS");
    let other = format!("portcullis={}", "0".repeat(64));
    let in_one_header = Request::get("/private/a").cookie(&format!("{}; {other}", alice.cookie));
    let in_two_headers = Request::get("/private/a")
        .cookie(&alice.cookie)
        .cookie(&other);
    for request in [in_one_header, in_two_headers] {
        let response = gateway.request(&request);
        response.assert_refused(400, "AMBIGUOUS_CREDENTIALS");
        assert!(
            response
                .all("set-cookie")
                .iter()
                .any(|c| c.contains("Max-Age=0")),
            "{response:?}"
        );
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn gateway_credentials_do_not_reach_upstreams() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "forwarding", "match": { "prefix": "/forwarding" }, "auth": "required",
        "upstream": "echo", "forward_credentials": true,
    }));
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    let bearer = format!("Bearer {}", alice.access_token);
    let session = format!("Session {}", alice.session_token);
    let cases = [
        ("/private/a", bearer.as_str(), None),
        ("/optional/a", &bearer, None),
        ("/public/a", &bearer, Some(bearer.as_str())),
        ("/forwarding/a", &bearer, Some(&bearer)),
        ("/private/a", &session, None),
        ("/public/a", &session, None),
        ("/forwarding/a", &session, None),
    ];
    for (target, sent, expected) in cases {
        let echo = gateway
            .request(&Request::get(target).header("Authorization", sent))
            .echo();
        assert_eq!(
            echo.header("authorization").as_deref(),
            expected,
            "{target} {}",
            &sent[..7]
        );
    }
    for target in ["/private/a", "/optional/a", "/public/a", "/forwarding/a"] {
        let cookies = format!("theme=dark; {}; lang=en", alice.cookie);
        let echo = gateway
            .request(&Request::get(target).cookie(&cookies))
            .echo();
        let sent = echo.all("cookie").join("; ");
        assert!(
            sent.contains("theme=dark") && sent.contains("lang=en"),
            "{target}: {sent}"
        );
        assert!(!sent.contains(&alice.session_token), "{target}: {sent}");
    }
}

#[test]
fn missing_role_or_scope_is_a_403_naming_it() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .route(json!({
            "name": "admins", "match": { "prefix": "/admins" }, "auth": "required",
            "require": { "roles": ["admin", "root"] }, "upstream": "echo",
        }))
        .route(json!({
            "name": "scoped", "match": { "prefix": "/scoped" }, "auth": "required",
            "require": { "scopes": ["orders:read", "orders:write"] }, "upstream": "echo",
        }));
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    let send = |path: &str| gateway.request(&Request::get(path).cookie(&alice.cookie));
    send("/admins/a").assert_refused(403, "FORBIDDEN");
    let scoped = send("/scoped/a");
    scoped.assert_refused(403, "FORBIDDEN");
    // A session has the scopes of its user.
    assert!(scoped.text().contains("The user or the token lacks"));
    let challenge = scoped.header("www-authenticate").unwrap();
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
    assert!(challenge.contains("orders:read"), "{challenge}");
    // Roles are the session's, changed at once.
    let promote = Request::new("PATCH", &format!("/admin/users/{}", alice.user))
        .json(&json!({ "roles": ["root"], "scopes": ["orders:read", "orders:write"] }));
    gateway.admin(promote).assert_ok();
    let echo = send("/admins/a").echo();
    assert_eq!(echo.header("x-user-roles").as_deref(), Some("root"));
    send("/scoped/a").assert_ok();
}

#[test]
fn routes_require_authentication_by_default() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .route(json!({ "name": "silent", "match": { "prefix": "/silent" }, "upstream": "echo" }));
    let gateway = Gateway::start(config);
    gateway
        .get("/silent/a")
        .assert_refused(401, "UNAUTHENTICATED");
    assert_eq!(upstream.requests(), 0);
}
