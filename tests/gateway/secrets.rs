//! Canaries: no secret appears where it does not belong, even at debug level.

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::{ADMIN_TOKEN, Config, SECRET};
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

const PASSWORD: &str = "canary-password-7f3a";
const REDIS_PASSWORD: &str = "canary-redis-77b1";

#[test]
fn secrets_stay_out_of_logs_metrics_and_store() {
    for level in ["debug", "trace"] {
        run_with_canaries(level);
    }
}

fn run_with_canaries(level: &str) {
    let redis = Redis::start();
    let rights = format!("ACL SETUSER gateway on >{REDIS_PASSWORD} ~* &* +@all");
    redis.command(&rights.split(' ').collect::<Vec<_>>());
    let upstream = Upstream::start();
    let config = Config::new(upstream.address)
        .store(&redis.url())
        .set("/store/username", json!("gateway"))
        .set("/store/password", json!(REDIS_PASSWORD));
    let gateway = Gateway::start_with_arguments(config, &["--log-level", level]);
    let body =
        json!({ "email": "canary@example.com", "password": PASSWORD, "session_token": true });
    let registered = gateway.request(&Request::post("/api/v1/auth/register").json(&body));
    assert_eq!(registered.status, 201, "{}", registered.text());
    let data = registered.data();
    let access = data["access_token"].as_str().unwrap().to_owned();
    let session = data["session_token"].as_str().unwrap().to_owned();
    let cookie = registered
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();

    let responses = use_everything(&gateway, &access, &session, &cookie);

    // Lines are written in their order: with this one all others are there.
    gateway.get("/the-last-request");
    let logs = gateway.wait_for_log("/the-last-request");
    let metrics = Request::get("/metrics").send(gateway.admin).text();
    let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", gateway.pid())).unwrap();
    let places = [
        ("the log", logs),
        ("metrics", metrics),
        ("an error", responses),
        ("redis", redis.dump()),
        ("the process list", command_line),
    ];
    let signature = access.rsplit('.').next().unwrap();
    let canaries = [
        PASSWORD,
        REDIS_PASSWORD,
        SECRET,
        ADMIN_TOKEN,
        &session,
        signature,
        "canary-body-91c2",
        "Y2FuYXJ5OmNhbmFyeQ",
    ];
    for (place, text) in &places {
        for canary in canaries {
            if let Some(line) = text.lines().find(|line| line.contains(canary)) {
                panic!("{level}: {canary} is in {place}: {line}");
            }
        }
    }
    assert!(
        places[0]
            .1
            .contains(data["session"]["id"].as_str().unwrap()),
        "the session's id may be"
    );
}

/// Sends every secret wherever it may go, rightly and wrongly; returns what the errors said.
fn use_everything(gateway: &Gateway, access: &str, session: &str, cookie: &str) -> String {
    let mut errors = String::new();
    let mut ask = |request: Request| {
        let response = gateway.request(&request);
        if response.status >= 400 {
            errors.push_str(&response.text());
        }
    };
    let wrong = json!({ "email": "canary@example.com", "password": format!("{PASSWORD}-wrong") });
    ask(Request::post("/api/v1/auth/login").json(&wrong));
    ask(Request::get("/private/a").bearer(access));
    ask(Request::get("/private/a").cookie(cookie));
    ask(Request::get("/public/a").bearer(access).cookie(cookie));
    ask(Request::get("/private/a").bearer(&access[..access.len() - 3]));
    ask(Request::get("/private/a").header("Authorization", &format!("Session {session}")));
    ask(Request::get(&format!("/private/a?token={access}")));
    ask(Request::get("/private/a").header("Authorization", "Basic Y2FuYXJ5OmNhbmFyeQ=="));
    ask(Request::post("/public/a").body("canary-body-91c2"));
    // A malformed head that carries secrets, and one over the wire's limits.
    let mut client = Client::connect(gateway.public);
    client.send(format!(
        "GET / HTTP/1.1\r\nCookie: {cookie}\r\nBad Header\r\nAuthorization: Bearer {access}\r\n\r\n"
    ));
    let _ = client.read_response_to("GET");
    gateway.admin(Request::get("/admin/sessions"));
    ask(Request::post("/api/v1/auth/logout").bearer(access));
    errors
}
