//! Calls that front proxies must not make, and requests that their clients forge: 400, and nothing is
//! spent.

use serde_json::json;

use crate::support::calls::Dialect;
use crate::support::client::{Client, Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

struct Fixture {
    gateway: Gateway,
    alice: SignedIn,
    _upstream: Upstream,
}

fn fixture() -> Fixture {
    let upstream = Upstream::start();
    let limit = json!({ "limit": 1000, "window": "1h", "key": "ip" });
    let config = Config::new(upstream.address)
        .forward_auth()
        .limit("per-address", limit);
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    Fixture {
        gateway,
        alice,
        _upstream: upstream,
    }
}

impl Fixture {
    /// Queries, and checks that the call is malformed and nothing was spent.
    #[track_caller]
    fn assert_malformed(&self, dialect: Dialect, call: Request) -> Response {
        let spent = || self.gateway.metric("portcullis_ratelimit_total", &[]);
        let before = spent();
        let response = self.gateway.query(&call.cookie(&self.alice.cookie));
        response.assert_denied(dialect, 400, "BAD_REQUEST");
        assert_eq!(spent(), before);
        response
    }

    /// Checks what the log, and a body, name as the reason of a response.
    #[track_caller]
    fn assert_reason(&self, response: &Response, reason: &str) {
        let id = response.header("x-request-id").unwrap();
        let line = eventually("the call is logged", || {
            let mut lines = self.gateway.events().into_iter();
            lines.find(|line| line["request_id"] == id)
        });
        assert_eq!(line["reason"], reason, "{line}");
        let text = response.text();
        assert!(text.is_empty() || text.contains(reason), "{text}");
    }
}

#[test]
fn every_naming_field_is_present_exactly_once() {
    let fixture = fixture();
    for (dialect, name, value) in [
        (Dialect::AuthRequest, "X-Original-Method", "GET"),
        (
            Dialect::AuthRequest,
            "X-Original-URL",
            "https://shop.example/public/a",
        ),
        (Dialect::ForwardAuth, "X-Forwarded-Method", "GET"),
        (Dialect::ForwardAuth, "X-Forwarded-Proto", "https"),
        (Dialect::ForwardAuth, "X-Forwarded-Host", "shop.example"),
        (Dialect::ForwardAuth, "X-Forwarded-Uri", "/public/a"),
        (Dialect::ExtAuthz, "X-Forwarded-Proto", "https"),
    ] {
        let repeated = dialect.get("/private/a").header(name, value);
        let response = fixture.assert_malformed(dialect, repeated);
        fixture.assert_reason(&response, &format!("{name} is repeated."));
        let text = String::from_utf8(dialect.get("/private/a").to_bytes()).unwrap();
        let without = text
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(name));
        let mut client = Client::connect(fixture.gateway.config.authorizer());
        client.send(without.collect::<String>());
        let response = client.read_response();
        response.assert_denied(dialect, 400, "BAD_REQUEST");
        fixture.assert_reason(&response, &format!("{name} is missing."));
    }
    for dialect in Dialect::ALL {
        fixture.assert_malformed(dialect, dialect.call_without_client("GET", "/private/a"));
        let garbage = dialect.get("/private/a");
        fixture.assert_malformed(dialect, garbage.header("X-Forwarded-For", "unknown"));
        let absolute = dialect.get("https://evil.example/private/a");
        if dialect != Dialect::ExtAuthz {
            fixture.assert_malformed(dialect, absolute);
        }
    }
}

#[test]
fn client_is_the_last_hop_that_is_no_trusted_proxy() {
    let fixture = fixture();
    for dialect in Dialect::ALL {
        let call = dialect.call_without_client("GET", "/public/a");
        let call = call.header("X-Forwarded-For", "203.0.113.9, 192.0.2.8");
        let response = fixture
            .gateway
            .query(&call.header("X-Forwarded-For", "127.0.0.1"));
        response.assert_allowed(dialect);
        let id = response.header("x-request-id").unwrap();
        let line = eventually("the call is logged", || {
            let mut lines = fixture.gateway.events().into_iter();
            lines.find(|line| line["request_id"] == id)
        });
        assert_eq!(line["client_ip"], "192.0.2.8", "{line}");
    }
}

#[test]
fn query_of_the_call_names_nothing() {
    let fixture = fixture();
    for (path, dialect) in [
        ("/auth-request", Dialect::AuthRequest),
        ("/forward-auth", Dialect::ForwardAuth),
    ] {
        let call = String::from_utf8(dialect.get("/private/a").to_bytes()).unwrap();
        let call = call.replace(
            &format!("GET {path} "),
            &format!(
                "GET {path}?X-Forwarded-Uri=/public/a&uri=/public/a&X-Original-URL=/public/a "
            ),
        );
        let mut client = Client::connect(fixture.gateway.config.authorizer());
        client.send(call);
        let response = client.read_response();
        response.assert_denied(dialect, 401, "UNAUTHENTICATED");
    }
}

#[test]
fn names_reserved_for_the_gateway_are_refused() {
    let fixture = fixture();
    for dialect in Dialect::ALL {
        for name in [
            "X-User_Id",
            "X_User_Id",
            "x.user.id",
            "X-Session_ID",
            "X-Portcullis-Assertion",
            "X-Portcullis-Code",
            "X_Portcullis_Status",
        ] {
            for target in ["/private/a", "/public/a", "/optional/a"] {
                let forged = dialect.get(target).header(name, "admin");
                fixture.assert_malformed(dialect, forged);
            }
        }
        let other = dialect.get("/public/a").header("X-Other_Name", "a");
        fixture.gateway.query(&other).assert_allowed(dialect);
    }
}

#[test]
fn joined_credentials_are_ambiguous() {
    let fixture = fixture();
    let (cookie, token) = (&fixture.alice.cookie, &fixture.alice.access_token);
    for dialect in Dialect::ALL {
        let private = || dialect.get("/private/a");
        for (call, clears) in [
            (
                private().header("Authorization", &format!("Basic YTpi, Bearer {token}")),
                false,
            ),
            (
                private().header("Authorization", &format!("Bearer {token}, Bearer {token}")),
                false,
            ),
            (
                private().header("Authorization", &format!("Bearer {token},session abc")),
                false,
            ),
            (private().cookie(&format!("a=1, {cookie}")), true),
            (private().cookie(&format!("{cookie}, {cookie}")), true),
            (private().bearer(token).bearer(token), false),
        ] {
            let response = fixture.gateway.query(&call);
            response.assert_denied(dialect, 400, "AMBIGUOUS_CREDENTIALS");
            assert_eq!(
                !response.all("set-cookie").is_empty(),
                clears,
                "{response:?}"
            );
        }
        for call in [
            private()
                .header("Authorization", "Basic YTpi, Basic YTpi")
                .cookie(cookie),
            private().cookie(&format!("a=1, b=2; {cookie}")),
            // It decides, and the cookie is not looked at.
            private().bearer(token).cookie(&format!("a=1, {cookie}")),
        ] {
            fixture.gateway.query(&call).assert_allowed(dialect);
        }
    }
}

#[test]
fn calls_of_http_1_0_and_calls_with_bodies_are_served() {
    let fixture = fixture();
    let cookie = &fixture.alice.cookie;
    for dialect in Dialect::ALL {
        let call = dialect.get("/private/a").cookie(cookie);
        let old = String::from_utf8(call.to_bytes()).unwrap();
        let old = old.replace("HTTP/1.1\r\n", "HTTP/1.0\r\n");
        let mut client = Client::connect(fixture.gateway.config.authorizer());
        client.send(&old);
        client.read_response().assert_allowed(dialect);
        assert!(client.closes_within(crate::support::wait::DEADLINE));

        let mut client = Client::connect(fixture.gateway.config.authorizer());
        let keep = old.replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n");
        for _ in 0..2 {
            client.send(&keep);
            client.read_response().assert_allowed(dialect);
        }

        let mut client = Client::connect(fixture.gateway.config.authorizer());
        for body in ["body", "{}"] {
            let call = dialect.call("POST", "/private/a").cookie(cookie);
            client.request(&call.body(body)).assert_allowed(dialect);
        }
        // Rejected calls keep the connection as well.
        for _ in 0..2 {
            let call = dialect.get("/private/a").header("X-Portcullis-A", "b");
            client
                .request(&call)
                .assert_denied(dialect, 400, "BAD_REQUEST");
        }
    }
}
