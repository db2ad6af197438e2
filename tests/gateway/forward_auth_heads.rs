//! Calls whose heads are no requests, and heads that only a front proxy may send: the front proxy
//! understands each response, and no part of a head is left out of the decision.

use serde_json::{Value, json};

use super::forward_auth::{Fixture, fixture};
use crate::support::calls::Dialect;
use crate::support::client::{Client, Request, Response};
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, StreamOutcome, frame, request,
};
use crate::support::http2::Http2;
use crate::support::wait::{DEADLINE, eventually};

impl Fixture {
    /// Sends a head, and checks that the connection ends with the response.
    fn send_last(&self, head: &str) -> Response {
        let mut client = Client::connect(self.gateway.config.authorizer());
        client.send(head);
        let response = client.read_response();
        assert!(client.closes_within(DEADLINE), "{response:?}");
        response
    }

    fn log_line(&self, request_id: &str) -> Value {
        eventually("the call is logged", || {
            let mut lines = self.gateway.events().into_iter();
            lines.find(|line| line["request_id"] == request_id)
        })
    }
}

/// The head of a call with further lines.
fn with_lines(call: &Request, lines: &str) -> String {
    let head = String::from_utf8(call.to_bytes()).unwrap();
    head.replacen("\r\n\r\n", &format!("\r\n{lines}\r\n"), 1)
}

#[test]
fn malformed_heads_have_the_response_of_their_dialect() {
    let fixture = fixture(|config| config);
    let too_large = format!("X-A: {}\r\n", "a".repeat(200 << 10));
    let too_many: String = (0..300).map(|index| format!("X-{index}: 1\r\n")).collect();
    for dialect in Dialect::ALL {
        for (lines, status, code) in [
            (&*too_large, 431, "HEADERS_TOO_LARGE"),
            (&too_many, 431, "HEADERS_TOO_LARGE"),
            ("X A: 1\r\n", 400, "BAD_REQUEST"),
            ("Host: other.example\r\n", 400, "BAD_REQUEST"),
        ] {
            let head = with_lines(&dialect.get("/public/a"), lines);
            let response = fixture.send_last(&head);
            response.assert_denied(dialect, status, code);
            let is_bodiless = response.body.is_empty();
            assert_eq!(is_bodiless, dialect == Dialect::AuthRequest, "{response:?}");

            let id = response.header("x-request-id").unwrap();
            let line = fixture.log_line(id);
            assert_eq!(line["dialect"], dialect.name(), "{line}");
            assert_eq!(line["status"], status, "{line}");
        }
        for (outcome, count) in [("headers_too_large", 2.0), ("bad_request", 2.0)] {
            let labels = [
                &*format!("dialect=\"{}\"", dialect.name()),
                &*format!("outcome=\"{outcome}\""),
            ];
            let counted = fixture
                .gateway
                .metric("portcullis_forward_auth_total", &labels);
            assert!((counted - count).abs() < 0.1, "{labels:?}: {counted}");
        }
    }
    // A request that no call may be about.
    let trace = with_lines(&Dialect::ExtAuthz.call("TRACE", "/public/a"), "");
    let response = fixture.send_last(&trace);
    response.assert_denied(Dialect::ExtAuthz, 405, "METHOD_NOT_ALLOWED");
    // The path is not that of a dialect.
    let other = with_lines(&Request::get("/other"), "X A: 1\r\n");
    let response = fixture.send_last(&other);
    response.assert_refused(400, "BAD_REQUEST");
    assert_eq!(response.header("x-portcullis-code"), Some("BAD_REQUEST"));
    // On a public listener, it is an ordinary request.
    let head = with_lines(&Dialect::AuthRequest.get("/public/a"), "X A: 1\r\n");
    let mut client = Client::connect(fixture.gateway.public);
    client.send(head);
    let response = client.read_response();
    response.assert_refused(400, "BAD_REQUEST");
    assert_eq!(response.header("x-portcullis-code"), None);
}

/// The gateway does not forward the request, and the front proxy may pass on what `Connection` names.
#[test]
fn connection_hides_no_field_of_the_original_request() {
    let tenants = json!({ "name": "tenants", "match": { "prefix": "/public", "headers": { "X-Tenant": "a" } },
        "auth": "required", "upstream": "echo" });
    let fixture = fixture(|config| config.route(tenants));
    let alice = fixture.gateway.register("alice@example.com");
    let query = |call: Request, name: &str| fixture.gateway.query(&call.header("Connection", name));
    for dialect in Dialect::ALL {
        for name in ["X-Portcullis-Assertion", "X_User_Id", "x.session.id"] {
            let call = dialect.get("/public/a").header(name, "forged");
            let response = query(call, &name.to_ascii_lowercase());
            response.assert_denied(dialect, 400, "BAD_REQUEST");
        }
        let call = dialect.get("/public/a").header("X-Tenant", "a");
        let response = query(call, "x-tenant");
        response.assert_denied(dialect, 401, "UNAUTHENTICATED");
        let call = dialect.get("/optional/a").bearer(&alice.access_token);
        let response = query(call, "authorization");
        response.assert_allowed(dialect);
        assert_eq!(response.all("x-user-id"), [&*alice.user], "{dialect:?}");
    }
}

#[test]
fn heads_of_http2_have_the_same_limits() {
    let fixture = fixture(|config| config);
    let client = Http2::connect(fixture.gateway.config.authorizer());
    let names: Vec<String> = (0..300).map(|index| format!("x-{index}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let by_url = [
        ("x-original-method", "GET"),
        ("x-original-url", "https://shop.example/public/a"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    let by_parts = [
        ("x-forwarded-method", "GET"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-uri", "/public/a"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    for (path, fields, sent) in [
        ("/auth-request", &by_url[..], 403),
        ("/forward-auth", &by_parts, 431),
    ] {
        let response = client.open("GET", path, &[fields, &many].concat(), b"");
        let response = response.unwrap();
        let code = &response.headers["x-portcullis-code"];
        assert_eq!(
            (response.status, code.to_str().unwrap()),
            (sent, "HEADERS_TOO_LARGE")
        );
    }
    let padded = [&by_url[..], &[("x-a", "1 ")]].concat();
    let response = client.open("GET", "/auth-request", &padded, b"").unwrap();
    assert_eq!(response.status, 403);
    assert_eq!(response.headers["x-portcullis-status"], "400");
    assert_eq!(response.headers["x-portcullis-code"], "BAD_REQUEST");
    // The log has the status that the client is meant to receive.
    let id = response.headers["x-request-id"].to_str().unwrap();
    assert_eq!(fixture.log_line(id)["status"], 400);
}

/// Clients of a front proxy that give up their requests do not end the calls about those of others.
#[test]
fn calls_that_are_given_up_end_no_other_call() {
    let fixture = fixture(|config| config);
    let mut frames = Frames::connect(fixture.gateway.config.authorizer());
    frames.accept_settings();
    let fields = [
        ("x-original-method", "GET"),
        ("x-original-url", "https://shop.example/public/a"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    let head = request("POST", "/auth-request", &fields);
    frames.send(HEADERS, END_HEADERS, 1, &head).unwrap();
    let given_up = (0..400).flat_map(|index| {
        let stream = 3 + 2 * index;
        let call = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [call, reset].concat()
    });
    frames.send_all(&given_up.collect::<Vec<u8>>()).unwrap();
    frames.send(DATA, END_STREAM, 1, b"").unwrap();
    assert_eq!(frames.stream_outcome(1), StreamOutcome::Status(200));
}
