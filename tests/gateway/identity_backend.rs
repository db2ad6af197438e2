//! Sign-in where a backend verifies the credentials.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;
use crate::support::{ports, tls};

/// A gateway whose identity backend is at `login` of the echoing upstream.
fn config(upstream: &Upstream, login: &str) -> Config {
    let address = upstream.address;
    Config::new(address).set(
        "/identity",
        json!({ "upstream": {
            "login": format!("POST http://{address}{login}"),
            "user_id": "header:X-Id",
            "roles": "header:X-Roles",
        } }),
    )
}

fn start(login: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(config(&upstream, login)), upstream)
}

fn login() -> Request {
    let body = json!({ "email": "ann@example.com", "password": "secret-of-ann" });
    Request::post("/api/v1/auth/login").json(&body)
}

fn cookie_of(response: &Response) -> String {
    let cookies = response.all("set-cookie");
    let own = cookies
        .iter()
        .find(|cookie| cookie.starts_with("portcullis="));
    own.unwrap().split(';').next().unwrap().to_owned()
}

#[test]
fn backend_identity_becomes_the_session_identity() {
    let (gateway, _) = start("/login/reply?X-Id=7&X-Roles=admin,ops");
    let response = gateway.request(&login());
    let data = response.assert_ok().data();
    assert_eq!(data["user"]["id"], "7");
    assert_eq!(data["user"]["roles"], json!(["admin", "ops"]));
    assert_eq!(data["session"]["user_id"], "7");
    assert!(data.get("session_token").is_none());
    let cookie = cookie_of(&response);
    let echo = gateway
        .request(&Request::get("/private/a").cookie(&cookie))
        .echo();
    assert_eq!(echo.header("x-user-id").as_deref(), Some("7"));
    assert_eq!(echo.header("x-user-roles").as_deref(), Some("admin,ops"));
    let token = data["access_token"].as_str().unwrap();
    gateway
        .request(&Request::get("/private/a").bearer(token))
        .assert_ok();

    let refresh = |token: &Value| {
        let body = json!({ "refresh_token": token });
        gateway.request(&Request::post("/api/v1/auth/refresh").json(&body))
    };
    let refreshed = refresh(&data["refresh_token"]).assert_ok().data();
    assert_eq!(refreshed["user"]["id"], "7");
    assert_eq!(refreshed["user"]["roles"], json!(["admin", "ops"]));
    let sessions = gateway.request(&Request::get("/api/v1/sessions").cookie(&cookie));
    assert_eq!(sessions.assert_ok().data()["count"], 1);

    // Signing in again in the same browser replaces the session.
    let again = gateway.request(&login().cookie(&cookie).same_origin());
    let fresh = cookie_of(again.assert_ok());
    let private = |cookie: &str| gateway.request(&Request::get("/private/a").cookie(cookie));
    private(&cookie).assert_refused(401, "SESSION_REVOKED");
    private(&fresh).assert_ok();
    let sign_out = Request::post("/api/v1/auth/logout").cookie(&fresh);
    assert_eq!(gateway.request(&sign_out.same_origin()).status, 204);
    private(&fresh).assert_refused(401, "SESSION_REVOKED");
    refresh(&again.data()["refresh_token"]).assert_refused(401, "SESSION_REVOKED");
}

#[test]
fn backend_receives_client_fields_and_address() {
    let upstream = Upstream::start();
    let config =
        config(&upstream, "/login/reply?X-Id=7").set("/identity/upstream/answer", json!("pass"));
    let gateway = Gateway::start(config);
    // Spaces, an unknown member and all: byte for byte.
    let body = r#"{ "email":"ann@example.com" , "password":"p\u00e4ss", "otp": 123456 }"#;
    let request = Request::post("/api/v1/auth/login")
        .header("Content-Type", "application/json; charset=utf-8")
        .header("User-Agent", "tests/1")
        .header("X-Request-ID", "the-id")
        .header("Cookie", "other=1")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("Authorization", "Basic eDp5")
        .body(body);
    let response = gateway.request(&request);
    let echo = response.echo();
    assert_eq!(echo.0["method"], "POST");
    assert_eq!(echo.0["body"], body);
    assert_eq!(
        echo.header("content-type").as_deref(),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(echo.header("user-agent").as_deref(), Some("tests/1"));
    assert_eq!(echo.header("x-request-id").as_deref(), Some("the-id"));
    assert_eq!(echo.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(echo.header("cookie"), None);
    assert_eq!(echo.header("authorization"), None);
    // The backend's response was forwarded, with the session beside it.
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("x-session-id").map(str::len), Some(64));
    let cookie = cookie_of(&response);
    gateway
        .request(&Request::get("/private/a").cookie(&cookie))
        .assert_ok();
}

#[test]
fn only_a_backend_denial_is_a_wrong_password() {
    for status in [400, 401, 403, 422] {
        let (gateway, _) = start(&format!("/login/status-{status}"));
        let response = gateway.request(&login());
        response.assert_refused(401, "INVALID_CREDENTIALS");
        assert!(response.header("set-cookie").is_none());
    }
    for (path, status, code) in [
        ("/login/status-500", 502, "UPSTREAM_PROTOCOL_ERROR"),
        ("/login/status-404", 502, "UPSTREAM_PROTOCOL_ERROR"),
        ("/login/status-503", 503, "UPSTREAM_UNAVAILABLE"),
        ("/login/status-504", 504, "UPSTREAM_TIMEOUT"),
        ("/login/garbage", 502, "UPSTREAM_PROTOCOL_ERROR"),
        ("/login/close", 502, "UPSTREAM_PROTOCOL_ERROR"),
        ("/login/big?bytes=2000000", 502, "UPSTREAM_PROTOCOL_ERROR"),
        // A yes that does not say who.
        ("/login/status-200", 502, "UPSTREAM_PROTOCOL_ERROR"),
        ("/login/reply?X-Id=", 502, "UPSTREAM_PROTOCOL_ERROR"),
    ] {
        let (gateway, _) = start(path);
        let response = gateway.request(&login());
        response.assert_refused(status, code);
        assert!(response.header("set-cookie").is_none());
        let logs = gateway.wait_for_log("identity backend");
        assert!(!logs.contains("secret-of-ann"), "{path}");
    }
}

#[test]
fn backend_redirect_is_not_followed() {
    let upstream = Upstream::start();
    let other = Upstream::start();
    for status in [301, 302, 303, 307, 308] {
        let target = format!(
            "/login/status-{status}?Location=http://{}/stolen",
            other.address
        );
        let gateway = Gateway::start(config(&upstream, &target));
        gateway
            .request(&login())
            .assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    }
    assert_eq!(other.requests(), 0);
}

#[test]
fn unavailable_or_slow_backend_is_reported() {
    let upstream = Upstream::start();
    let gone = ports::free();
    let with = |login: String| {
        Config::new(upstream.address).set(
            "/identity",
            json!({ "upstream": { "login": login, "user_id": "/id", "timeout": "300ms" } }),
        )
    };
    let gateway = Gateway::start(with(format!("POST http://{gone}/login")));
    gateway
        .request(&login())
        .assert_refused(502, "UPSTREAM_UNREACHABLE");
    let slow = format!("POST http://{}/slow?ms=2000", upstream.address);
    let gateway = Gateway::start(with(slow));
    gateway
        .request(&login())
        .assert_refused(504, "UPSTREAM_TIMEOUT");
    let limited = format!("POST http://{}/status-429?Retry-After=17", upstream.address);
    let gateway = Gateway::start(with(limited));
    let response = gateway.request(&login());
    response.assert_refused(429, "RATE_LIMITED");
    assert_eq!(response.numeric_header("retry-after"), 17);
}

#[test]
fn backend_cookies_pass_only_if_allowed() {
    let path = "/login/reply?X-Id=7&Set-Cookie=theme=dark; Path=/&Set-Cookie=portcullis=stolen";
    let upstream = Upstream::start();
    // The address of a login is a URL, in which a space is %20 and stays so.
    let path = path.replace(' ', "");
    for (pass, response, expected) in [
        (false, "replace", 1),
        (false, "pass", 1),
        (true, "replace", 2),
        (true, "pass", 2),
    ] {
        let config = config(&upstream, &path)
            .set("/identity/upstream/pass_set_cookie", json!(pass))
            .set("/identity/upstream/answer", json!(response));
        let gateway = Gateway::start(config);
        let response = gateway.request(&login());
        let cookies = response.assert_ok().all("set-cookie");
        assert_eq!(cookies.len(), expected, "{cookies:?}");
        assert!(!cookies.iter().any(|cookie| cookie.contains("stolen")));
        assert_eq!(
            cookies.iter().any(|cookie| cookie.starts_with("theme=")),
            pass
        );
        gateway
            .request(&Request::get("/private/a").cookie(&cookie_of(&response)))
            .assert_ok();
    }
}

#[test]
fn registration_and_profile_are_left_to_the_backend() {
    let upstream = Upstream::start();
    let config = config(&upstream, "/login/reply?X-Id=7").route(json!({
        "name": "backend", "match": { "prefix": "/api/v1" }, "auth": "none", "upstream": "echo",
    }));
    let gateway = Gateway::start(config);
    for path in ["/api/v1/auth/register", "/api/v1/auth/signup"] {
        let echo = gateway
            .request(&Request::post(path).json(&json!({})))
            .echo();
        assert_eq!(echo.0["target"], path);
    }
    let password = Request::new("PUT", "/api/v1/profile/password").json(&json!({}));
    assert_eq!(
        gateway.request(&password).echo().0["target"],
        "/api/v1/profile/password"
    );
    gateway
        .get("/api/v1/sessions")
        .assert_refused(401, "UNAUTHENTICATED");
    let described = gateway.get("/api/v1/openapi.json").json();
    assert!(described["paths"]["/auth/register"].is_null());
    assert!(described["paths"]["/profile"].is_null());
    let login = &described["paths"]["/auth/login"]["post"]["responses"];
    assert!(login["504"].is_object(), "{login}");
}

#[test]
fn guessing_is_limited_before_calling_the_backend() {
    let upstream = Upstream::start();
    let config = config(&upstream, "/login/status-401").set(
        "/identity/upstream/sign_in_limits",
        json!({
            "attempts_per_address": { "limit": 8, "window": "1m" },
            "failures_per_account": { "limit": 3, "window": "10m" },
        }),
    );
    let gateway = Gateway::start(config);
    let guess = |body: Value| gateway.request(&Request::post("/api/v1/auth/login").json(&body));
    // Whatever the backend reads as the account is counted, in every spelling.
    let spellings = [
        json!({ "email": "ann@example.com", "password": "1" }),
        json!({ "email": " Ann@Example.com", "password": "2" }),
        json!({ "email": "bob@example.com", "Email": "ANN@example.com", "password": "3" }),
    ];
    for body in spellings {
        guess(body).assert_refused(401, "INVALID_CREDENTIALS");
    }
    let requested = upstream.requests();
    let limited = guess(json!({ "username": "ann@example.com", "password": "4" }));
    limited.assert_refused(429, "RATE_LIMITED");
    assert!(limited.numeric_header("retry-after") > 0);
    assert_eq!(upstream.requests(), requested, "the backend was not asked");
    guess(json!({ "password": "5" })).assert_refused(400, "VALIDATION_FAILED");
    let mut last = 0;
    for n in 0..8 {
        last = guess(json!({ "email": format!("user{n}@example.com"), "password": "x" })).status;
    }
    assert_eq!(last, 429, "eight attempts of one address, whoever it tried");
}

#[test]
fn owner_is_not_locked_out_at_known_addresses() {
    let upstream = Upstream::start();
    let config = config(&upstream, "/login/reply?X-Id=7")
        .set("/listeners/0/trusted_proxies", json!(["127.0.0.1/32"]))
        .set(
            "/identity/upstream/sign_in_limits/failures_per_account",
            json!({ "limit": 1, "window": "10m" }),
        );
    let mut gateway = Gateway::start(config);
    let from =
        |gateway: &Gateway, ip: &str| gateway.request(&login().header("X-Forwarded-For", ip));
    from(&gateway, "192.0.2.1").assert_ok();
    let address = upstream.address;
    gateway.reload("applied", |config| {
        let fails = format!("POST http://{address}/login/status-401");
        config.put("/identity/upstream/login", json!(fails));
    });
    for n in 1..=10 {
        from(&gateway, &format!("198.51.100.{n}")).assert_refused(401, "INVALID_CREDENTIALS");
    }
    from(&gateway, "203.0.113.5").assert_refused(429, "RATE_LIMITED");
    gateway.reload("applied", |config| {
        let works = format!("POST http://{address}/login/reply?X-Id=7");
        config.put("/identity/upstream/login", json!(works));
    });
    from(&gateway, "203.0.113.5").assert_refused(429, "RATE_LIMITED");
    from(&gateway, "192.0.2.1").assert_ok();
}

#[test]
fn sign_in_does_not_prove_other_names() {
    let upstream = Upstream::start();
    let config = config(&upstream, "/login/reply?X-Id=7&X-Email=mallory@example.com")
        .set("/identity/upstream/email", json!("header:X-Email"))
        .set("/listeners/0/trusted_proxies", json!(["127.0.0.1/32"]))
        .set(
            "/identity/upstream/sign_in_limits/failures_per_account",
            json!({ "limit": 1, "window": "10m" }),
        );
    let mut gateway = Gateway::start(config);
    let from = |gateway: &Gateway, ip: &str, body: &Value| {
        let request = Request::post("/api/v1/auth/login").json(body);
        gateway.request(&request.header("X-Forwarded-For", ip))
    };
    let [own, both, victim] = [
        json!({ "email": "Mallory@example.com", "password": "right" }),
        json!({ "email": "mallory@example.com", "username": "ann", "password": "right" }),
        json!({ "username": "ann", "password": "guess" }),
    ];
    from(&gateway, "203.0.113.5", &both).assert_ok();
    let address = upstream.address;
    gateway.reload("applied", |config| {
        let fails = format!("POST http://{address}/login/status-401");
        config.put("/identity/upstream/login", json!(fails));
    });
    for n in 1..=10 {
        for body in [&own, &victim] {
            let guess = from(&gateway, &format!("198.51.100.{n}"), body);
            guess.assert_refused(401, "INVALID_CREDENTIALS");
        }
    }
    // From there mallory has signed in, and ann has not.
    from(&gateway, "203.0.113.5", &own).assert_refused(401, "INVALID_CREDENTIALS");
    from(&gateway, "203.0.113.5", &victim).assert_refused(429, "RATE_LIMITED");
}

#[test]
fn concurrent_backend_calls_are_limited() {
    let upstream = Upstream::start();
    let config = config(&upstream, "/login/slow?ms=500")
        .set("/identity/upstream/concurrency", json!(2))
        .set("/identity/upstream/timeout", json!("15s"));
    let gateway = Gateway::start(config);
    let start = Instant::now();
    let mut clients: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = Client::connect(gateway.public);
            client.send(login().to_bytes());
            client
        })
        .collect();
    for client in &mut clients {
        // It does not say who: what matters here is when it says so.
        client
            .read_response()
            .assert_refused(502, "UPSTREAM_PROTOCOL_ERROR");
    }
    assert!(start.elapsed() >= Duration::from_secs(1), "two by two");
    assert_eq!(upstream.requests(), 4);
}

#[test]
fn waiting_backend_calls_end_in_overload_or_timeout() {
    let upstream = Upstream::start();
    let config = config(&upstream, "/login/slow?ms=3000")
        .set("/identity/upstream/concurrency", json!(1))
        .set("/identity/upstream/timeout", json!("500ms"));
    let gateway = Gateway::start(config);
    let mut clients: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = Client::connect(gateway.public);
            client.send(login().to_bytes());
            client
        })
        .collect();
    for client in &mut clients {
        let code = client.read_response().code();
        assert!(
            ["UPSTREAM_TIMEOUT", "OVERLOADED"].contains(&code.as_str()),
            "{code}"
        );
    }
}

#[test]
fn cross_site_form_cannot_sign_in() {
    let (gateway, upstream) = start("/login/reply?X-Id=7");
    let requested = upstream.requests();
    for content_type in [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
    ] {
        let form = Request::post("/api/v1/auth/login")
            .header("Content-Type", content_type)
            .body(r#"{"email":"ann@example.com","password":"x"}"#);
        gateway
            .request(&form)
            .assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    let foreign = login().header("Origin", "http://evil.example");
    gateway
        .request(&foreign)
        .assert_refused(403, "CSRF_REJECTED");
    assert_eq!(upstream.requests(), requested);
}

#[test]
fn https_backend_is_verified_and_supports_client_certificates() {
    let upstream = Upstream::start();
    let (certificate, own) = (tls::certificate("localhost"), tls::certificate("gateway"));
    let behind = Config::new(upstream.address);
    let cert = behind.write_beside("site.pem", &certificate.cert);
    let key = behind.write_beside("site.key", &certificate.key);
    let client_ca = behind.write_beside("clients.pem", &own.cert);
    let behind = behind.set(
        "/listeners/0/tls",
        json!({ "certificates": [{ "cert": cert, "key": key }], "client_ca": client_ca }),
    );
    let behind = Gateway::start(behind);
    let login_at = format!(
        "POST https://localhost:{}/public/reply?X-Id=7",
        behind.public.port()
    );
    let requested = |trust: bool, show: bool| {
        let mut config =
            config(&upstream, "/unused").set("/identity/upstream/login", json!(login_at));
        let files = [
            (
                "ca",
                config.write_beside("ca.pem", &certificate.cert),
                trust,
            ),
            ("cert", config.write_beside("own.pem", &own.cert), show),
            ("key", config.write_beside("own.key", &own.key), show),
        ];
        for (name, file, _) in files.iter().filter(|(_, _, given)| *given) {
            config.put(&format!("/identity/upstream/tls/{name}"), json!(file));
        }
        Gateway::start(config).request(&login())
    };
    requested(true, true).assert_ok();
    requested(false, true).assert_refused(502, "UPSTREAM_UNREACHABLE");
    assert_eq!(requested(true, false).status, 502);
}

fn start_with_failure_limit(upstream: &Upstream, failures: u32) -> Gateway {
    let pages = config(upstream, "/login/status-401")
        .set("/routes/0/on_unauthenticated", json!("redirect"));
    let config = pages.set(
        "/identity/upstream/sign_in_limits",
        json!({
            "attempts_per_address": { "limit": 1000, "window": "1h" },
            "failures_per_account": { "limit": failures, "window": "1h" },
        }),
    );
    Gateway::start(config)
}

#[test]
fn ambiguous_login_never_reaches_the_backend() {
    let upstream = Upstream::start();
    let gateway = start_with_failure_limit(&upstream, 1000);
    let guess = |body: &Value| gateway.request(&Request::post("/api/v1/auth/login").json(body));
    let odd = [
        json!(["victim@example.com"]),
        json!({ "$ne": "x" }),
        json!(5),
        json!(true),
        json!(null),
        json!("victim\u{0}@example.com"),
        json!("victim@example.com\n"),
        json!("vic\u{200b}tim@example.com"),
        json!("vic\u{ad}tim@example.com"),
        json!("victim@example.com\u{feff}"),
        json!("vic\u{2060}tim"),
        json!("vic\u{202e}tim"),
        json!("vic\u{e0041}tim"),
        json!("vic\u{3164}tim"),
    ];
    for name in &odd {
        for body in [
            json!({ "email": name, "password": "x" }),
            json!({ "email": name, "username": "decoy", "password": "x" }),
            json!({ "email": "decoy@example.com", "username": name, "password": "x" }),
            json!({ "email": "decoy@example.com", "EMAIL": name, "password": "x" }),
        ] {
            let response = guess(&body);
            response.assert_refused(400, "VALIDATION_FAILED");
        }
    }
    let fields = "login=vic%E2%80%8Btim&password=x";
    let form = Request::post("/api/v1/sign-in")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Origin", "http://localhost");
    let page = gateway.request(&form.body(fields));
    assert_eq!(page.status, 400, "{}", page.text());
    assert!(page.text().contains("invisible"), "{}", page.text());
    // This many spellings of one member are a way to load the store.
    let mut many = json!({ "password": "x" });
    for n in 0..32_u32 {
        let flip = |(at, c): (usize, char)| match n >> at & 1 {
            1 => c.to_ascii_uppercase(),
            _ => c,
        };
        let name: String = "email".chars().enumerate().map(flip).collect();
        many[name] = json!(format!("ann{n}@example.com"));
    }
    guess(&many).assert_refused(400, "VALIDATION_FAILED");
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn login_is_normalized_for_accents_width_and_case() {
    let upstream = Upstream::start();
    let gateway = start_with_failure_limit(&upstream, 3);
    let guess = |body: &Value| gateway.request(&Request::post("/api/v1/auth/login").json(body));
    let spellings = [
        json!({ "username": "andre strasse", "password": "x" }),
        json!({ "username": "Andr\u{e9} Stra\u{df}e", "password": "x" }),
        json!({ "username": "\u{ff41}ndre\u{301}\u{a0}\u{17f}tra\u{1e9e}e", "password": "x" }),
    ];
    for body in &spellings {
        guess(body).assert_refused(401, "INVALID_CREDENTIALS");
    }
    let requested = upstream.requests();
    for body in [
        json!({ "username": "ANDRE STRASSE\u{2003}", "password": "x" }),
        json!({ "email": "ok@example.com", "u\u{17f}ername": "andre strasse", "password": "x" }),
        json!({ "username": "\u{c5}ndre strasse", "password": "x" }),
    ] {
        guess(&body).assert_refused(429, "RATE_LIMITED");
    }
    assert_eq!(upstream.requests(), requested);
}
