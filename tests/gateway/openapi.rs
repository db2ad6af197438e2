//! The endpoints against their OpenAPI description, by a fuzzer.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

#[test]
fn api_conforms_to_its_openapi_description() {
    let program = std::env::var("SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".to_owned());
    if Command::new(&program).arg("--version").output().is_err() {
        eprintln!("skipped: `{program}` is not installed (pip install schemathesis)");
        return;
    }
    let many = json!({ "limit": 1_000_000, "window": "1m" });
    let config = Config::new(Upstream::start().address).set(
        "/identity/builtin/sign_in_limits",
        json!({ "attempts_per_address": many, "failures_per_account": many }),
    );
    let gateway = Gateway::start(config);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi/run");
    let output = Command::new(script)
        .arg(format!("http://{}", gateway.public))
        .args(["--max-examples", "15"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn openapi_examples_are_accepted() {
    for least in [12, 40] {
        let config = Config::new(Upstream::start().address)
            .set("/identity/builtin/password_min_length", json!(least));
        let gateway = Gateway::start(config);
        let description = gateway.get("/api/v1/openapi.json").json();
        let example = |name: &str| {
            let example = &description["components"]["schemas"][name]["example"];
            assert!(example.is_object(), "{name}");
            example.clone()
        };
        let send = |method: &str, path: &str, body: &Value| {
            gateway.request(&Request::new(method, &format!("/api/v1{path}")).json(body))
        };
        let registered = send("POST", "/auth/register", &example("Registration"));
        assert_eq!(registered.status, 201, "{}", registered.text());
        let token = registered.data()["access_token"]
            .as_str()
            .unwrap()
            .to_owned();
        send("POST", "/auth/login", &example("Login")).assert_ok();
        let refresh = send("POST", "/auth/refresh", &example("Refresh"));
        assert_ne!(refresh.status, 400, "{}", refresh.text());
        for (method, path, name) in [
            ("PATCH", "/sessions/current", "SessionChange"),
            ("PUT", "/profile", "ProfileChange"),
            ("PUT", "/profile/password", "NewPassword"),
        ] {
            let call = Request::new(method, &format!("/api/v1{path}")).json(&example(name));
            let response = gateway.request(&call.bearer(&token));
            assert!(response.status < 300, "{name}: {}", response.text());
        }
    }
}
