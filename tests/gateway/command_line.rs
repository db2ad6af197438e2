//! Commands that do not serve traffic.

use std::fs::File;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::{Config, SECRET};
use crate::support::gateway::{Gateway, binary, run, run_with_input};
use crate::support::postgres::{PASSWORD, Postgres};
use crate::support::tokens::{hs256, modified_claims, now};
use crate::support::upstream::Upstream;

fn config() -> Config {
    Config::new("127.0.0.1:3000".parse().unwrap())
}

#[test]
fn check_reports_success_or_every_mistake() {
    let good = config();
    let file = good.write();
    let (status, out, err) = run(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!((status, out.lines().count()), (0, 1), "{out}{err}");

    let bad = config()
        .set("/routes/0/upstraem", json!("echo"))
        .set("/routes/1/auth", json!("sometimes"))
        .set("/tokens/signing/secret", json!("${PORTCULLIS_TEST_UNSET}"))
        .set("/admin/token", json!("short"));
    let file = bad.write();
    let (status, out, err) = run(&["check", "--config", file.to_str().unwrap()]);
    let lines: Vec<_> = out
        .lines()
        .chain(err.lines())
        .filter(|l| l.contains("portcullis.yaml:"))
        .collect();
    assert_eq!(status, 1);
    assert!(lines.len() >= 4, "{out}{err}");
    let places = lines.iter().map(|line| {
        let mut parts = line
            .split("portcullis.yaml:")
            .nth(1)
            .unwrap()
            .splitn(3, ':');
        let number = |part: Option<&str>| part.unwrap().parse::<u32>().unwrap();
        (number(parts.next()), number(parts.next()))
    });
    assert!(places.is_sorted(), "in file order: {lines:?}");
    let all = lines.join("\n");
    for part in ["upstraem", "upstream", "sometimes", "PORTCULLIS_TEST_UNSET"] {
        assert!(all.contains(part), "{part}: {all}");
    }
}

#[test]
fn check_succeeds_when_warnings_cannot_be_written() {
    let warned = config().set("/sessions/idle_timeout", json!("90d"));
    let file = warned.write();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut check = Command::new(binary());
    check.args(["check", "--config", file.to_str().unwrap()]);
    let output = check.stderr(full).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("valid"));
}

#[test]
fn usage_error_exits_2_and_missing_file_1() {
    assert_eq!(run(&["no-such-command"]).0, 2);
    assert_eq!(run(&["check"]).0, 2);
    let (status, _, err) = run(&["check", "--config", "/does/not/exist.yaml"]);
    assert_eq!(status, 1);
    assert!(err.contains("/does/not/exist.yaml"), "{err}");
    let (status, out, _) = run(&["--help"]);
    assert_eq!(status, 0);
    for command in [
        "demo", "run", "check", "explain", "schema", "keys", "token", "sessions", "users",
    ] {
        assert!(out.contains(command), "{command}: {out}");
    }
}

#[test]
fn explain_names_route_requirements_and_upstream() {
    let file = config().limit(
        "per-user",
        json!({ "algorithm": "sliding_window", "limit": 5, "window": "1m", "key": "user",
            "consistency": "leased" }),
    );
    let path = file.write();
    let explain =
        |target: &str| run(&["explain", "--config", path.to_str().unwrap(), "GET", target]);
    let (status, out, err) = explain("http://shop.example/private/a?b=c");
    assert_eq!(status, 0, "{err}");
    for part in [
        "private",
        "required",
        "per-user",
        "leased",
        "echo",
        "127.0.0.1:3000",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let mut file = config();
    file.put("/routes/0/on_unauthenticated", json!("redirect"));
    let path = file.write();
    let path = path.to_str().unwrap();
    let browsers = run(&["explain", "--config", path, "GET", "http://x/private/a"]);
    assert!(browsers.1.contains("sign-in page"), "{browsers:?}");
    let (_, out, err) = explain("http://shop.example/nowhere");
    assert!(
        format!("{out}{err}").contains("ROUTE_NOT_FOUND") || out.contains("no route"),
        "{out}{err}"
    );
}

#[test]
fn explain_names_the_response_to_a_preflight() {
    let mut file = config();
    let cors = json!({ "origins": ["https://app.example"], "methods": ["PUT"] });
    file.put("/routes/0/cors", cors);
    let path = file.write();
    let explain = |origin: &str, method: &str| {
        let origin = format!("Origin: {origin}");
        let method = format!("Access-Control-Request-Method: {method}");
        let path = path.to_str().unwrap();
        let url = "http://x/private/a";
        run(&[
            "explain", "--config", path, "OPTIONS", url, "-H", &origin, "-H", &method,
        ])
        .1
    };
    for (origin, method, expected) in [
        ("https://app.example", "PUT", "and allows the request"),
        ("https://app.example", "DELETE", "and does not allow"),
        ("https://other.example", "PUT", "and does not allow"),
    ] {
        let out = explain(origin, method);
        assert!(out.contains(expected), "{origin} {method}: {out}");
        assert!(!out.contains("upstream"), "{origin} {method}: {out}");
    }
}

#[test]
fn schema_command_describes_the_file() {
    let (status, out, _) = run(&["schema"]);
    assert_eq!(status, 0);
    let schema: Value = serde_json::from_str(&out).unwrap();
    for key in ["listeners", "upstreams", "routes", "tokens", "limits"] {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
}

#[test]
fn generated_key_signs_tokens() {
    for algorithm in ["EdDSA", "ES256", "RS256"] {
        let upstream = Upstream::start();
        let config = Config::new(upstream.address);
        let key = config.folder().join("signing.pem");
        let (status, out, err) = run(&[
            "keys",
            "generate",
            "--algorithm",
            algorithm,
            "--out",
            key.to_str().unwrap(),
        ]);
        assert_eq!(status, 0, "{algorithm}: {err}");
        assert!(!out.contains("PRIVATE KEY"), "it went to the file");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&key).unwrap().permissions(),
        );
        assert_eq!(mode & 0o077, 0, "only its owner may read it");
        let signing = json!({ "algorithm": algorithm, "key_file": key });
        let gateway = Gateway::start(config.set("/tokens/signing", signing));
        let alice = gateway.register("alice@example.com");
        gateway
            .request(&Request::get("/private/a").bearer(&alice.access_token))
            .assert_ok();
        // The public key is no HMAC secret.
        let jwks = gateway.get("/api/v1/jwks.json").assert_ok().json();
        let public = jwks["keys"][0].to_string();
        let claims = crate::support::tokens::claims(&alice.access_token).to_string();
        let confused = crate::support::tokens::sign(r#"{"alg":"HS256"}"#, &claims, &public);
        gateway
            .request(&Request::get("/private/a").bearer(&confused))
            .assert_refused(401, "TOKEN_INVALID");
    }
}

#[test]
fn token_inspect_does_not_verify() {
    let file = config();
    let path = file.write();
    let arguments = ["token", "inspect", "--config", path.to_str().unwrap()];
    let expired = json!({
        "iss": "portcullis", "aud": "portcullis", "sub": "u", "sid": "a".repeat(64), "jti": "j",
        "iat": 1, "exp": 2,
    });
    let inspect = |claims: &Value| {
        let (_, output, problem) = run_with_input(&arguments, &hs256(claims));
        assert!(!output.contains(SECRET) && !problem.contains(SECRET));
        format!("{output}{problem}")
    };
    let inspected = inspect(&expired);
    assert!(inspected.contains("refused: expired at"), "{inspected}");
    let valid = modified_claims(&hs256(&expired), &json!({ "exp": now() + 60 }));
    let inspected = inspect(&valid);
    assert!(inspected.contains("verdict accepted"), "{inspected}");
    let thumbprint = URL_SAFE_NO_PAD.encode([0; 32]);
    let cnf = json!({ "cnf": { "x5t#S256": thumbprint } });
    let inspected = inspect(&modified_claims(&hs256(&valid), &cnf));
    assert!(
        inspected.contains("refused as a plain bearer token"),
        "{inspected}"
    );
}

#[test]
fn migrate_creates_tables_and_is_idempotent() {
    let server = Postgres::server();
    let database = server.database();
    for config in [config(), config().postgres(server.address, &database)] {
        let file = config.write();
        let arguments = ["database", "migrate", "--config", file.to_str().unwrap()];
        let first = run(&arguments);
        assert_eq!(first.0, 0, "{}{}", first.1, first.2);
        assert!(
            first.1.contains("is at version") && !first.1.contains(PASSWORD),
            "{}",
            first.1
        );
        assert_eq!(run(&arguments), first);
    }
    let tables = server.sql(&database, "SELECT COUNT(*) FROM users").unwrap();
    assert_eq!(tables, "0");
}

#[test]
fn unusable_database_is_named_without_its_password() {
    let server = Postgres::server();
    let config = config()
        .postgres(server.address, "no_such_database")
        .set("/database/password", json!("canary-wrong-password"));
    let file = config.write();
    let (status, out, err) = run(&["database", "migrate", "--config", file.to_str().unwrap()]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains("no_such_database") && !err.contains("canary"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1, "{err}");
}
