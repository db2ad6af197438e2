//! "Why was this user refused?": how the log, the events and the responses report a request.

use serde_json::{Value, json};

use crate::support::client::{Client, Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD, SignedIn};
use crate::support::http2::Http2;
use crate::support::tokens::{hs256, modified_claims, now};
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, eventually};
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

fn config() -> Config {
    Config::new(Upstream::start().address)
        .limit(
            "per-user",
            json!({ "algorithm": "sliding_window", "limit": 1, "window": "10m", "key": "user" }),
        )
        .route(json!({
            "name": "office", "match": { "prefix": "/office" }, "upstream": "echo",
            "auth": "required", "require": { "roles": ["chief", "clerk"] },
        }))
        .route(json!({
            "name": "ledger", "match": { "prefix": "/ledger" }, "upstream": "echo",
            "auth": "required", "require": { "scopes": ["ledger:read", "ledger:write"] },
        }))
}

/// The access line of a request, by its identifier.
fn access_line(gateway: &Gateway, request_id: &str) -> Value {
    eventually(&format!("the line of {request_id}"), || {
        let mut lines = gateway.events().into_iter();
        lines.find(|line| line["kind"] == "access" && line["request_id"] == request_id)
    })
}

/// Sends a request with a cookie on either protocol, and returns its access line.
fn line_of_request(gateway: &Gateway, http2: bool, path: &str, cookie: &str, status: u16) -> Value {
    let id = format!(
        "{}{}",
        if http2 { "two" } else { "one" },
        path.replace('/', ".")
    );
    let got = if http2 {
        let client = Http2::connect(gateway.public);
        let headers = [("cookie", cookie), ("x-request-id", &id)];
        client.request("GET", path, &headers).0
    } else {
        let request = Request::get(path).cookie(cookie);
        gateway.request(&request.header("X-Request-ID", &id)).status
    };
    assert_eq!(got, status, "{path}");
    access_line(gateway, &id)
}

#[track_caller]
fn assert_names_caller(line: &Value, caller: &SignedIn) {
    assert_eq!(line["user_id"], json!(caller.user), "{line}");
    assert_eq!(line["session_id"], json!(caller.session), "{line}");
    assert!(
        line["reason"].as_str().is_some_and(|why| !why.is_empty()),
        "{line}"
    );
}

#[test]
fn refusal_line_names_caller_and_reason() {
    let gateway = Gateway::start(config());
    for http2 in [false, true] {
        let ann = gateway.register(&format!("ann{http2}@example.com"));
        let missing = line_of_request(&gateway, http2, "/office/a", &ann.cookie, 403);
        assert_names_caller(&missing, &ann);
        assert_eq!(missing["role"], "chief,clerk", "{missing}");
        let missing = line_of_request(&gateway, http2, "/ledger/a", &ann.cookie, 403);
        assert_names_caller(&missing, &ann);
        assert_eq!(missing["scope"], "ledger:read ledger:write", "{missing}");
        line_of_request(&gateway, http2, "/private/once", &ann.cookie, 200);
        let over = line_of_request(&gateway, http2, "/private/twice", &ann.cookie, 429);
        assert_names_caller(&over, &ann);
        assert_eq!(over["limit"], "per-user", "{over}");
        let logout = Request::post("/api/v1/auth/logout").cookie(&ann.cookie);
        assert_eq!(gateway.request(&logout.same_origin()).status, 204);
        let ended = line_of_request(&gateway, http2, "/office/ended", &ann.cookie, 401);
        assert_names_caller(&ended, &ann);
        assert_eq!(ended["code"], "SESSION_REVOKED");
    }
}

#[test]
fn bad_token_line_names_user_if_signature_valid() {
    let gateway = Gateway::start(config());
    let ann = gateway.register("ann@example.com");
    let changes = json!({ "exp": now() - 60, "iat": now() - 120 });
    let expired = hs256(&modified_claims(&ann.access_token, &changes));
    let send = |path: &str, id: &str, token: &str| {
        let request = Request::get(path).bearer(token).header("X-Request-ID", id);
        assert_eq!(gateway.request(&request).status, 401);
        access_line(&gateway, id)
    };
    for (path, id) in [("/private/a", "route"), ("/api/v1/sessions", "endpoint")] {
        let line = send(path, id, &expired);
        assert_names_caller(&line, &ann);
        assert_eq!(line["code"], "TOKEN_EXPIRED");
    }
    let forged = send("/private/a", "forged", &format!("{expired}AAAA"));
    assert!(forged.get("user_id").is_none(), "{forged}");
    assert!(forged["reason"].is_string(), "{forged}");
    // What no line of the program explains has the meaning of its code.
    let lost = Request::get("/nowhere").header("X-Request-ID", "lost");
    gateway
        .request(&lost)
        .assert_refused(404, "ROUTE_NOT_FOUND");
    assert_eq!(
        access_line(&gateway, "lost")["reason"],
        "No route matches this request."
    );
}

#[test]
fn events_use_the_access_log_field_names() {
    let config = config().set("/sessions/bind", json!({ "user_agent": "warn" }));
    let gateway = Gateway::start(config);
    let ann = gateway.register("ann@example.com");
    let body = json!({ "email": "ann@example.com", "password": "not the password" });
    let wrong = Request::post("/api/v1/auth/login").json(&body);
    let wrong = wrong.header("X-Request-ID", "wrong-password");
    gateway
        .request(&wrong)
        .assert_refused(401, "INVALID_CREDENTIALS");
    let elsewhere = Request::get("/private/a").cookie(&ann.cookie);
    let elsewhere = elsewhere
        .header("User-Agent", "another")
        .header("X-Request-ID", "elsewhere");
    gateway.request(&elsewhere).assert_ok();
    let admin = Request::get("/admin/users").bearer("not the token of the admin");
    let refused = admin.header("X-Request-ID", "operator").send(gateway.admin);
    assert_eq!(refused.header("x-request-id"), Some("operator"));
    for (kind, id) in [
        ("sign_in_failed", "wrong-password"),
        ("binding_mismatch", "elsewhere"),
        ("admin_refused", "operator"),
    ] {
        let event = eventually(&format!("the line of {kind}"), || {
            let mut lines = gateway.events().into_iter();
            lines.find(|line| line["event"] == kind)
        });
        assert_eq!(event["request_id"], id, "{event}");
        assert!(
            event["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z')),
            "{event}"
        );
        assert!(event.get("timestamp").is_none(), "{event}");
        let list = Request::get(&format!("/admin/events?event={kind}"));
        let listed = gateway.admin(list).data()["events"][0].clone();
        assert_eq!(listed["request_id"], id, "{listed}");
        if kind != "admin_refused" {
            assert_eq!(event["user_id"], json!(ann.user), "{event}");
            assert_eq!(event["client_ip"], "127.0.0.1", "{event}");
            assert_eq!(listed["user_id"], json!(ann.user), "{listed}");
        }
    }
    // What the program says of itself has the same time.
    let mut lines = gateway.events().into_iter();
    let own = lines.find(|line| line["level"] == "INFO" && line.get("event").is_none());
    assert!(own.is_none_or(|line| line["time"].is_string()));
}

#[test]
fn every_response_carries_the_request_id() {
    let config = Config::new(Upstream::start().address)
        .set("/routes/0/on_unauthenticated", json!("redirect"))
        .set(
            "/routes/2/cors",
            json!({ "origins": ["https://app.example"] }),
        );
    let gateway = Gateway::start(config);
    let page = "text/html";
    let preflight = Request::new("OPTIONS", "/public/a")
        .header("Origin", "https://app.example")
        .header("Access-Control-Request-Method", "GET");
    for (what, status, request) in [
        ("of the upstream", 200, Request::get("/public/a")),
        (
            "in place of its own",
            200,
            Request::get("/public/reply?X-Request-ID=theirs"),
        ),
        ("of a failed upstream", 502, Request::get("/public/close")),
        ("refused", 401, Request::get("/optional/a").bearer("a.b.c")),
        (
            "redirected",
            303,
            Request::get("/private/a").header("Accept", page),
        ),
        ("preflight", 204, preflight),
        ("endpoint", 200, Request::get("/api/v1/health")),
        ("refused endpoint", 401, Request::get("/api/v1/sessions")),
        ("page", 200, Request::get("/api/v1/sign-in")),
    ] {
        let response = gateway.request(&request.header("X-Request-ID", "mine.1"));
        assert_eq!(response.status, status, "{what}");
        assert_eq!(response.all("x-request-id"), ["mine.1"], "{what}");
    }
    let made = gateway.get("/public/a");
    assert_eq!(made.header("x-request-id").map(str::len), Some(32));
    let client = Http2::connect(gateway.public);
    for path in ["/public/a", "/optional/a", "/private/a", "/api/v1/sign-in"] {
        let stream = client.open("GET", path, &[("x-request-id", "mine.2")], b"");
        let headers = stream.unwrap().headers;
        assert_eq!(headers.get("x-request-id").unwrap(), "mine.2", "{path}");
    }
    let health = Request::get("/health").send(gateway.admin);
    assert_eq!(health.header("x-request-id").map(str::len), Some(32));
}

#[test]
fn trace_id_is_in_the_access_log() {
    let gateway = Gateway::start(Config::new(Upstream::start().address));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    for (path, id) in [
        ("/public/a", "forwarded"),
        ("/private/a", "refused"),
        ("/api/v1/health", "endpoint"),
    ] {
        let request = Request::get(path).header("traceparent", &parent);
        let response = gateway.request(&request.header("X-Request-ID", id));
        assert!(matches!(response.status, 200 | 401), "{path}");
        assert_eq!(access_line(&gateway, id)["trace_id"], trace, "{path}");
    }
    // A trace that begins here has the request's identifier, or is named as well.
    let response = gateway.get("/public/a");
    let id = response.header("x-request-id").unwrap().to_owned();
    assert!(access_line(&gateway, &id).get("trace_id").is_none());
    let named = Request::get("/public/a").header("X-Request-ID", "named");
    let parent = gateway
        .request(&named)
        .echo()
        .header("traceparent")
        .unwrap();
    assert_eq!(access_line(&gateway, "named")["trace_id"], parent[3..35]);
}

#[test]
fn page_sign_in_is_logged_like_the_api() {
    let gateway = Gateway::start(config());
    gateway.register("ann@example.com");
    let page = |password: &str, id: &str| {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([("login", "ann@example.com"), ("password", password)]);
        let request = Request::post("/api/v1/sign-in")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("X-Request-ID", id)
            .same_origin();
        gateway.request(&request.body(form.finish())).status
    };
    let endpoint = |password: &str, id: &str| {
        let body = json!({ "email": "ann@example.com", "password": password });
        let request = Request::post("/api/v1/auth/login").json(&body);
        gateway.request(&request.header("X-Request-ID", id)).status
    };
    let counted = |name: &str, outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        gateway.metric(name, &[&outcome])
    };
    let sign_ins = "portcullis_sign_ins_total";
    assert_eq!(counted(sign_ins, "invalid_credentials"), 0.0);
    assert_eq!(
        (page("wrong", "page"), endpoint("wrong", "endpoint")),
        (401, 401)
    );
    assert_eq!(
        (page(PASSWORD, "good"), endpoint(PASSWORD, "right")),
        (303, 200)
    );
    for id in ["page", "endpoint"] {
        let line = access_line(&gateway, id);
        assert_eq!(line["code"], "INVALID_CREDENTIALS", "{line}");
        assert!(line["reason"].is_string(), "{line}");
    }
    assert!(access_line(&gateway, "good").get("code").is_none());
    eventually("both failures are counted", || {
        let both = counted("portcullis_auth_total", "invalid_credentials") == 2.0;
        both.then_some(())
    });
    assert_eq!(counted(sign_ins, "invalid_credentials"), 2.0);
    assert_eq!(counted(sign_ins, "ok"), 2.0);
    assert_eq!(counted(sign_ins, "csrf_rejected"), 0.0);
    let foreign = |path: &str| {
        let request = Request::post(path).header("Origin", "https://evil.example");
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        gateway
            .request(&request.body("login=ann&password=x"))
            .status
    };
    assert_eq!(foreign("/api/v1/sign-in"), 403);
    assert_eq!(counted(sign_ins, "csrf_rejected"), 1.0);
    assert_eq!(foreign("/api/v1/auth/login"), 403);
    assert_eq!(counted(sign_ins, "csrf_rejected"), 2.0);
}

#[test]
fn refused_forms_do_not_displace_other_events() {
    let gateway = Gateway::start(config());
    let ann = gateway.register("ann@example.com");
    let mut client = Client::connect(gateway.public);
    let foreign = Request::post("/api/v1/auth/login").header("Origin", "https://evil.example");
    for _ in 0..300 {
        let refused = client.request(&foreign.clone().json(&json!({})));
        assert_eq!(refused.code(), "CSRF_REJECTED");
    }
    let listed = |query: &str| {
        let list = Request::get(&format!("/admin/events{query}"));
        gateway.admin(list).data()["events"]
            .as_array()
            .unwrap()
            .clone()
    };
    let count = |event: &Value| event["count"].as_u64().unwrap_or(1);
    eventually("all are counted", || {
        let rejected = listed("?event=csrf_rejected&limit=100");
        (rejected.iter().map(count).sum::<u64>() == 300).then_some(())
    });
    let all = listed("?limit=100");
    assert!(all.len() < 30, "they are coalesced: {}", all.len());
    let signed_in = all
        .iter()
        .find(|event| event["event"] == "sign_in")
        .unwrap();
    assert_eq!(signed_in["user_id"], json!(ann.user));
    let rejected = listed("?event=csrf_rejected&limit=1");
    assert_eq!(rejected[0]["client_ip"], "127.0.0.1");
}

#[test]
fn revoked_stream_line_has_status_and_reason() {
    let gateway = Gateway::start(Config::new(Upstream::start().address));
    let ann = gateway.register("ann@example.com");
    let cookie = ("cookie", &*ann.cookie);
    let request = Request::get("/private/sse").cookie(&ann.cookie);
    let mut one = Client::connect(gateway.public);
    one.send(request.header("X-Request-ID", "stream.one").to_bytes());
    one.read_until("data: hello\n\n");
    let connection = Http2::connect(gateway.public);
    let headers = [cookie, ("x-request-id", "stream.two")];
    let mut two = connection
        .open("GET", "/private/sse", &headers, b"")
        .unwrap();
    two.read_until("data: hello\n\n");
    let session = format!("Session {}", ann.session_token);
    let headers = [("authorization", &*session), ("x-request-id", "socket")];
    let mut socket = WebSocketClient::open(gateway.public, "/private/ws", &headers).unwrap();
    assert_eq!(socket.echo("hello"), "hello");
    let end = Request::delete(&format!("/admin/users/{}/sessions", ann.user));
    gateway.admin(end).assert_ok();
    assert_eq!(socket.close_code(DEADLINE), Some(POLICY_VIOLATION));
    for (id, status) in [("stream.one", 200), ("stream.two", 200), ("socket", 101)] {
        let line = access_line(&gateway, id);
        assert_eq!(line["status"], status, "{line}");
        assert!(
            line["bytes_sent"].as_u64() >= Some("data: hello\n\n".len() as u64) || id == "socket",
            "{line}"
        );
        assert_eq!(
            line["reason"], "the session or the token has ended",
            "{line}"
        );
        assert_eq!(line["user_id"], json!(ann.user), "{line}");
    }
    let counted = |code: &str| gateway.metric("portcullis_requests_total", &[code]);
    assert_eq!(counted("code=\"000\""), 0.0);
}

/// Signs in on the endpoint or on the page.
fn sign_in(gateway: &Gateway, page: bool, login: &str, password: &str, id: &str) -> Response {
    let request = if page {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([("login", login), ("password", password)]);
        Request::post("/api/v1/sign-in")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .same_origin()
            .body(form.finish())
    } else {
        let name = if login.contains('@') {
            "email"
        } else {
            "username"
        };
        Request::post("/api/v1/auth/login").json(&json!({ name: login, "password": password }))
    };
    gateway.request(&request.header("X-Request-ID", id))
}

/// The line and the event say why; the client cannot learn it.
#[test]
fn failed_sign_in_line_names_user_and_reason() {
    let config = config().set(
        "/identity/builtin/sign_in_limits",
        json!({ "failures_per_account": { "limit": 2, "window": "1h" } }),
    );
    let gateway = Gateway::start(config);
    for (page, place) in [(false, "endpoint"), (true, "page")] {
        let user = |name: &str| {
            let email = format!("{name}.{place}@example.com");
            let body = json!({ "email": email, "username": format!("{name}.{place}"),
                "password": PASSWORD });
            let response = gateway.request(&Request::post("/api/v1/auth/register").json(&body));
            let id = response.data()["user"]["id"].as_str().unwrap().to_owned();
            (email, id)
        };
        let (wrong, disabled, limited) = (user("wrong"), user("disabled"), user("limited"));
        let change = Request::new("PATCH", &format!("/admin/users/{}", disabled.1));
        gateway
            .admin(change.json(&json!({ "disabled": true })))
            .assert_ok();
        for attempt in 0..2 {
            let id = format!("{place}.before.{attempt}");
            sign_in(&gateway, page, &limited.0, "wrong", &id);
        }
        let unknown = (format!("nobody.{place}@example.com"), String::new());
        let username = (format!("limited.{place}"), limited.1);
        let mut pages = Vec::new();
        for (what, (login, user), password, reason) in [
            ("unknown", unknown, PASSWORD, "no user has this name"),
            ("wrong", wrong, "wrong", "the password is wrong"),
            ("disabled", disabled, PASSWORD, "the user is disabled"),
            (
                "limited",
                username,
                PASSWORD,
                "too many failures to sign in to this account",
            ),
        ] {
            let id = format!("{place}.{what}");
            let response = sign_in(&gateway, page, &login, password, &id);
            assert_eq!(response.status, 401, "{what}");
            let text = response.text().replace(&id, "ID").replace(&login, "LOGIN");
            // The form's own token is random.
            let (before, after) = text
                .split_once("name=\"token\" value=\"")
                .unwrap_or((&text, "\""));
            let after = after.split_once('"').unwrap().1;
            pages.push((before.to_owned(), after.to_owned()));
            let line = access_line(&gateway, &id);
            let event = eventually(&format!("the event of {id}"), || {
                let mut lines = gateway.events().into_iter();
                lines.find(|line| line["event"].is_string() && line["request_id"] == *id)
            });
            for line in [line, event] {
                assert_eq!(line["reason"], reason, "{line}");
                assert_eq!(line["user_id"].as_str().unwrap_or_default(), user, "{line}");
            }
        }
        assert!(pages.iter().all(|page| *page == pages[0]), "{pages:#?}");
    }
}
