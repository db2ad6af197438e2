//! `portcullis init`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::{portcullis, stderr, stdout};

fn init(folder: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("init")
        .args(args)
        .current_dir(folder)
        .env_remove("PORTCULLIS_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read it has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Requires that the file is valid, with these warnings only.
#[track_caller]
fn assert_valid(folder: &Path, warnings: &str) {
    let file = folder.join("portcullis.yaml");
    let output = portcullis(&["check", "--config", file.to_str().unwrap()]);
    let found = stderr(&output).replace(&format!("{}:", file.display()), "");
    assert_eq!(found, warnings, "{}", fs::read_to_string(&file).unwrap());
    assert!(output.status.success());
}

#[test]
fn defaults_are_a_valid_file_with_secrets_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let output = init(folder.path(), &[], "");
    let printed = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        files(folder.path()),
        [
            "portcullis-admin.token",
            "portcullis-signing.pem",
            "portcullis.yaml"
        ]
    );
    for name in ["portcullis-admin.token", "portcullis-signing.pem"] {
        let mode = fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        assert!(printed.contains(name), "{printed}");
    }
    assert_valid(folder.path(), "");
    // Five questions, and what to do next.
    for number in 1..=5 {
        assert!(
            stderr(&output).contains(&format!("{number}/5 ")),
            "{}",
            stderr(&output)
        );
    }
    for command in ["check", "users add", "run"] {
        let line = format!("  portcullis {command} --config portcullis.yaml");
        assert!(printed.contains(&line), "{printed}");
    }
}

#[test]
fn choices_are_read_in_order_and_again_if_invalid() {
    let folder = tempfile::tempdir().unwrap();
    let choices = "127.0.0.1:4000\nhttp://127.0.0.1:4000\n\nredis://gateway:hunter2@cache:6379/2\nhttp://app.example.com:8000\n\n";
    let output = init(folder.path(), &[], choices);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("give http://HOST:PORT"),
        "{}",
        stderr(&output)
    );
    let text = fs::read_to_string(folder.path().join("portcullis.yaml")).unwrap();
    for line in [
        "  - bind: 0.0.0.0:8000\n",
        "  url: \"redis://gateway@cache:6379/2\"\n  password_file: \"portcullis-store.password\"\n",
        "  cookie: { secure: false }\n",
        "    servers: [\"http://127.0.0.1:4000\"]\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let password = folder.path().join("portcullis-store.password");
    assert_eq!(fs::read_to_string(&password).unwrap(), "hunter2\n");
    assert_eq!(
        fs::metadata(&password).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!(stdout(&output) + &text).contains("hunter2"));
    assert_valid(folder.path(), "");
}

#[test]
fn backend_at_the_address_of_the_gateway_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let output = init(folder.path(), &["--upstream", "http://127.0.0.1:8080"], "");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(": warning: this is a listener of the gateway itself"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn options_replace_all_questions() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/files");
    let tls = format!("{0}/site.pem,{0}/site.key", files.display());
    for (public_url, tls, line) in [
        (
            "https://app.example.com",
            "proxy",
            "    trusted_proxies: [127.0.0.1, \"::1\"]\n",
        ),
        (
            "https://app.example.com:8443",
            &tls,
            "  - bind: 0.0.0.0:8443\n",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = init(
            folder.path(),
            &[
                "--upstream",
                "unix:/run/app.sock",
                "--sign-in",
                "https://id.example.com/realm",
                "--client-id",
                "a b$c",
                "--allow-domain",
                "example.com",
                "--store",
                "memory",
                "--public-url",
                public_url,
                "--tls",
                tls,
            ],
            "",
        );
        assert!(output.status.success(), "{}", stderr(&output));
        // The warning below, and no question.
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        let printed = stdout(&output);
        assert!(printed.contains("  export OIDC_SECRET="), "{printed}");
        let text = fs::read_to_string(folder.path().join("portcullis.yaml")).unwrap();
        assert!(text.contains(line), "{line}{text}");
        assert!(text.contains("      client_id: \"a b$$c\"\n"), "{text}");
        let number = text
            .lines()
            .position(|line| line.contains("${OIDC_SECRET}"))
            .unwrap()
            + 1;
        assert_valid(
            folder.path(),
            &format!(
                "{number}:22: warning: the environment variable OIDC_SECRET is not set; `portcullis run` needs it\n"
            ),
        );
    }
}

#[test]
fn existing_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    assert!(init(folder.path(), &[], "").status.success());
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let (key, config) = (read("portcullis-signing.pem"), read("portcullis.yaml"));
    let output = init(folder.path(), &["--upstream", "http://127.0.0.1:4000"], "");
    assert_eq!(output.status.code(), Some(1));
    let expected = "portcullis: portcullis.yaml exists; --force replaces it\n";
    assert_eq!(stderr(&output), expected);
    assert_eq!(read("portcullis.yaml"), config);
    let output = init(
        folder.path(),
        &["--force", "--upstream", "http://127.0.0.1:4000"],
        "",
    );
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(read("portcullis.yaml").contains("127.0.0.1:4000"));
    assert_eq!(read("portcullis-signing.pem"), key);
    assert!(
        stdout(&output).contains("portcullis-signing.pem: kept"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn invalid_choices_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (
            &["--upstream", "127.0.0.1:1"][..],
            "--upstream: give http://",
        ),
        (&["--sign-in", "google"], "--sign-in: give `passwords`"),
        (
            &["--sign-in", "https://id.example.com"],
            "--allow-domain is missing",
        ),
        (&["--store", "postgres://a"], "--store: give `memory`"),
        (
            &["--public-url", "app.example.com"],
            "--public-url: give http://",
        ),
        (
            &["--public-url", "https://a.example", "--tls", "none"],
            "--tls: browsers use https",
        ),
        (&["--tls", "a.pem,a.key"], "--tls: browsers use http, "),
        // What only the check of the whole file finds.
        (
            &["--public-url", "https://a.example", "--tls", "a.pem,a.key"],
            "cannot read a.pem: no such file",
        ),
        (&["--store", "redis://a/b/c"], "portcullis.yaml:"),
        (
            &["--public-url", "http://localhost:9090"],
            "portcullis.yaml:",
        ),
        (&["--config", "-"], "init writes files"),
        (
            &["--config", "none/portcullis.yaml"],
            "cannot write none/portcullis-signing.pem",
        ),
    ] {
        let output = init(folder.path(), args, "");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            stderr(&output).contains(expected),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(files(folder.path()).is_empty(), "{args:?}");
    }
}
