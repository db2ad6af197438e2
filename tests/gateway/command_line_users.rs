//! `users`, beside a running gateway over either store, and without one.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::commands::{
    ANN, await_status, for_each_store, log_in, run_failing, run_json, run_ok, try_run,
};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD, SignedIn, binary, run};
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, PROPAGATION_DEADLINE, eventually, within};
use crate::support::websocket::{POLICY_VIOLATION, WebSocketClient};

const OTHER_PASSWORD: &str = "a quite different one";

#[test]
fn users_are_added_listed_and_shown() {
    for_each_store(|gateway| {
        let id = run_ok(
            gateway,
            &[
                "users",
                "add",
                "--email",
                "Ann@Example.com",
                "--username",
                "ann",
            ],
            &format!("{PASSWORD}\n"),
        );
        gateway.login(ANN);
        let listed = run_ok(gateway, &["users", "list"], "");
        let columns: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(columns, [id.trim(), ANN, "ann", "-", "-", "enabled"]);
        let listed = run_json(gateway, &["users", "list", "--limit", "5"]);
        assert_eq!(listed["users"][0]["email"], ANN);
        assert_eq!(
            (&listed["count"], &listed["next_cursor"]),
            (&json!(1), &Value::Null)
        );
        for named in [ANN, "ann", "ANN", id.trim()] {
            let shown = run_json(gateway, &["users", "show", named]);
            assert_eq!(shown["id"], id.trim());
            assert_eq!(
                (&shown["active_sessions"], &shown["online"]),
                (&json!(1), &json!(true))
            );
        }
        let api = gateway.admin(Request::get(&format!("/admin/users/{}", id.trim())));
        assert_eq!(run_json(gateway, &["users", "show", ANN]), api.data());
        let shown = run_ok(gateway, &["users", "show", ANN], "");
        assert!(shown.contains("sessions  1"), "{shown}");
        assert_eq!(
            run_failing(gateway, &["users", "show", "bob"], ""),
            ["portcullis: there is no user bob"]
        );
    });
}

#[test]
fn invalid_new_user_reports_each_field() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let add = ["users", "add", "--email", "nobody", "--role", "a,b"];
    let lines = run_failing(&gateway, &add, "short\n");
    assert_eq!(lines.len(), 3, "{lines:?}");
    for field in ["email", "password", "roles"] {
        let start = format!("portcullis: {field}: ");
        assert!(
            lines.iter().any(|line| line.starts_with(&start)),
            "{lines:?}"
        );
    }
    let add = ["users", "add", "--email", ANN];
    let made = run_ok(&gateway, &[&add[..], &["--generate-password"]].concat(), "");
    let password = made
        .lines()
        .nth(1)
        .unwrap()
        .strip_prefix("password: ")
        .unwrap();
    assert_eq!(log_in(&gateway, password), 200);
    assert_eq!(run_failing(&gateway, &add, "another password\n").len(), 1);
    let file = gateway
        .config
        .write_beside("password", format!("{OTHER_PASSWORD}\n"));
    let from_file = [
        "users",
        "set-password",
        ANN,
        "--password-file",
        file.to_str().unwrap(),
    ];
    run_ok(&gateway, &from_file, "");
    assert_eq!(log_in(&gateway, OTHER_PASSWORD), 200);
    // Others see the arguments of a process, so there is none for a password.
    let argument = ["users", "add", "--email", ANN, "--password", PASSWORD];
    assert_eq!(try_run(&gateway, &argument, "").0, 2);
    assert_eq!(try_run(&gateway, &["users", "set-roles", ANN], "").0, 2);
    assert_eq!(
        run_failing(&gateway, &["users", "set-password", ANN], "").len(),
        1
    );
}

#[test]
fn role_and_scope_changes_apply_to_existing_sessions() {
    for_each_store(|gateway| {
        let ann = gateway.register(ANN);
        await_status(gateway, "/private/admin", &ann.cookie, 403);
        let output = run_ok(gateway, &["users", "set-roles", ANN, "--role", "admin"], "");
        assert!(output.contains("admin"), "{output}");
        await_status(gateway, "/private/admin", &ann.cookie, 200);
        let scoped = run_json(
            gateway,
            &["users", "set-roles", ANN, "--scope", "orders:read"],
        );
        assert_eq!(
            (&scoped["roles"], &scoped["scopes"]),
            (&json!(["admin"]), &json!(["orders:read"]))
        );
        let none = run_json(
            gateway,
            &["users", "set-roles", ANN, "--no-roles", "--no-scopes"],
        );
        assert_eq!((&none["roles"], &none["scopes"]), (&json!([]), &json!([])));
        await_status(gateway, "/private/admin", &ann.cookie, 403);
    });
}

fn open_socket(gateway: &Gateway, user: &SignedIn) -> WebSocketClient {
    let bearer = format!("Bearer {}", user.access_token);
    let headers = [("Authorization", bearer.as_str())];
    let socket = WebSocketClient::open(gateway.public, "/private/ws", &headers);
    socket.ok().unwrap()
}

#[test]
fn disabling_or_new_password_ends_all_sessions() {
    for_each_store(|gateway| {
        let ann = gateway.register(ANN);
        let mut socket = open_socket(gateway, &ann);
        run_ok(gateway, &["users", "disable", ANN], "");
        assert_eq!(
            socket.close_code(PROPAGATION_DEADLINE),
            Some(POLICY_VIOLATION)
        );
        await_status(gateway, "/private/a", &ann.cookie, 401);
        assert_eq!(log_in(gateway, PASSWORD), 401);
        let issue = ["token", "issue", "--user", ANN];
        assert!(run_failing(gateway, &issue, "")[0].contains("disabled"));

        run_ok(gateway, &["users", "enable", ANN], "");
        let ann = gateway.login(ANN);
        let output = run_ok(
            gateway,
            &["users", "set-password", ANN],
            &format!("{OTHER_PASSWORD}\r\n"),
        );
        assert!(output.contains(ANN), "{output}");
        await_status(gateway, "/private/a", &ann.cookie, 401);
        assert_eq!(log_in(gateway, PASSWORD), 401);
        assert_eq!(log_in(gateway, OTHER_PASSWORD), 200);
    });
}

#[test]
fn offline_cli_reaches_only_the_database() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    gateway.register(ANN);
    gateway.sigterm();
    gateway.wait_exit();
    let lines = run_failing(&gateway, &["sessions", "list"], "");
    let admin = gateway.admin.to_string();
    assert!(lines.len() == 1 && lines[0].contains(&admin), "{lines:?}");
    run_ok(&gateway, &["users", "disable", ANN], "");
    let shown = run_json(&gateway, &["users", "show", ANN]);
    assert_eq!(
        (&shown["disabled"], &shown["online"]),
        (&json!(true), &json!(false))
    );
    let database = gateway.config.file["database"].clone();
    let config = Config::new(upstream.address).set("/database", database);
    assert_eq!(log_in(&Gateway::start(config), PASSWORD), 401);
}

/// `script` (of util-linux, in every Debian) gives the command a terminal.
#[test]
fn password_prompt_does_not_echo() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let type_in = |second: &str| {
        let log = gateway.config.folder().join("terminal");
        let add = format!(
            "{} users add --config {} --email {ANN}",
            binary(),
            gateway.file().display()
        );
        let mut script = Command::new("script")
            .args([
                "--quiet",
                "--flush",
                "--return",
                "--echo",
                "never",
                "--command",
                &add,
            ])
            .arg(&log)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let seen = || std::fs::read_to_string(&log).unwrap_or_default();
        let mut keyboard = script.stdin.take().unwrap();
        for (prompt, typed) in [("Password: ", PASSWORD), ("Again: ", second)] {
            eventually(prompt, || seen().contains(prompt).then_some(()));
            std::io::Write::write_all(&mut keyboard, format!("{typed}\n").as_bytes()).unwrap();
        }
        let exit = within(DEADLINE, "it ends", || script.try_wait().unwrap());
        assert!(!seen().contains(PASSWORD), "{}", seen());
        exit.code()
    };
    assert_eq!(type_in(OTHER_PASSWORD), Some(1));
    assert_eq!(type_in(PASSWORD), Some(0));
    gateway.login(ANN);
}

#[test]
fn every_command_has_help() {
    for words in [
        &["users", "add"][..],
        &["users", "list"],
        &["users", "show"],
        &["users", "set-password"],
        &["users", "set-roles"],
        &["users", "disable"],
        &["users", "enable"],
        &["sessions", "list"],
        &["sessions", "show"],
        &["sessions", "revoke"],
        &["token", "issue"],
        &["api-keys", "add"],
        &["api-keys", "list"],
        &["api-keys", "show"],
        &["api-keys", "rotate"],
        &["api-keys", "revoke"],
    ] {
        let (status, out, _) = run(&[words, &["--help"]].concat());
        assert_eq!(status, 0);
        for part in ["Example", "--config", "--json"] {
            assert!(out.contains(part), "{words:?} says no {part}: {out}");
        }
    }
    let (_, out, _) = run(&["users", "set-password", "--help"]);
    assert!(out.contains("never an argument"), "{out}");
}

#[test]
fn email_change_applies_immediately() {
    const NEW: &str = "ann@example.org";
    for_each_store(|gateway| {
        let ann = gateway.register(ANN);
        gateway.register("bob@example.com");
        let output = run_ok(gateway, &["users", "set-email", ANN, "Ann@Example.org"], "");
        assert!(output.contains(NEW), "{output}");
        eventually("the session has the new address", || {
            let private = Request::get("/private/a").cookie(&ann.cookie);
            let email = gateway.request(&private).echo().header("x-user-email");
            (email.as_deref() == Some(NEW)).then_some(())
        });
        assert_eq!(log_in(gateway, PASSWORD), 401);
        gateway.login(NEW);
        for (email, output) in [("bob@example.com", "USER_EXISTS"), ("nobody", "email: ")] {
            let lines = run_failing(gateway, &["users", "set-email", NEW, email], "");
            assert!(lines[0].contains(output), "{lines:?}");
        }
        let patch = Request::new("PATCH", &format!("/admin/users/{}", ann.user));
        let taken = gateway.admin(patch.json(&json!({ "email": "bob@example.com" })));
        taken.assert_refused(409, "USER_EXISTS");
    });
}

#[test]
fn deleting_a_user_ends_their_sessions() {
    for_each_store(|gateway| {
        let ann = gateway.register(ANN);
        let mut socket = open_socket(gateway, &ann);
        let output = run_ok(gateway, &["users", "remove", ANN], "");
        assert!(output.contains(ANN), "{output}");
        assert_eq!(
            socket.close_code(PROPAGATION_DEADLINE),
            Some(POLICY_VIOLATION)
        );
        await_status(gateway, "/private/a", &ann.cookie, 401);
        let bearer = Request::get("/private/a").bearer(&ann.access_token);
        assert_eq!(gateway.request(&bearer).status, 401);
        assert_eq!(log_in(gateway, PASSWORD), 401);
        assert_eq!(run_json(gateway, &["users", "list"])["count"], 0);
        assert_eq!(
            run_failing(gateway, &["users", "remove", ANN], ""),
            [format!("portcullis: there is no user {ANN}")]
        );
        // The address is free, and the new user is another one.
        let again = gateway.register(ANN);
        assert_ne!(again.user, ann.user);
        let path = format!("/admin/users/{}", again.user);
        assert_eq!(gateway.admin(Request::delete(&path)).status, 204);
        gateway
            .admin(Request::delete(&path))
            .assert_refused(404, "NOT_FOUND");
        assert!(!gateway.accepts(&again));
    });
}
