//! `api-keys`, beside a running gateway over either store, and without one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::slice;

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::commands::{ANN, for_each_store_with, run_failing, run_json, run_ok, try_run};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::key_calls::{ADMIN_KEYS, admin_create, ids, is_key, self_service};
use crate::support::upstream::Upstream;

/// The key of this ID as the admin listener describes it.
fn described(gateway: &Gateway, id: &str) -> Value {
    gateway
        .admin(Request::get(&format!("{ADMIN_KEYS}/{id}")))
        .data()
}

/// The ID within a key.
fn id_of(secret: &str) -> &str {
    secret.split('_').nth(1).unwrap()
}

#[test]
fn key_is_added_shown_rotated_and_revoked() {
    for_each_store_with(self_service, |gateway| {
        let ann = gateway.register(ANN);
        let add = [
            "api-keys", "add", "--user", ANN, "--name", "laptop", "--role", "admin",
        ];
        let rest = ["--scope", "a", "--scope", "b", "--allow-ip", "192.0.2.7"];
        let more = [
            "--expires-at",
            "2127-01-01T00:00:00Z",
            "--allow-ip",
            "10.0.0.0/8",
        ];
        let printed = run_ok(gateway, &[&add[..], &rest, &more].concat(), "");
        // The key, and nothing else.
        let secret = printed.strip_suffix('\n').unwrap();
        let id = id_of(secret);
        assert!(is_key(secret, id), "{printed}");
        let key = described(gateway, id);
        assert_eq!(
            (&key["owner"], &key["name"]),
            (&json!(ann.user), &json!("laptop"))
        );
        assert_eq!(
            (&key["roles"], &key["scopes"]),
            (&json!(["admin"]), &json!(["a", "b"]))
        );
        assert_eq!(key["allowed_ips"], json!(["192.0.2.7/32", "10.0.0.0/8"]));
        assert_eq!(key["expires_at"], "2127-01-01T00:00:00.000Z");

        assert_eq!(run_json(gateway, &["api-keys", "show", id]), key);
        let shown = run_ok(gateway, &["api-keys", "show", id], "");
        assert!(shown.contains("status        active\n"), "{shown}");
        assert!(
            shown.contains("addresses     192.0.2.7/32,10.0.0.0/8\n"),
            "{shown}"
        );
        assert!(!shown.contains(secret), "{shown}");

        let rotated = run_ok(gateway, &["api-keys", "rotate", id, "--grace", "1h"], "");
        let rotated = rotated.trim_end();
        assert!(is_key(rotated, id) && rotated != secret);
        let again = run_json(gateway, &["api-keys", "rotate", id]);
        assert_eq!(again["api_key"], key);
        assert!(is_key(again["key"].as_str().unwrap(), id));

        revoke_for_good(gateway, id);
    });
}

/// Revokes a key, and two that do not exist.
fn revoke_for_good(gateway: &Gateway, id: &str) {
    let revoke = ["api-keys", "revoke", id, "nonsense", "0000000000000000"];
    let (status, out, err) = try_run(gateway, &revoke, "");
    assert_eq!(
        (status, out.as_str()),
        (1, "1 key has been revoked\n"),
        "{err}"
    );
    assert_eq!(
        err.lines().collect::<Vec<_>>(),
        [
            "portcullis: there is no API key nonsense",
            "portcullis: there is no API key 0000000000000000"
        ]
    );
    assert_eq!(described(gateway, id)["status"], "revoked");
    assert_eq!(run_json(gateway, &["api-keys", "revoke", id])["revoked"], 0);
    for words in [&["show", "x"][..], &["rotate", "x"], &["rotate", id]] {
        let lines = run_failing(gateway, &[&["api-keys"], words].concat(), "");
        let expected = format!("portcullis: there is no API key {}", words[1]);
        assert_eq!(lines, [expected]);
    }
}

#[test]
fn keys_are_listed_by_owner_and_status() {
    for_each_store_with(self_service, |gateway| {
        let ann = gateway.register(ANN);
        let of_ann = admin_create(gateway, &json!({ "user": ann.user, "name": "laptop" }));
        let body = json!({ "service": "billing", "name": "nightly", "scopes": ["orders:read"] });
        let nightly = admin_create(gateway, &body);
        let listed = |words: &[&str]| {
            let list = run_json(gateway, &[&["api-keys", "list"], words].concat());
            ids(&list)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(&[]).len(), 2);
        assert_eq!(listed(&["--user", ANN]), slice::from_ref(&of_ann.id));
        assert_eq!(
            listed(&["--service", "billing"]),
            slice::from_ref(&nightly.id)
        );
        assert_eq!(listed(&["--status", "revoked"]).len(), 0);
        let first = run_json(gateway, &["api-keys", "list", "--limit", "1"]);
        let cursor = first["next_cursor"].as_str().unwrap();
        assert_eq!(listed(&["--cursor", cursor]).len(), 1);
        assert_eq!((&first["count"], ids(&first).len()), (&json!(2), 1));
        let table = run_ok(gateway, &["api-keys", "list", "--service", "billing"], "");
        let columns: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = [
            nightly.id.as_str(),
            "nightly",
            "service:billing",
            "-",
            "orders:read",
            "active",
            "-",
            "-",
            "0",
        ];
        assert_eq!(columns, expected, "{table}");
        let lines = run_failing(gateway, &["api-keys", "list", "--user", "bob"], "");
        assert_eq!(lines, ["portcullis: there is no user bob"]);
    });
}

#[test]
fn secret_goes_to_a_private_file() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(self_service(Config::new(upstream.address)));
    let path = gateway.config.folder().join("billing.key");
    let file = path.to_str().unwrap();
    let add = [
        "api-keys",
        "add",
        "--service",
        "billing",
        "--name",
        "nightly",
        "--out",
        file,
    ];
    // A key that was refused leaves no file.
    let refused = [&add[..], &["--expires-at", "tomorrow"]].concat();
    let lines = run_failing(&gateway, &refused, "");
    assert!(
        lines.len() == 1 && lines[0].starts_with("portcullis: expires_at: "),
        "{lines:?}"
    );
    assert!(!path.exists());

    let id = run_ok(&gateway, &add, "");
    let id = id.trim_end();
    let read = || fs::read_to_string(&path).unwrap();
    let secret = read();
    assert!(is_key(secret.trim_end(), id), "{id}");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // It is not overwritten, and no key is created or rotated for nothing.
    for words in [&add[..], &["api-keys", "rotate", id, "--out", file]] {
        let lines = run_failing(&gateway, words, "");
        assert!(lines.len() == 1 && lines[0].contains(file), "{lines:?}");
    }
    assert_eq!(read(), secret);
    assert_eq!(run_json(&gateway, &["api-keys", "list"])["count"], 1);
    fs::remove_file(&path).unwrap();
    let rotated = run_json(&gateway, &["api-keys", "rotate", id, "--out", file]);
    assert_eq!(rotated["api_key"]["id"], id);
    assert!(rotated["key"].is_null(), "{rotated}");
    assert!(is_key(read().trim_end(), id) && read() != secret);
}

#[test]
fn wrong_use_is_explained() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let add = ["api-keys", "add", "--name", "a"];
    for words in [
        &[][..],
        &["--user", ANN, "--service", "billing"],
        &["--service", "billing", "--allow-ip", "localhost"],
        &["--service", "billing", "--allow-ip", "10.0.0.0/33"],
    ] {
        assert_eq!(
            try_run(&gateway, &[&add[..], words].concat(), "").0,
            2,
            "{words:?}"
        );
    }
    assert_eq!(try_run(&gateway, &["api-keys", "revoke"], "").0, 2);
    let off = "portcullis: there are no API keys: the configuration has no section api_keys";
    let lines = run_failing(
        &gateway,
        &[&add[..], &["--service", "billing"]].concat(),
        "",
    );
    assert_eq!(lines, [off]);
    assert_eq!(run_failing(&gateway, &["api-keys", "list"], ""), [off]);
    let lines = run_failing(&gateway, &[&add[..], &["--user", "bob"]].concat(), "");
    assert_eq!(lines, ["portcullis: there is no user bob"]);
}

#[test]
fn keys_are_managed_without_a_gateway() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(self_service(Config::new(upstream.address)));
    gateway.register(ANN);
    gateway.sigterm();
    gateway.wait_exit();
    let add = ["api-keys", "add", "--user", ANN, "--name", "a"];
    let secret = run_ok(&gateway, &add, "");
    let id = id_of(&secret);
    let shown = run_json(&gateway, &["api-keys", "show", id]);
    assert_eq!(shown["status"], "active");
    assert_eq!(
        run_json(&gateway, &["api-keys", "revoke", id])["revoked"],
        1
    );
    let shown = run_json(&gateway, &["api-keys", "show", id]);
    assert_eq!(shown["status"], "revoked");
}
