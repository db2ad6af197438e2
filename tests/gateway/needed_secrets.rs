//! A command asks only for the secrets that it needs.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::config::{ADMIN_TOKEN, Config, SECRET};
use crate::support::gateway::{Gateway, binary};
use crate::support::postgres::{self, Postgres};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

const ANN: &str = "ann@example.com";
const REDIS_PASSWORD: &str = "a-redis-password";

/// Variables of the configuration, with their values.
const VARIABLES: [(&str, &str); 5] = [
    ("TEST_ADMIN_TOKEN", ADMIN_TOKEN),
    ("TEST_SIGNING_SECRET", SECRET),
    ("TEST_STORE_PASSWORD", REDIS_PASSWORD),
    ("TEST_DATABASE_PASSWORD", postgres::PASSWORD),
    ("TEST_PROXY_SECRET", "a-secret-of-the-proxy-in-front"),
];

/// Runs a command with some of the variables set.
fn run_with(config: &Config, words: &[&str], variables: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(words).arg("--config").arg(config.write());
    for (name, value) in VARIABLES {
        match variables.contains(&name) {
            true => command.env(name, value),
            false => command.env_remove(name),
        };
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Requires that a command succeeds with these variables, and that without one of them it fails and
/// names that one only.
#[track_caller]
fn assert_needs(config: &Config, words: &[&str], needed: &[&str]) {
    let (status, text) = run_with(config, words, needed);
    assert_eq!(status, Some(0), "{words:?}: {text}");
    for missing in needed {
        let others: Vec<&str> = needed.iter().copied().filter(|it| it != missing).collect();
        let (status, text) = run_with(config, words, &others);
        assert_eq!(status, Some(1), "{words:?} without {missing}: {text}");
        let expected = format!("the environment variable {missing} is not set");
        assert!(text.contains(&expected), "{words:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{words:?}: {text}");
    }
}

fn with_variables(config: Config) -> Config {
    let of_proxy = json!({
        "name": "proxy", "match": { "headers": { "X-Origin-Verify": "${TEST_PROXY_SECRET}" } },
        "upstream": "echo",
    });
    let missing = "/run/secrets/not-on-this-machine.pem";
    let tls = json!({ "certificates": [{ "cert": missing, "key": missing }] });
    config
        .route(of_proxy)
        .set("/listeners/0/tls", tls)
        .set("/admin/token", json!("${TEST_ADMIN_TOKEN}"))
        .set("/tokens/signing/secret", json!("${TEST_SIGNING_SECRET}"))
        .set(
            "/tokens/verify_also",
            json!([{ "algorithm": "RS256", "key": "${TEST_OLD_KEY}" }]),
        )
        .set(
            "/identity/providers",
            json!({ "corp": {
                "issuer": "https://id.example.com", "client_id": "a", "allow": "anyone",
                "client_secret_file": "/run/secrets/not-on-this-machine",
            } }),
        )
}

#[test]
fn commands_work_without_other_secrets() {
    let (redis, people) = (Redis::start(), Postgres::server());
    let rights = format!("ACL SETUSER gateway on >{REDIS_PASSWORD} ~* &* +@all");
    redis.command(&rights.split(' ').collect::<Vec<_>>());
    let upstream = Upstream::start();
    let config = with_variables(Config::new(upstream.address))
        .store(&redis.url())
        .set("/store/username", json!("gateway"))
        .set("/store/password", json!("${TEST_STORE_PASSWORD}"))
        .postgres(people.address, &people.database())
        .set("/database/password", json!("${TEST_DATABASE_PASSWORD}"));
    let (store, database) = ("TEST_STORE_PASSWORD", "TEST_DATABASE_PASSWORD");
    assert_needs(&config, &["database", "migrate"], &[database]);
    assert_needs(
        &config,
        &["users", "add", "--email", ANN, "--generate-password"],
        &[database],
    );
    assert_needs(&config, &["users", "list"], &[database]);
    assert_needs(&config, &["users", "show", ANN], &[store, database]);
    assert_needs(&config, &["sessions", "list"], &[store, database]);
    let proxy = "TEST_PROXY_SECRET";
    assert_needs(&config, &["explain", "GET", "/private/a"], &[proxy]);
    assert_needs(&config, &["config", "show"], &[]);
    let (status, text) = run_with(&config, &["run"], &[]);
    assert_eq!(status, Some(1));
    for (name, _) in VARIABLES {
        assert!(text.contains(name), "{name}: {text}");
    }
    for file in ["not-on-this-machine", "not-on-this-machine.pem"] {
        assert!(text.contains(&format!("/run/secrets/{file}:")), "{text}");
    }
}

#[test]
fn running_gateway_is_called_with_its_admin_token_only() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    gateway.register(ANN);
    let mut config = with_variables(Config::new(upstream.address));
    for key in ["admin", "database"] {
        config.file[key] = gateway.config.file[key].clone();
    }
    config.put("/admin/token", json!("${TEST_ADMIN_TOKEN}"));
    let token = "TEST_ADMIN_TOKEN";
    assert_needs(&config, &["sessions", "list"], &[token]);
    assert_needs(&config, &["token", "issue", "--user", ANN], &[token]);
    assert_needs(&config, &["users", "list"], &[]);
    gateway.sigterm();
    gateway.wait_exit();
    // The sessions were in its memory.
    assert_needs(&config, &["users", "disable", ANN], &[]);
}
