//! `portcullis config show`.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{BASE, SIGNING, portcullis, root, stderr, stdout, yaml_files};

/// Runs a command with a configuration on standard input.
fn run_on(args: &[&str], text: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(args)
        .args(["--config", "-"])
        .env("SHOW_TEXT", "hunter2")
        .env("SHOW_NUMBER", "3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[track_caller]
fn show(text: &str) -> String {
    let output = run_on(&["config", "show"], text);
    assert!(output.status.success(), "{}{text}", stderr(&output));
    stdout(&output)
}

/// What is shown is valid, and is shown as it is, in both formats.
#[track_caller]
fn assert_stable(shown: &str) {
    let output = run_on(&["check"], shown);
    assert!(output.status.success(), "{}{shown}", stderr(&output));
    assert_eq!(show(shown), shown);
    let json = run_on(&["config", "show", "--format", "json"], shown);
    let _: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(show(&stdout(&json)), shown);
}

#[test]
fn effective_configuration_of_every_valid_file_is_valid() {
    for file in yaml_files("config")
        .into_iter()
        .chain(yaml_files("tests/config/warnings"))
    {
        let path = file.to_str().unwrap();
        let output = portcullis(&["config", "show", "--config", path]);
        assert!(output.status.success(), "{path}: {}", stderr(&output));
        assert_stable(&stdout(&output));
    }
}

#[test]
fn defaults_are_shown_in_their_order() {
    let shown = show(&format!(
        "routes: [{{ name: app, upstream: app }}]\n{}tokens:\n{SIGNING}",
        BASE.lines()
            .filter(|line| !line.starts_with("routes"))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    ));
    let sections: Vec<&str> = shown
        .lines()
        .filter(|line| !line.starts_with([' ', '#']))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(
        sections,
        [
            "listeners",
            "admin",
            "store",
            "database",
            "tokens",
            "sessions",
            "identity",
            "encryption",
            "api",
            "api_keys",
            "pages",
            "hsts",
            "identity_headers",
            "limits",
            "upstreams",
            "routes",
            "forward_auth",
            "shutdown",
        ]
    );
    for line in [
        "  timeout: \"100ms\"\n",
        "  max_per_user: 5\n",
        "    connections: 20000\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
}

#[test]
fn secrets_are_references_to_variables() {
    let text = format!(
        "{BASE}tokens:\n{SIGNING}\
         admin: {{ token: \"${{SHOW_TEXT:-hunter2-hunter2-hunter2}}\" }}\n\
         store: {{ url: \"redis://ann:hunter2@a$$b:6379\", key_prefix: \"${{SHOW_TEXT}}\" }}\n\
         database: {{ url: \"postgres://app:hunter2@${{SHOW_TEXT}}/app\" }}\n\
         sessions: {{ max_per_user: \"${{SHOW_NUMBER}}\" }}\n\
         encryption: {{ key: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY= }}\n"
    );
    let text = text.replace(
        "upstream: app }",
        "upstream: app, match: { headers: { X-Origin-Verify: hunter2, X-Stage: \"${SHOW_TEXT}\" } }, \
         request_headers: { set: { X-Api-Key: hunter2, X-Plain: \"$${a\", X-Other: \"${SHOW_TEXT}\" } } }, \
         { name: other, upstream: app, match: { headers: { X-Origin-Verify: hunter3, X-Stage: \"${SHOW_TEXT}\" } } }",
    );
    let text = text.replace("redis://ann:hunter2@a$$b", "redis://ann:hunter2@a");
    // The admin token is too short.
    let text = text.replace(
        "${SHOW_TEXT:-hunter2-hunter2-hunter2}",
        "${SHOW_UNSET:-hunter2-hunter2-hunter2}",
    );
    let shown = show(&text);
    for line in [
        "  token: \"${SHOW_UNSET}\"\n",
        "    secret: \"${MASKED}\"\n",
        "  url: \"redis://ann:${MASKED}@a:6379\"\n",
        "  key_prefix: \"${SHOW_TEXT}\"\n",
        "  url: \"postgres://app:${MASKED}@${SHOW_TEXT}/app\"\n",
        "  max_per_user: 3\n",
        "  key: \"${MASKED}\"\n",
        "        X-Origin-Verify: \"${MASKED}\"\n        X-Stage: \"${SHOW_TEXT}\"\n",
        "        X-Api-Key: \"${MASKED}\"\n",
        "        X-Plain: \"$${a\"\n",
        "        X-Other: \"${SHOW_TEXT}\"\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    for secret in ["hunter2", "hunter3", "0123456789abcdef", "MDEyMz"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert_stable(&shown);
}

#[test]
fn absent_keys_with_a_meaning_stay_absent() {
    let provider = |rest: &str| {
        format!("issuer: https://id.example, client_id: a, client_auth: none, allow: anyone{rest}")
    };
    let identity = format!(
        "identity: {{ providers: {{ zoo: {{ {} }}, git: {{ kind: github, client_id: a, client_secret: b, allow: anyone }}, row: {{ {} }} }}, sign_in_limits: {{}} }}\n",
        provider(""),
        provider(", users: database").replace("id.example", "other.example"),
    );
    let shown = show(&format!("{BASE}tokens:\n{SIGNING}{identity}"));
    assert!(!shown.contains("builtin:"), "{shown}");
    let at = |name: &str| shown.find(&format!("    {name}:\n")).unwrap();
    assert!(at("zoo") < at("git") && at("git") < at("row"), "{shown}");
    assert_stable(&shown);
    let upstream =
        "identity: { upstream: { login: \"POST http://127.0.0.1:3000/login\", user_id: /id } }\n";
    let shown = show(&format!("{BASE}tokens:\n{SIGNING}{upstream}"));
    assert!(!shown.contains("builtin:"), "{shown}");
    assert_stable(&shown);
    let headers = BASE.replace(
        "upstream: app }",
        "upstream: app, identity_headers: { user: null } }",
    );
    let shown = show(&format!("{headers}tokens:\n{SIGNING}"));
    assert!(
        shown.contains("    identity_headers:\n      user: null\n    "),
        "{shown}"
    );
    assert_stable(&shown);
}

#[test]
fn files_are_shown_as_one_with_absolute_paths() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("parts")).unwrap();
    let site = |name: &str| root().join("tests/config/files").join(name);
    fs::copy(site("site.pem"), folder.path().join("parts/site.pem")).unwrap();
    fs::copy(site("site.key"), folder.path().join("parts/site.key")).unwrap();
    let part = "listeners: [{ bind: 127.0.0.1:8443, tls: { certificates: [{ cert: site.pem, key: site.key }] } }]\n";
    fs::write(folder.path().join("parts/tls.yaml"), part).unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, format!("{BASE}tokens:\n{SIGNING}include: parts\n")).unwrap();
    let output = portcullis(&["config", "show", "--config", file.to_str().unwrap()]);
    let shown = stdout(&output);
    let path = folder.path().join("parts/site.pem");
    let expected = format!("cert: {}\n", path.display());
    assert!(shown.contains(&expected), "{shown}{}", stderr(&output));
    assert!(!shown.contains("\ninclude:"), "{shown}");
    assert_stable(&shown);
}

#[test]
fn invalid_file_is_not_shown() {
    let output = run_on(&["config", "show"], "a: 1\n");
    assert_eq!((output.status.code(), &*stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).contains("<stdin>:1:1: "));
}
