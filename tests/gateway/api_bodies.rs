//! Bodies of the gateway's own endpoints: plain JSON in UTF-8.

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::frames::{
    END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, frame, request,
};
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::http2::Http2;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

#[test]
fn encoded_or_non_utf8_body_is_refused() {
    let gateway = Gateway::start(Config::new(Upstream::start().address));
    let alice = gateway.register("alice@example.com");
    let login = json!({ "email": "alice@example.com", "password": PASSWORD }).to_string();
    let odd = [
        ("application/json", Some("gzip")),
        ("application/json", Some("identity, br")),
        ("application/json; charset=iso-8859-1", None),
        ("application/json; charset=utf-16", None),
    ];
    let http2 = Http2::connect(gateway.public);
    for (content_type, coding) in odd {
        let send = |method: &str, path: &str, body: &str| {
            let request = Request::new(method, path)
                .header("Content-Type", content_type)
                .header("Authorization", &format!("Session {}", alice.session_token));
            let request = match coding {
                Some(coding) => request.header("Content-Encoding", coding),
                None => request,
            };
            gateway.request(&request.body(body))
        };
        for (method, path, body) in [
            ("POST", "/api/v1/auth/login", login.as_str()),
            ("POST", "/api/v1/auth/logout", r#"{"refresh_token":"x"}"#),
            ("PATCH", "/api/v1/sessions/current", r#"{"data":{}}"#),
            ("PUT", "/api/v1/profile", r#"{"name":"Ann"}"#),
        ] {
            send(method, path, body).assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
        }
        let mut headers = vec![("content-type", content_type)];
        headers.extend(coding.map(|coding| ("content-encoding", coding)));
        let stream = http2.open("POST", "/api/v1/auth/login", &headers, login.as_bytes());
        assert_eq!(stream.unwrap().status, 415, "{content_type} {coding:?}");
    }
    for content_type in ["application/json", "application/json; charset=UTF-8"] {
        let request = Request::post("/api/v1/auth/login")
            .header("Content-Type", content_type)
            .header("Content-Encoding", "identity");
        gateway.request(&request.body(login.as_str())).assert_ok();
    }
    let patch = Request::new("PATCH", &format!("/admin/users/{}", alice.user))
        .header("Content-Type", "application/json")
        .header("Content-Encoding", "gzip");
    gateway
        .admin(patch.body("{}"))
        .assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
}

#[test]
fn malformed_body_is_a_client_error_on_both_protocols() {
    let gateway = Gateway::start(Config::new(Upstream::start().address));
    let head =
        "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let mut client = Client::connect(gateway.public);
    client.send(head);
    client.send("Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX");
    client.read_response().assert_refused(400, "BAD_REQUEST");
    // Clients that go away in the middle of it.
    for rest in [
        "Content-Length: 20\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}",
    ] {
        let mut client = Client::connect(gateway.public);
        client.send(head).send(rest);
    }
    let mut frames = Frames::connect(gateway.public);
    let block = request("POST", "/api/v1/auth/login", &[]);
    frames.send(HEADERS, END_HEADERS, 1, &block).unwrap();
    frames.send(RST_STREAM, 0, 1, &[0, 0, 0, 8]).unwrap();
    // And before the response.
    let block = request("GET", "/api/v1/openapi.json", &[]);
    let mut both = frame(HEADERS, END_HEADERS | END_STREAM, 3, &block);
    both.extend(frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]));
    frames.send_all(&both).unwrap();
    let counted = |labels: &[&str]| gateway.metric("portcullis_requests_total", labels);
    eventually("all are counted", || {
        (counted(&["route=\"(api)\""]) == 5.0).then_some(())
    });
    assert_eq!(counted(&["code=\"500\""]), 0.0);
}
