//! Headers that a client may not send, and those that the gateway vouches for instead.

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::echo::Echo;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::upstream::{Recorder, Upstream};
use crate::support::wait::eventually;

const IDENTITY: [&str; 4] = ["X-User-Id", "X-User-Email", "X-User-Roles", "X-Session-ID"];

/// The values under every name that some server would read as this one.
fn seen_values(echo: &Echo, name: &str) -> Vec<String> {
    let folded = |n: &str| {
        n.to_ascii_lowercase()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    };
    let headers = echo.0["headers"].as_array().unwrap().iter();
    let same = headers.filter(|h| folded(h[0].as_str().unwrap()) == folded(name));
    same.map(|h| h[1].as_str().unwrap().to_owned()).collect()
}

#[test]
fn client_identity_headers_are_removed_in_every_spelling() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    for target in ["/public/a", "/optional/a", "/private/a"] {
        let mut request = Request::get(target);
        for name in IDENTITY {
            for variant in [
                name.to_owned(),
                name.to_lowercase(),
                name.replace('-', "_"),
                name.replacen('-', "_", 1),
                name.replace('-', "."),
                name.replacen('-', "~", 1),
                name.replace('-', "!"),
                name.replace('-', "|"),
                name.replace('-', "'"),
            ] {
                request = request.header(&variant, "spoofed");
            }
        }
        request = request
            .header("X-Portcullis-Anything", "spoofed")
            .header("X~Portcullis~Anything", "spoofed")
            .header("X~Request~ID", "spoofed")
            .header("Proxy", "spoofed")
            .header("Any_Thing", "spoofed");
        let signed_in = target != "/public/a";
        if signed_in {
            request = request.cookie(&alice.cookie);
        }
        let echo = gateway.request(&request).echo();
        assert!(
            !echo.0["headers"].to_string().contains("spoofed"),
            "{target}: {}",
            echo.0
        );
        let user = if signed_in {
            vec![alice.user.clone()]
        } else {
            vec![]
        };
        assert_eq!(seen_values(&echo, "X-User-Id"), user, "{target}");
        // This user has no role: the header is then absent or empty, never the client's.
        assert!(
            seen_values(&echo, "X-User-Roles")
                .iter()
                .all(String::is_empty),
            "{target}"
        );
    }
}

#[test]
fn space_after_a_header_name_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let mut client = crate::support::client::Client::connect(gateway.public);
    client.send("GET /public/a HTTP/1.1\r\nHost: localhost\r\nX-User-Id : mallory\r\n\r\n");
    assert_eq!(client.read_response().status, 400);
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn edited_headers_are_removed_in_every_spelling() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).route(json!({
        "name": "edited", "match": { "prefix": "/edited" }, "auth": "none", "upstream": "echo",
        "request_headers": { "set": { "X-Api-Key": "ours" }, "remove": ["X-Debug"] },
    }));
    let gateway = Gateway::start(config);
    let names = ["X-Api-Key", "X.Api.Key", "X~Api-Key", "X-Debug", "X!Debug"];
    let mut request = Request::get("/edited/a").header("X~Other", "kept");
    for name in names {
        request = request.header(name, "spoofed");
    }
    let echo = gateway.request(&request).echo();
    assert_eq!(seen_values(&echo, "X-Api-Key"), ["ours"]);
    assert!(seen_values(&echo, "X-Debug").is_empty());
    assert_eq!(echo.header("x~other").as_deref(), Some("kept"));
}

#[test]
fn identity_header_spellings_are_removed_over_http2() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let client = Http2::connect(gateway.public);
    let claims = [
        ("x~user~roles", "spoofed"),
        ("x!user-id", "spoofed"),
        ("x+real+ip", "spoofed"),
        ("client-ip", "spoofed"),
        ("proxy", "spoofed"),
        ("x~kept", "kept"),
    ];
    let (status, body) = client.request("GET", "/public/a", &claims);
    assert_eq!(status, 200, "{body}");
    assert!(!body.contains("spoofed"), "{body}");
    assert!(body.contains("kept"), "{body}");
}

#[test]
fn connection_header_cannot_remove_identity_headers() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let many: Vec<String> = (0..50).map(|n| format!("X-N{n}")).collect();
    let many = format!(
        "{}, x-user-id, x-request-id, x-forwarded-for",
        many.join(", ")
    );
    for connection in [
        "X-User-Id",
        "x-user-id, close",
        "\"X-User-Id\"",
        "X-Forwarded-For",
        &many,
    ] {
        let request = Request::get("/private/a")
            .cookie(&alice.cookie)
            .header("Connection", connection);
        let response = gateway.request(&request);
        if response.status == 400 {
            continue;
        }
        let echo = response.echo();
        assert_eq!(
            seen_values(&echo, "X-User-Id"),
            std::slice::from_ref(&alice.user),
            "{connection}"
        );
        assert_eq!(
            seen_values(&echo, "X-Forwarded-For"),
            ["127.0.0.1"],
            "{connection}"
        );
        assert_eq!(seen_values(&echo, "X-Request-Id").len(), 1, "{connection}");
    }
}

#[test]
fn hop_by_hop_headers_are_not_forwarded() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let request = Request::get("/public/a")
        .header("Connection", "keep-alive, X-Hop")
        .header("X-Hop", "one")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "gzip")
        .header("X-Kept", "yes");
    let echo = gateway.request(&request).echo();
    for name in ["x-hop", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(echo.header(name), None, "{name}");
    }
    assert_eq!(echo.header("x-kept").as_deref(), Some("yes"));
    let response = gateway
        .get("/public/reply?Connection=keep-alive,X-Hop&X-Hop=one&Keep-Alive=timeout=9&X-Kept=yes");
    for name in ["x-hop", "keep-alive"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    assert_eq!(response.header("x-kept"), Some("yes"));
}

#[test]
fn repeated_headers_keep_count_and_order() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let request =
        Request::get("/public/reply?Set-Cookie=a=1&X-Two=1&set-cookie=b=2&X-TWO=2&Set-Cookie=c=3")
            .header("X-Two", "1")
            .header("X-Between", "0")
            .header("x-two", "2");
    let response = gateway.request(&request);
    assert_eq!(response.all("set-cookie"), ["a=1", "b=2", "c=3"]);
    assert_eq!(response.all("x-two"), ["1", "2"]);
    let echo = response.json();
    let sent = echo["headers"].as_array().unwrap().iter();
    let two: Vec<&str> = sent
        .filter(|header| header[0].as_str().unwrap().eq_ignore_ascii_case("x-two"))
        .map(|header| header[1].as_str().unwrap())
        .collect();
    assert_eq!(two, ["1", "2"]);
}

#[test]
fn forwarding_headers_from_untrusted_peers_are_replaced() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let claims = [
        ("X-Forwarded-For", "192.0.2.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "port-666"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Uri", "/evil"),
        ("X_Forwarded_For", "192.0.2.9"),
        ("X-Real-IP", "192.0.2.9"),
        ("Forwarded", "for=192.0.2.9;proto=https;host=evil.example"),
        ("X-Original-URL", "/public/evil"),
        ("X-Rewrite-URL", "/public/evil"),
        ("X-Rewrite-Anything", "/public/evil"),
        ("X-Forwarded", "for=192.0.2.9"),
        ("Client-IP", "192.0.2.9"),
        ("X-Client-IP", "192.0.2.9"),
        ("True-Client-IP", "192.0.2.9"),
        ("Client~IP", "192.0.2.9"),
        ("X+Real+IP", "192.0.2.9"),
        ("X^Forwarded^For", "192.0.2.9"),
        ("Proxy", "http://evil.example"),
    ];
    let mut request = Request::get("/public/a").header("Host", "shop.example");
    for (name, value) in claims {
        request = request.header(name, value);
    }
    let echo = gateway.request(&request).echo();
    assert_eq!(echo.target(), "/public/a");
    assert_eq!(seen_values(&echo, "X-Forwarded-For"), ["127.0.0.1"]);
    assert_eq!(seen_values(&echo, "X-Forwarded-Proto"), ["http"]);
    assert_eq!(seen_values(&echo, "X-Forwarded-Host"), ["shop.example"]);
    let seen = echo.0["headers"].to_string();
    for lie in ["192.0.2.9", "evil", "port-666", "https"] {
        assert!(!seen.contains(lie), "{lie}: {seen}");
    }
    // None of them opens a route either.
    for (name, value) in claims {
        let private = Request::get("/private/a").header(name, value);
        gateway
            .request(&private)
            .assert_refused(401, "UNAUTHENTICATED");
    }
    let agent = Request::get("/private/a").header("User-Agent", "kube-probe/1.0");
    gateway
        .request(&agent)
        .assert_refused(401, "UNAUTHENTICATED");
}

#[test]
fn client_is_the_rightmost_untrusted_hop() {
    let upstream = Upstream::start();
    let config = Config::new(upstream.address).set(
        "/listeners/0/trusted_proxies",
        json!(["127.0.0.0/8", "10.0.0.0/8"]),
    );
    let gateway = Gateway::start(config);
    let request = Request::get("/public/a")
        .header("X-Forwarded-For", "203.0.113.7, 198.51.100.4")
        .header("X-Forwarded-For", "10.1.2.3")
        .header("X-Forwarded-Proto", "https")
        .header("Forwarded", "for=203.0.113.99");
    let echo = gateway.request(&request).echo();
    let forwarded = seen_values(&echo, "X-Forwarded-For").join(", ");
    assert!(forwarded.contains("198.51.100.4"), "{forwarded}");
    assert_eq!(seen_values(&echo, "X-Forwarded-Proto"), ["https"]);
    assert!(
        seen_values(&echo, "Forwarded").is_empty(),
        "the other header is removed"
    );
    let line = eventually("the access line", || {
        let mut events = gateway.events().into_iter();
        events.find(|event| event.to_string().contains("/public/a"))
    });
    assert!(
        line.to_string().contains("198.51.100.4"),
        "log and header agree: {line}"
    );
}

#[test]
fn valid_request_id_is_kept_else_generated() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let send = |id: &str| {
        gateway
            .request(&Request::get("/public/a").header("X-Request-ID", id))
            .echo()
    };
    assert_eq!(
        send("abc.DEF_1-2").header("x-request-id").as_deref(),
        Some("abc.DEF_1-2")
    );
    for odd in ["two words", "semi;colon", "<script>", &"x".repeat(129)] {
        let made = send(odd).header("x-request-id").unwrap();
        assert_ne!(made, odd);
        assert!(!made.is_empty() && made.len() <= 128);
    }
    let refused = gateway.request(&Request::get("/private/a").header("X-Request-ID", "mine"));
    assert_eq!(refused.json()["error"]["request_id"], "mine");
}

#[test]
fn trace_is_continued_or_restarted_if_malformed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let valid = format!("00-{trace}-b7ad6b7169203331-01");
    let echo = gateway
        .request(&Request::get("/public/a").header("traceparent", &valid))
        .echo();
    assert!(
        echo.header("traceparent")
            .unwrap()
            .starts_with(&format!("00-{trace}-"))
    );
    for broken in [
        "nonsense",
        &format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
    ] {
        let request = Request::get("/public/a")
            .header("traceparent", broken)
            .header("tracestate", "a=b");
        let echo = gateway.request(&request).echo();
        assert_ne!(echo.header("traceparent").as_deref(), Some(broken));
        assert_eq!(echo.header("tracestate"), None, "a state needs its parent");
    }
}

#[test]
fn upstream_cannot_set_the_session_cookie() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let set = |cookie: &str| format!("Set-Cookie={cookie}");
    let cookies = [
        "portcullis=stolen",
        // What the gateway's own forms are compared with.
        "portcullis-form=stolen",
        "__Host-portcullis-form=stolen",
        "__host-Portcullis-Form=stolen",
        "theme=dark",
    ];
    let cookies = cookies.map(set).join("&");
    let response = gateway.get(&format!("/public/reply?{cookies}"));
    assert_eq!(response.assert_ok().all("set-cookie"), ["theme=dark"]);
    let held = "portcullis-form=secret; theme=dark";
    let echo = gateway
        .request(&Request::get("/public/a").cookie(held))
        .echo();
    assert_eq!(echo.header("cookie").as_deref(), Some("theme=dark"));
}

#[test]
fn identity_values_are_percent_encoded_where_needed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let roles = Request::new("PATCH", &format!("/admin/users/{}", alice.user));
    gateway
        .admin(roles.json(&json!({ "roles": ["größe", "ops"] })))
        .assert_ok();
    let echo = gateway
        .request(&Request::get("/private/a").cookie(&alice.cookie))
        .echo();
    assert_eq!(
        echo.header("x-user-roles").as_deref(),
        Some("gr%C3%B6%C3%9Fe,ops")
    );
}

#[test]
fn trailers_never_become_headers() {
    let recorder = Recorder::responding("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(Config::new(recorder.address));
    let mut client = crate::support::client::Client::connect(gateway.public);
    client.send(
        "POST /public/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nX-User-Id: mallory\r\nAuthorization: Bearer x\r\n\r\n",
    );
    let status = client.read_response().status;
    assert!([200, 400].contains(&status), "{status}");
    let bytes = recorder.bytes();
    assert!(!bytes.to_lowercase().contains("mallory"), "{bytes}");
    assert!(!bytes.contains("Bearer x"), "{bytes}");
}

#[test]
fn cookie_under_other_default_name_is_not_forwarded() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    // From before `cookie.secure` was changed.
    let other = format!("__Host-portcullis={}", alice.session_token);
    let cookies = format!("{other}; theme=dark");
    let pairs = [("cookie", other.as_str()), ("cookie", "theme=dark")];
    let http2 = Http2::connect(gateway.public);
    for path in ["/public/a", "/optional/a"] {
        let echo = gateway.request(&Request::get(path).cookie(&cookies)).echo();
        assert_eq!(
            echo.header("cookie").as_deref(),
            Some("theme=dark"),
            "{path}"
        );
        assert_eq!(echo.header("x-user-id"), None, "{path}");
        let (status, text) = http2.request("GET", path, &pairs);
        assert_eq!(status, 200, "{path}");
        assert!(!text.contains("__Host-portcullis"), "{text}");
    }
    let private = Request::get("/private/a").cookie(&other);
    gateway
        .request(&private)
        .assert_refused(401, "UNAUTHENTICATED");
    // Nor is it in the way of the one that counts.
    let both = format!("{other}; {}", alice.cookie);
    let echo = gateway
        .request(&Request::get("/private/a").cookie(&both))
        .echo();
    assert_eq!(echo.header("cookie"), None);
    let reply = gateway.get("/public/reply?Set-Cookie=__Host-portcullis=stolen");
    assert!(reply.assert_ok().all("set-cookie").is_empty());
}
