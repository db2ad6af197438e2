//! Where the configuration comes from, and how `check` reports on it.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::{BASE, SIGNING, portcullis, root, stderr, stdout};

fn portcullis_with(args: &[&str], variables: &[(&str, &str)], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(args)
        .env_remove("PORTCULLIS_CONFIG")
        .envs(variables.iter().copied())
        .current_dir(root().join("tests/config"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read it has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn configuration_is_read_from_standard_input() {
    let valid = format!("{BASE}tokens:\n{SIGNING}include: included/folder\n");
    let output = portcullis_with(&["check", "--config", "-"], &[], &valid);
    assert_eq!(stdout(&output), "<stdin>: valid\n", "{}", stderr(&output));
    let explain = ["explain", "-c", "-", "GET", "/included/a"];
    let explained = stdout(&portcullis_with(&explain, &[], &valid));
    assert!(explained.starts_with("route     included: "), "{explained}");
    let output = portcullis_with(
        &["check", "--config", "-"],
        &[],
        &valid.replace("upstream: app }", "upstream: ap }"),
    );
    assert!(
        stderr(&output).starts_with("<stdin>:3:33: "),
        "{}",
        stderr(&output)
    );
    let output = portcullis_with(&["check", "--config", "-"], &[], "");
    assert!(stderr(&output).starts_with("<stdin>:1:1: the file is empty"));
    // There is one standard input.
    for words in [
        &["token", "inspect", "--config", "-"][..],
        &[
            "users",
            "add",
            "--config",
            "-",
            "--email",
            "ann@example.com",
        ],
    ] {
        let output = portcullis_with(words, &[], &valid);
        assert_eq!(output.status.code(), Some(1));
        let expected = "portcullis: standard input has the configuration and cannot have the ";
        assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
    }
}

#[test]
fn configuration_is_named_by_the_environment() {
    let (valid, invalid) = ("../../config/portcullis.yaml", "empty.yaml");
    let environment = [("PORTCULLIS_CONFIG", valid)];
    let check = |args: &[&str]| stdout(&portcullis_with(args, &environment, ""));
    assert_eq!(check(&["check"]), format!("{valid}: valid\n"));
    assert!(check(&["explain", "GET", "/public/a"]).starts_with("route     public: "));
    // The option comes first.
    let output = portcullis_with(&["check", "--config", invalid], &environment, "");
    assert!(stderr(&output).starts_with("empty.yaml:1:1: "));
    let output = portcullis_with(&["check"], &[], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--config <FILE>"));
}

#[test]
fn values_from_the_environment_have_the_required_type() {
    let text = format!(
        "{BASE}tokens:\n{SIGNING}sessions: {{ max_per_user: \"${{N:-5}}\", durable: \"${{B}}\", ttl: \"${{T}}\" }}\n"
    );
    let show = |variables: &[(&str, &str)]| {
        portcullis_with(&["config", "show", "--config", "-"], variables, &text)
    };
    for (variables, shown) in [
        ([("B", "true"), ("T", "2d")], "max_per_user: 5\n"),
        ([("B", "false"), ("T", "48h")], "durable: false\n"),
    ] {
        let output = show(&variables);
        let text = stdout(&output);
        assert!(text.contains(shown), "{text}{}", stderr(&output));
        assert!(text.contains("ttl: \"2d\"\n"), "{text}");
    }
    let output = show(&[("N", "7"), ("B", "hunter2"), ("T", "hunter2")]);
    let errors = stderr(&output);
    assert_eq!(errors.lines().count(), 2, "{errors}");
    for expected in [
        "<stdin>:6:47: \"durable\" must be true or false, not text (the value of ${B})",
        "<stdin>:6:60: this value is not a duration such as 250ms, 10s, 15m, 24h or 30d (the value of ${T})",
    ] {
        assert!(errors.contains(expected), "{errors}");
    }
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn unset_secrets_are_warnings_of_check() {
    let text = format!(
        "{BASE}tokens: {{ signing: {{ algorithm: EdDSA, key: \"${{UNSET_KEY}}\" }} }}\n\
         admin: {{ token: \"${{UNSET_TOKEN}}\" }}\n\
         database: {{ url: \"postgres://app:${{UNSET_PASSWORD}}@db/app\" }}\n\
         encryption: {{ key: \"${{UNSET_SEAL}}\", also: [\"${{UNSET_OLD}}\"] }}\n"
    );
    let output = portcullis_with(&["check", "--config", "-"], &[], &text);
    let warning = |position: &str, name: &str| {
        format!(
            "<stdin>:{position}: warning: the environment variable {name} is not set; \
             `portcullis run` needs it\n"
        )
    };
    let expected = [
        warning("4:45", "UNSET_KEY"),
        warning("5:17", "UNSET_TOKEN"),
        warning("6:18", "UNSET_PASSWORD"),
        warning("7:20", "UNSET_SEAL"),
        warning("7:44", "UNSET_OLD"),
    ];
    let about_variables = |output: &Output| -> String {
        let text = stderr(output);
        let lines = text.split_inclusive('\n');
        lines.filter(|line| line.contains("is not set")).collect()
    };
    assert_eq!(about_variables(&output), expected.concat());
    assert_eq!(stdout(&output), "<stdin>: valid\n");
    assert_eq!(output.status.code(), Some(0));
    // They are listed for an invalid file, too.
    let invalid = text.replace("database:", "unknown: 1\ndatabase:");
    let output = portcullis_with(&["check", "--config", "-"], &[], &invalid);
    assert_eq!(about_variables(&output).lines().count(), 5);
    assert!(
        stderr(&output).contains("<stdin>:6:1: unknown key"),
        "{}",
        stderr(&output)
    );
    let output = portcullis_with(&["run", "--config", "-"], &[], &text);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).lines().count(), 5, "{}", stderr(&output));
    // A host is no secret.
    let text = text.replace("app:${UNSET_PASSWORD}@db", "app@${UNSET_HOST}");
    let output = portcullis_with(&["check", "--config", "-"], &[], &text);
    let expected = "<stdin>:6:18: the environment variable UNSET_HOST is not set, and ";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}

#[test]
fn errors_and_warnings_are_reported_for_programs() {
    let args = |format| {
        [
            "check",
            "--format",
            format,
            "--config",
            "include_conflicts.yaml",
        ]
    };
    let output = portcullis_with(&args("json"), &[], "");
    assert_eq!((output.status.code(), &*stderr(&output)), (Some(1), ""));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = report.pointer("/diagnostics").unwrap().as_array().unwrap();
    assert_eq!(report.pointer("/valid"), Some(&json!(false)));
    assert_eq!(
        list.first(),
        Some(&json!({
            "file": "included/conflicts.yaml", "line": 2, "column": 3, "severity": "error",
            "message": "\"url\" is specified twice, first at include_conflicts.yaml:16:3",
        }))
    );
    let text = stderr(&portcullis(&[
        "check",
        "--config",
        root()
            .join("tests/config/include_conflicts.yaml")
            .to_str()
            .unwrap(),
    ]));
    assert_eq!(text.lines().count(), list.len());
    let output = portcullis_with(&args("github"), &[], "");
    assert_eq!((output.status.code(), &*stderr(&output)), (Some(1), ""));
    let expected = "::error file=included/conflicts.yaml,line=2,col=3::\"url\" is specified twice, \
                    first at include_conflicts.yaml:16:3\n";
    assert!(stdout(&output).starts_with(expected), "{}", stdout(&output));
}

#[test]
fn warnings_are_reported_for_programs() {
    let args = |format| ["check", "--format", format, "-c", "warnings/loops.yaml"];
    let output = portcullis_with(&args("json"), &[], "");
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.pointer("/valid"), Some(&json!(true)));
    assert_eq!(
        report.pointer("/diagnostics/0/severity"),
        Some(&json!("warning"))
    );
    let output = stdout(&portcullis_with(&args("github"), &[], ""));
    assert!(
        output.starts_with("::warning file=warnings/loops.yaml,line="),
        "{output}"
    );
    assert!(
        output.ends_with("\nwarnings/loops.yaml: valid\n"),
        "{output}"
    );

    let args = [
        "check",
        "--format",
        "json",
        "--connect",
        "-c",
        "warnings/none.yaml",
    ];
    assert_eq!(portcullis_with(&args, &[], "").status.code(), Some(2));
    // A file that cannot be read is in the report.
    let output = portcullis_with(&["check", "--format", "json", "-c", "none.yaml"], &[], "");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = report.pointer("/diagnostics/0/message");
    assert_eq!(message, Some(&json!("cannot read the file: no such file")));
}

#[test]
fn paths_in_included_files_are_relative_to_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("parts")).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("parts/secret", "0123456789abcdef0123456789abcdef");
    write(
        "parts/tokens.yaml",
        "tokens: { signing: { algorithm: HS256, secret_file: secret } }\n",
    );
    write("a.yaml", &format!("{BASE}include: parts\n"));
    let file = folder.path().join("a.yaml");
    let output = portcullis(&["check", "--config", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
}
