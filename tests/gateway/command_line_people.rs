//! `users`, beside a running gateway over either store, and without one.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::commands::{ANN, comes_to, done, each_store, fails, json_of, log_in, try_to};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD, binary, run};
use crate::support::upstream::Upstream;
use crate::support::wait::{PATIENCE, SOON, eventually, within};
use crate::support::websocket::{POLICY, Socket};

const OTHER_PASSWORD: &str = "a quite different one";

#[test]
fn a_user_is_added_listed_and_shown() {
    each_store(|gateway| {
        let id = done(
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
        let listed = done(gateway, &["users", "list"], "");
        let columns: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(columns, [id.trim(), ANN, "ann", "-", "-", "enabled"]);
        let listed = json_of(gateway, &["users", "list", "--limit", "5"]);
        assert_eq!(listed["users"][0]["email"], ANN);
        assert_eq!(
            (&listed["count"], &listed["next_cursor"]),
            (&json!(1), &Value::Null)
        );
        for named in [ANN, "ann", "ANN", id.trim()] {
            let shown = json_of(gateway, &["users", "show", named]);
            assert_eq!(shown["id"], id.trim());
            assert_eq!(
                (&shown["active_sessions"], &shown["online"]),
                (&json!(1), &json!(true))
            );
        }
        let api = gateway.admin(Request::get(&format!("/admin/users/{}", id.trim())));
        assert_eq!(json_of(gateway, &["users", "show", ANN]), api.data());
        let shown = done(gateway, &["users", "show", ANN], "");
        assert!(shown.contains("sessions  1"), "{shown}");
        assert_eq!(
            fails(gateway, &["users", "show", "bob"], ""),
            ["portcullis: there is no user bob"]
        );
    });
}

#[test]
fn what_is_wrong_with_a_new_user_is_said_a_line_each() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let add = ["users", "add", "--email", "nobody", "--role", "a,b"];
    let lines = fails(&gateway, &add, "short\n");
    assert_eq!(lines.len(), 3, "{lines:?}");
    for field in ["email", "password", "roles"] {
        let start = format!("portcullis: {field}: ");
        assert!(
            lines.iter().any(|line| line.starts_with(&start)),
            "{lines:?}"
        );
    }
    let add = ["users", "add", "--email", ANN];
    let made = done(&gateway, &[&add[..], &["--generate-password"]].concat(), "");
    let password = made
        .lines()
        .nth(1)
        .unwrap()
        .strip_prefix("password: ")
        .unwrap();
    assert_eq!(log_in(&gateway, password), 200);
    assert_eq!(fails(&gateway, &add, "another password\n").len(), 1);
    let file = gateway
        .config
        .beside("password", format!("{OTHER_PASSWORD}\n"));
    let from_file = [
        "users",
        "set-password",
        ANN,
        "--password-file",
        file.to_str().unwrap(),
    ];
    done(&gateway, &from_file, "");
    assert_eq!(log_in(&gateway, OTHER_PASSWORD), 200);
    // Others see the arguments of a process, so there is none for a password.
    let argument = ["users", "add", "--email", ANN, "--password", PASSWORD];
    assert_eq!(try_to(&gateway, &argument, "").0, 2);
    assert_eq!(try_to(&gateway, &["users", "set-roles", ANN], "").0, 2);
    assert_eq!(
        fails(&gateway, &["users", "set-password", ANN], "").len(),
        1
    );
}

#[test]
fn roles_and_scopes_are_in_force_at_once_on_the_sessions_that_exist() {
    each_store(|gateway| {
        let ann = gateway.register(ANN);
        comes_to(gateway, "/private/admin", &ann.cookie, 403);
        let said = done(gateway, &["users", "set-roles", ANN, "--role", "admin"], "");
        assert!(said.contains("admin"), "{said}");
        comes_to(gateway, "/private/admin", &ann.cookie, 200);
        let scoped = json_of(
            gateway,
            &["users", "set-roles", ANN, "--scope", "orders:read"],
        );
        assert_eq!(
            (&scoped["roles"], &scoped["scopes"]),
            (&json!(["admin"]), &json!(["orders:read"]))
        );
        let none = json_of(
            gateway,
            &["users", "set-roles", ANN, "--no-roles", "--no-scopes"],
        );
        assert_eq!((&none["roles"], &none["scopes"]), (&json!([]), &json!([])));
        comes_to(gateway, "/private/admin", &ann.cookie, 403);
    });
}

#[test]
fn disabling_and_a_new_password_end_everything() {
    each_store(|gateway| {
        let ann = gateway.register(ANN);
        let bearer = format!("Bearer {}", ann.access_token);
        let socket = Socket::open(gateway.public, "/private/ws", &[("Authorization", &bearer)]);
        let mut socket = socket.ok().unwrap();
        done(gateway, &["users", "disable", ANN], "");
        assert_eq!(socket.close_code(SOON), Some(POLICY));
        comes_to(gateway, "/private/a", &ann.cookie, 401);
        assert_eq!(log_in(gateway, PASSWORD), 401);
        let issue = ["token", "issue", "--user", ANN];
        assert!(fails(gateway, &issue, "")[0].contains("disabled"));

        done(gateway, &["users", "enable", ANN], "");
        let ann = gateway.login(ANN);
        let said = done(
            gateway,
            &["users", "set-password", ANN],
            &format!("{OTHER_PASSWORD}\r\n"),
        );
        assert!(said.contains(ANN), "{said}");
        comes_to(gateway, "/private/a", &ann.cookie, 401);
        assert_eq!(log_in(gateway, PASSWORD), 401);
        assert_eq!(log_in(gateway, OTHER_PASSWORD), 200);
    });
}

#[test]
fn without_the_gateway_its_memory_is_gone_and_the_database_is_not() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    gateway.register(ANN);
    gateway.sigterm();
    gateway.wait_exit();
    let lines = fails(&gateway, &["sessions", "list"], "");
    let admin = gateway.admin.to_string();
    assert!(lines.len() == 1 && lines[0].contains(&admin), "{lines:?}");
    done(&gateway, &["users", "disable", ANN], "");
    let shown = json_of(&gateway, &["users", "show", ANN]);
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
fn a_password_typed_at_a_terminal_is_not_echoed() {
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
        let exit = within(PATIENCE, "it ends", || script.try_wait().unwrap());
        assert!(!seen().contains(PASSWORD), "{}", seen());
        exit.code()
    };
    assert_eq!(type_in(OTHER_PASSWORD), Some(1));
    assert_eq!(type_in(PASSWORD), Some(0));
    gateway.login(ANN);
}

#[test]
fn every_command_has_a_help_worth_reading() {
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
fn a_new_email_is_in_force_at_once() {
    const NEW: &str = "ann@example.org";
    each_store(|gateway| {
        let ann = gateway.register(ANN);
        gateway.register("bob@example.com");
        let said = done(gateway, &["users", "set-email", ANN, "Ann@Example.org"], "");
        assert!(said.contains(NEW), "{said}");
        eventually("the session has the new address", || {
            let private = Request::get("/private/a").cookie(&ann.cookie);
            let email = gateway.ask(&private).echo().header("x-user-email");
            (email.as_deref() == Some(NEW)).then_some(())
        });
        assert_eq!(log_in(gateway, PASSWORD), 401);
        gateway.login(NEW);
        for (email, said) in [("bob@example.com", "USER_EXISTS"), ("nobody", "email: ")] {
            let lines = fails(gateway, &["users", "set-email", NEW, email], "");
            assert!(lines[0].contains(said), "{lines:?}");
        }
        let patch = Request::new("PATCH", &format!("/admin/users/{}", ann.user));
        let taken = gateway.admin(patch.json(&json!({ "email": "bob@example.com" })));
        taken.refused(409, "USER_EXISTS");
    });
}

#[test]
fn a_user_is_deleted_with_all_their_sessions() {
    each_store(|gateway| {
        let ann = gateway.register(ANN);
        let bearer = format!("Bearer {}", ann.access_token);
        let socket = Socket::open(gateway.public, "/private/ws", &[("Authorization", &bearer)]);
        let mut socket = socket.ok().unwrap();
        let said = done(gateway, &["users", "remove", ANN], "");
        assert!(said.contains(ANN), "{said}");
        assert_eq!(socket.close_code(SOON), Some(POLICY));
        comes_to(gateway, "/private/a", &ann.cookie, 401);
        let bearer = Request::get("/private/a").bearer(&ann.access_token);
        assert_eq!(gateway.ask(&bearer).status, 401);
        assert_eq!(log_in(gateway, PASSWORD), 401);
        assert_eq!(json_of(gateway, &["users", "list"])["count"], 0);
        assert_eq!(
            fails(gateway, &["users", "remove", ANN], ""),
            [format!("portcullis: there is no user {ANN}")]
        );
        // The address is free, and the new user is another one.
        let again = gateway.register(ANN);
        assert_ne!(again.user, ann.user);
        let path = format!("/admin/users/{}", again.user);
        assert_eq!(gateway.admin(Request::delete(&path)).status, 204);
        gateway
            .admin(Request::delete(&path))
            .refused(404, "NOT_FOUND");
        assert!(!gateway.lets_in(&again));
    });
}
