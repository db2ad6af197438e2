//! Routes that accept some kinds of credentials: another kind counts as none, and decides nothing. The
//! access log names the kind that decided, and where its user comes from.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::issuer::Issuer;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// Routes by what they accept, under `/NAME`, and with optional authentication under `/optional-NAME`.
fn config(upstream: &Upstream) -> Config {
    let mut config = Config::new(upstream.address);
    for (name, accept) in [
        ("sessions", json!(["session"])),
        ("tokens", json!(["token"])),
        ("keys", json!(["api_key"])),
        ("both", json!(["token", "session"])),
        ("all", Value::Null),
    ] {
        for (auth, prefix) in [
            ("required", format!("/{name}")),
            ("optional", format!("/optional-{name}")),
        ] {
            config = config.route(json!({
                "name": &prefix[1..], "match": { "prefix": prefix }, "auth": auth,
                "accept": accept, "upstream": "echo",
            }));
        }
    }
    config
}

/// The line that is logged for a request.
fn access_line(gateway: &Gateway, request: Request, status: u16) -> Value {
    let id = format!("id-{}", gateway.events().len());
    let response = gateway.request(&request.header("X-Request-ID", &id));
    assert_eq!(response.status, status, "{}", response.text());
    eventually("the access line", || {
        let mut lines = gateway.events().into_iter();
        lines.find(|line| line["kind"] == "access" && line["request_id"] == id.as_str())
    })
}

fn with_session(path: &str, user: &SignedIn) -> [Request; 2] {
    let header = format!("Session {}", user.session_token);
    [
        Request::get(path).cookie(&user.cookie),
        Request::get(path).header("Authorization", &header),
    ]
}

#[test]
fn credential_of_another_kind_counts_as_absent() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(config(&upstream));
    let alice = gateway.register("alice@example.com");
    for (route, accepts_session, accepts_token) in [
        ("sessions", true, false),
        ("tokens", false, true),
        ("keys", false, false),
        ("both", true, true),
        ("all", true, true),
    ] {
        let (path, optional) = (format!("/{route}/a"), format!("/optional-{route}/a"));
        // Repeated: the caller of a recent request is recalled, on the routes that accept it alone.
        for _ in 0..4 {
            let [cookie, header] = with_session(&path, &alice);
            let token = Request::get(&path).bearer(&alice.access_token);
            for (request, is_accepted) in [
                (cookie, accepts_session),
                (header, accepts_session),
                (token, accepts_token),
            ] {
                let response = gateway.request(&request);
                if is_accepted {
                    assert_eq!(
                        response.echo().header("x-user-id"),
                        Some(alice.user.clone())
                    );
                } else {
                    response.assert_refused(401, "UNAUTHENTICATED");
                    assert_eq!(response.all("set-cookie"), [""; 0], "{path}");
                }
            }
            let [cookie, header] = with_session(&optional, &alice);
            let token = Request::get(&optional).bearer(&alice.access_token);
            for (request, is_accepted) in [
                (cookie, accepts_session),
                (header, accepts_session),
                (token, accepts_token),
            ] {
                let user = gateway.request(&request).echo().header("x-user-id");
                assert_eq!(user, is_accepted.then(|| alice.user.clone()), "{optional}");
            }
        }
    }
}

#[test]
fn kind_is_decided_by_the_first_credential_even_if_it_is_bad() {
    let gateway = Gateway::start(config(&Upstream::start()));
    let alice = gateway.register("alice@example.com");
    // The token comes first; its kind is not accepted, and the cookie is not looked at.
    let both = Request::get("/sessions/a").cookie(&alice.cookie);
    gateway
        .request(&both.bearer(&alice.access_token))
        .assert_refused(401, "UNAUTHENTICATED");
    for (path, status, code) in [
        ("/tokens/a", 401, "TOKEN_INVALID"),
        ("/sessions/a", 401, "UNAUTHENTICATED"),
        ("/optional-tokens/a", 401, "TOKEN_INVALID"),
    ] {
        for bad in ["a b", "forged"] {
            let response = gateway.request(&Request::get(path).bearer(bad));
            response.assert_refused(status, code);
        }
    }
    let open = Request::get("/optional-sessions/a").bearer("a b");
    assert_eq!(gateway.request(&open).echo().header("x-user-id"), None);
    // A cookie that is of no kind that the route accepts is neither refused nor cleared.
    let stale = Request::get("/optional-tokens/a").cookie("portcullis=stale");
    let response = gateway.request(&stale);
    assert_eq!(response.assert_ok().all("set-cookie"), [""; 0]);
    let twice = Request::get("/keys/a").bearer("a").bearer("b");
    gateway
        .request(&twice)
        .assert_refused(400, "AMBIGUOUS_CREDENTIALS");
}

#[test]
fn access_log_names_kind_and_source_of_the_credential() {
    let issuer = Issuer::new();
    let upstream = Upstream::start();
    let prefixed = config(&upstream);
    let gateway = Gateway::start(issuer.trusted_in(prefixed));
    let alice = gateway.register("alice@example.com");
    let foreign = issuer.bearer("bob", "1");
    let line = |request: Request, status: u16| access_line(&gateway, request, status);
    let assert_names = |line: &Value, credential: &str, source: Option<&str>| {
        assert_eq!(line["credential"], credential, "{line}");
        assert_eq!(line.get("source").and_then(Value::as_str), source, "{line}");
    };
    for _ in 0..3 {
        for request in with_session("/all/a", &alice) {
            assert_names(&line(request, 200), "session", Some("database"));
        }
        let token = Request::get("/all/a").bearer(&alice.access_token);
        assert_names(&line(token, 200), "token", Some("database"));
        let foreign = Request::get("/all/a").header("Authorization", &foreign);
        assert_names(&line(foreign, 200), "token", Some("https://id.example"));
    }
    let [cookie, _] = with_session("/api/v1/sessions/current", &alice);
    assert_names(&line(cookie, 200), "session", Some("database"));
    let [cookie, _] = with_session("/public/a", &alice);
    assert_names(&line(cookie, 200), "none", None);
    let [cookie, _] = with_session("/keys/a", &alice);
    let refused = line(cookie, 401);
    assert_names(&refused, "none", None);
    assert_eq!(
        refused["reason"],
        "the route does not accept this kind of credential"
    );
    assert_names(&line(Request::get("/all/a"), 401), "none", None);
    assert_names(
        &line(Request::get("/all/a").bearer("forged"), 401),
        "token",
        None,
    );
    assert_names(
        &line(Request::get("/all/a").bearer("a b"), 401),
        "token",
        None,
    );
    let unknown = format!("Session {}", "0".repeat(64));
    let unknown = Request::get("/all/a").header("Authorization", &unknown);
    assert_names(&line(unknown, 401), "session", None);
    let logout = Request::post("/api/v1/auth/logout").cookie(&alice.cookie);
    assert_eq!(gateway.request(&logout.same_origin()).status, 204);
    let [ended, _] = with_session("/all/a", &alice);
    assert_names(&line(ended, 401), "session", None);
    let unread = format!(
        "GET /all/a HTTP/1.1\r\nHost: {}\r\nBad Header: 1\r\n\r\n",
        gateway.public
    );
    let mut client = crate::support::client::Client::connect(gateway.public);
    assert_eq!(client.send(unread).read_response().status, 400);
}
