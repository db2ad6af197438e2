//! nginx, HAProxy, Caddy, Traefik and Envoy ask the gateway about each request, with the files of
//! `deploy/proxies/forward-auth` as they are shipped.

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::forward_auth_deployment::{Deployment, assert_identity, behind, config};
use crate::support::forward_auth_proxy::AuthProgram;
use crate::support::front_proxy::NAME;
use crate::support::gateway::{PASSWORD, run};
use crate::support::key_calls::create;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};

#[test]
fn backend_receives_the_identity_and_the_client_the_limits() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        let cookie = format!("theme=dark; {}; size=2", ann.cookie);
        let request = Request::get("/private/reply?X-RateLimit-Limit=7&Set-Cookie=own=1");
        let response = deployment.request(
            &request
                .cookie(&cookie)
                .header("Authorization", "Basic YTpi"),
        );
        let echo = response.echo();
        assert_identity(program, &echo.0, Some(&ann));
        assert_eq!(echo.all("cookie"), ["theme=dark; size=2"], "{program:?}");
        assert_eq!(echo.all("authorization"), ["Basic YTpi"], "{program:?}");
        assert_eq!(response.all("set-cookie"), ["own=1"], "{program:?}");
        // Traefik passes nothing but cookies on.
        if program != AuthProgram::Traefik {
            assert_eq!(response.all("x-ratelimit-limit"), ["1000"], "{program:?}");
            assert_eq!(response.all("ratelimit-policy").len(), 1, "{program:?}");
            assert!(response.numeric_header("x-ratelimit-remaining") < 1000);
            let id = response.all("x-request-id").join(", ");
            assert_eq!(echo.all("x-request-id").join(", "), id, "{program:?}");
            assert!(
                deployment
                    .gateway
                    .wait_for_log(&id)
                    .contains(program.dialect())
            );
        }

        let token = Request::get("/private/a").bearer(&ann.access_token);
        let echo = deployment.request(&token).echo();
        assert_identity(program, &echo.0, Some(&ann));
        assert_eq!(echo.all("authorization").concat(), "", "{program:?}");
        let anonymous = deployment.request(&Request::get("/optional/a")).echo();
        assert_identity(program, &anonymous.0, None);
    });
}

#[test]
fn backend_receives_the_owner_of_a_key_without_the_key() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        let key = create(&deployment.gateway, &ann, &json!({ "name": "laptop" }));
        for request in [
            Request::get("/private/a").header("X-API-Key", &key.secret),
            Request::get("/private/a").bearer(&key.secret),
        ] {
            let echo = deployment.request(&request).echo();
            assert_eq!(echo.all("x-user-id"), [&*ann.user], "{program:?}");
            for name in ["x-api-key", "authorization", "x-session-id"] {
                assert_eq!(echo.all(name).concat(), "", "{program:?}: {name}");
            }
        }
    });
}

#[test]
fn oauth_client_of_another_origin_finds_the_authorization_server() {
    behind(|program, deployment| {
        let request = Request::get("/resource/a").header("Origin", "https://spa.example");
        let rejected = deployment.request(&request);
        assert_rejected(program, &rejected, 401, "UNAUTHENTICATED");
        let origin = rejected.all("access-control-allow-origin");
        assert_eq!(origin, ["https://spa.example"], "{program:?}");
        let challenge = rejected.all("www-authenticate").join(", ");
        let metadata = "/.well-known/oauth-protected-resource/resource";
        let url = format!("\"https://{NAME}{metadata}\"");
        assert!(challenge.contains(&url), "{program:?}: {challenge}");
        let metadata = deployment.request(&Request::get(metadata)).json();
        assert_eq!(
            metadata["authorization_servers"],
            json!(["https://id.example"])
        );
        assert_eq!(metadata["resource"], format!("https://{NAME}/resource"));
    });
}

/// Checks a rejection at the client of a proxy.
#[track_caller]
fn assert_rejected(program: AuthProgram, response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{program:?}: {response:?}");
    assert_eq!(response.all("x-portcullis-code"), [code], "{program:?}");
    assert_eq!(response.all("x-request-id").len(), 1, "{program:?}");
    assert_eq!(response.all("cache-control"), ["no-store"], "{program:?}");
    assert_eq!(response.header("location"), None, "{program:?}");
    // nginx has a page of its own.
    if program != AuthProgram::Nginx {
        response.assert_refused(status, code);
    }
}

#[test]
fn rejections_reach_the_client() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        let unauthenticated = deployment.request(&Request::get("/private/a"));
        assert_rejected(program, &unauthenticated, 401, "UNAUTHENTICATED");
        let challenge = unauthenticated.all("www-authenticate").join(", ");
        assert!(challenge.starts_with("Bearer"), "{program:?}: {challenge}");
        assert_eq!(unauthenticated.all("set-cookie").len(), 0, "{program:?}");
        let forbidden = deployment.request(&Request::get("/admin/a").cookie(&ann.cookie));
        assert_rejected(program, &forbidden, 403, "FORBIDDEN");
        let unknown = deployment.request(&Request::get("/nowhere"));
        assert_rejected(program, &unknown, 404, "ROUTE_NOT_FOUND");

        deployment.request(&Request::get("/limited/a")).assert_ok();
        let limited = deployment.request(&Request::get("/limited/a"));
        assert_rejected(program, &limited, 429, "RATE_LIMITED");
        let retry = limited.numeric_header("retry-after");
        assert!((1..=120).contains(&retry), "{program:?}: {retry}");
        assert_eq!(limited.all("x-ratelimit-limit"), ["1"], "{program:?}");
        assert_eq!(limited.all("x-ratelimit-remaining"), ["0"], "{program:?}");
        assert_eq!(limited.all("ratelimit").len(), 1, "{program:?}");
        assert!(!deployment.backend.has_seen("/admin"), "{program:?}");
    });
}

#[test]
fn revoked_session_is_rejected_within_a_second_and_its_cookie_cleared() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        let request = Request::get("/private/a").cookie(&ann.cookie);
        deployment.request(&request).assert_ok();
        let sign_out = Request::post("/api/v1/auth/logout").bearer(&ann.access_token);
        assert_eq!(deployment.gateway.request(&sign_out).status, 204);
        let revoked = within(PROPAGATION_DEADLINE, "the revocation is in force", || {
            let response = deployment.request(&request);
            (response.status == 401).then_some(response)
        });
        assert_rejected(program, &revoked, 401, "SESSION_REVOKED");
        let anonymous = deployment.request(&Request::get("/optional/a").cookie(&ann.cookie));
        assert_identity(program, &anonymous.echo().0, None);
        for response in [revoked, anonymous] {
            let cleared = response.all("set-cookie").concat();
            assert!(cleared.contains("Max-Age=0"), "{program:?}: {cleared}");
        }
    });
}

#[test]
fn browsers_sign_in_and_return() {
    behind(|program, deployment| {
        deployment.gateway.register("ann@example.com");
        let mut visitor = Visitor::trusting(deployment.proxy.certificate());
        let page = format!(
            "https://{NAME}:{}/private/page?a=b&c",
            deployment.proxy.address.port()
        );
        let visit = visitor.open(&page);
        assert_eq!(
            visit.url.path(),
            "/api/v1/sign-in",
            "{program:?}: {visit:?}"
        );
        assert_eq!(visit.response.status, 200, "{program:?}: {visit:?}");
        let (action, mut fields) = visit.form();
        fields.push(("login".to_owned(), "ann@example.com".to_owned()));
        fields.push(("password".to_owned(), PASSWORD.to_owned()));
        let fields: Vec<_> = fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let visit = visitor.submit(&action, &fields);
        assert_eq!(visit.url.as_str(), page, "{program:?}: {visit:?}");
        let echo = visit.response.echo();
        assert_eq!(echo.all("x-user-email"), ["ann@example.com"], "{program:?}");
        assert_eq!(echo.all("cookie").concat(), "", "{program:?}");
        // The gateway's own endpoints are there as well.
        let profile = page.replace("/private/page?a=b&c", "/api/v1/profile");
        assert_eq!(
            visitor.open(&profile).response.data()["email"],
            "ann@example.com"
        );
    });
}

#[test]
fn browsers_are_sent_to_the_page_of_the_backend() {
    behind(|program, deployment| {
        let mut visitor = Visitor::trusting(deployment.proxy.certificate());
        let origin = format!("https://{NAME}:{}", deployment.proxy.address.port());
        let visit = visitor.open(&format!("{origin}/own/a?b"));
        let expected = format!("{origin}/public/login?next=%2Fown%2Fa%3Fb");
        assert_eq!(visit.url.as_str(), expected, "{program:?}: {visit:?}");
    });
}

#[test]
fn requests_reach_the_backend_unchanged() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        let body = vec![b'x'; 1 << 20];
        let upload = Request::post("/private/a")
            .cookie(&ann.cookie)
            .body(body.clone());
        let echo = deployment.request(&upload).echo();
        assert_eq!(
            echo.0["body"].as_str().unwrap().len(),
            body.len(),
            "{program:?}"
        );
        assert_eq!(echo.0["method"], "POST", "{program:?}");
        let cookie = format!("long={}", "x".repeat(12 << 10));
        let long = Request::get("/private/a").cookie(&format!("{cookie}; {}", ann.cookie));
        assert_eq!(
            deployment.request(&long).echo().all("cookie"),
            [cookie],
            "{program:?}"
        );
        for target in [
            "/public/a%20b?x=%2f&y",
            "/public/%C3%A4?",
            "/public/a;b=c/d",
            "/public/a?/../b",
        ] {
            let echo = deployment.request(&Request::get(target)).echo();
            assert_eq!(echo.target(), target, "{program:?}");
        }
        let http2 = deployment.proxy.connect_http2();
        let cookie = ("cookie", &*ann.cookie);
        let (status, text) = http2.request("PUT", "/private/h2?b=%2f", &[cookie]);
        assert_eq!(status, 200, "{program:?}: {text}");
        let echo: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(echo["target"], "/private/h2?b=%2f", "{program:?}");
        assert_eq!(echo["method"], "PUT", "{program:?}");
        assert_identity(program, &echo, Some(&ann));
    });
}

#[test]
fn websockets_and_event_streams_pass() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        let own = format!("https://{NAME}");
        let open = |cookie: &str, origin: &str| {
            deployment.echo_by_websocket("/private/ws", &[("Cookie", cookie), ("Origin", origin)])
        };
        assert_eq!(
            open(&ann.cookie, &own),
            Ok("hello".to_owned()),
            "{program:?}"
        );
        assert_eq!(open("a=b", &own), Err(401), "{program:?}");
        assert_eq!(
            open(&ann.cookie, "https://evil.example"),
            Err(403),
            "{program:?}"
        );
        let mut client = deployment.proxy.connect();
        let events = Request::get("/private/sse").cookie(&ann.cookie);
        client.send(events.to_bytes());
        assert_eq!(client.read_head().unwrap().status, 200, "{program:?}");
        client.read_until("hello");
        assert_eq!(deployment.backend.publish("second event"), 1);
        client.read_until("second event");
    });
}

#[test]
fn websocket_of_http2_comes_from_its_own_origin() {
    behind(|program, deployment| {
        let ann = deployment.gateway.register("ann@example.com");
        let client = deployment.proxy.connect_http2();
        let (status, text) = client.request("GET", "/public/a", &[]);
        assert_eq!(status, 200, "{program:?}: {text}");
        let open = |origin: &str| {
            let headers = [("cookie", &*ann.cookie), ("origin", origin)];
            client.open_websocket("/private/ws", &headers)
        };
        let (own, other) = (format!("https://{NAME}"), "https://evil.example");
        // The others accept none.
        let accepts = program == AuthProgram::Haproxy;
        assert_eq!(open(&own), accepts.then_some(200), "{program:?}");
        assert_eq!(open(other), accepts.then_some(403), "{program:?}");
    });
}

/// Over another protocol, such as HTTP/2 in clear, requests would pass that the gateway does not see.
#[test]
fn only_websockets_are_passed_on_as_upgrades() {
    let h2c = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    let websocket = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    behind(|program, deployment| {
        for lines in [
            h2c,
            &format!("{h2c}{websocket}"),
            &format!("{websocket}{h2c}"),
            &websocket.replace("websocket\r\n", "websocket, h2c\r\n"),
            &websocket.replace(": websocket", ": h2c, websocket"),
        ] {
            let head = format!("GET /public/a HTTP/1.1\r\nHost: {NAME}\r\n");
            let connection = "Connection: Upgrade, HTTP2-Settings\r\n";
            let mut client = deployment.proxy.connect();
            client.send(format!("{head}{connection}{lines}\r\n"));
            let response = client.read_response();
            if response.status != 200 {
                assert!(
                    (400..500).contains(&response.status),
                    "{program:?}: {response:?}"
                );
                continue;
            }
            let passed = response.echo().all("upgrade").concat();
            let is_websocket = passed.is_empty() || passed.eq_ignore_ascii_case("websocket");
            assert!(is_websocket, "{program:?} {lines}: {passed}");
        }
    });
}

#[test]
fn store_outage_is_503_and_clears_no_cookie() {
    for program in AuthProgram::ALL {
        let (mut redis, backend) = (Redis::start(), Upstream::start());
        let config = config(&backend).store(&redis.url());
        let Some(deployment) = Deployment::start(program, config, backend) else {
            continue;
        };
        let ann = deployment.gateway.register("ann@example.com");
        let request = Request::get("/private/a").cookie(&ann.cookie);
        deployment.request(&request).assert_ok();
        redis.kill();
        let unknown = eventually("the session is not cached any more", || {
            let response = deployment.request(&request);
            assert!(
                [200, 503].contains(&response.status),
                "{program:?}: {response:?}"
            );
            assert_eq!(response.all("set-cookie").len(), 0, "{program:?}");
            (response.status == 503).then_some(response)
        });
        // Envoy replaces 5xx of an HTTP service.
        if program != AuthProgram::EnvoyHttp {
            assert!(unknown.numeric_header("retry-after") > 0, "{program:?}");
            assert_eq!(
                unknown.all("x-portcullis-code"),
                ["STORE_UNAVAILABLE"],
                "{program:?}"
            );
        }
    }
}

#[test]
fn nothing_passes_without_a_verdict() {
    behind(|program, deployment| {
        deployment.calls.refuse();
        for target in ["/public/unauthorized", "/private/unauthorized"] {
            let response = deployment.request(&Request::get(target));
            assert!(response.status >= 500, "{program:?}: {response:?}");
            if matches!(program, AuthProgram::Nginx | AuthProgram::Haproxy) {
                assert_eq!(response.status, 503, "{program:?}: {response:?}");
                assert!(response.numeric_header("retry-after") > 0, "{program:?}");
            }
        }
        assert!(!deployment.backend.has_seen("unauthorized"), "{program:?}");
    });
}

#[test]
fn calls_share_connections() {
    behind(|program, deployment| {
        let before = deployment.calls.connections();
        let mut client = deployment.proxy.connect();
        for _ in 0..20 {
            client.request(&Request::get("/public/a")).assert_ok();
            assert_eq!(client.request(&Request::get("/private/a")).status, 401);
        }
        let opened = deployment.calls.connections() - before;
        // One for each thread of the program.
        assert!(opened <= 4, "{program:?}: {opened} connections");
    });
}

#[test]
fn shipped_configuration_of_the_gateway_is_valid() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/proxies/forward-auth/portcullis.yaml"
    );
    let (status, out, err) = run(&["check", "--config", file]);
    assert_eq!((status, &*err), (0, ""), "{out}");
}
