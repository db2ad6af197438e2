//! `sessions` and `token issue`, over either store; and their errors when neither is available.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::commands::{
    ANN, await_status, for_each_store, ids, run_failing, run_json, run_ok, try_run,
};
use crate::support::config::{ADMIN_TOKEN, Config};
use crate::support::gateway::{Gateway, PASSWORD, run};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

#[test]
fn sessions_are_listed_by_page_and_filter() {
    for_each_store(|gateway| {
        let ann = gateway.register(ANN);
        let again = gateway.login(ANN);
        gateway.register("bob@example.com");

        let all = run_json(gateway, &["sessions", "list"]);
        assert_eq!(
            (&all["count"], &all["next_cursor"]),
            (&json!(3), &Value::Null)
        );
        let hers = run_json(gateway, &["sessions", "list", "--user", ANN]);
        let api = Request::get(&format!("/admin/sessions?user={}", ann.user));
        assert_eq!(ids(&hers), ids(&gateway.admin(api).data()));
        assert_eq!(ids(&hers), [json!(again.session), json!(ann.session)]);
        let first = run_json(
            gateway,
            &["sessions", "list", "--user", ANN, "--limit", "1"],
        );
        let cursor = first["next_cursor"].as_str().unwrap();
        let rest = run_json(
            gateway,
            &["sessions", "list", "--user", ANN, "--cursor", cursor],
        );
        assert_eq!(ids(&rest), [json!(ann.session)]);
        let table = run_ok(gateway, &["sessions", "list", "--user", &ann.user], "");
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(
            table.contains(&ann.session) && table.contains("127.0.0.1"),
            "{table}"
        );
        let elsewhere = run_json(gateway, &["sessions", "list", "--ip", "192.0.2.1"]);
        assert_eq!(elsewhere["count"], 0);
    });
}

#[test]
fn sessions_are_shown_and_ended() {
    for_each_store(|gateway| {
        let ann = gateway.register(ANN);
        let again = gateway.login(ANN);
        let bob = gateway.register("bob@example.com");
        let shown = run_json(gateway, &["sessions", "show", &bob.session]);
        assert_eq!(shown["email"], "bob@example.com");
        let shown = run_ok(gateway, &["sessions", "show", &bob.session], "");
        assert!(
            shown.contains("active") && !shown.contains(&bob.session_token),
            "{shown}"
        );

        let revoke = [
            "sessions",
            "revoke",
            &bob.session,
            "nonsense",
            &"0".repeat(64),
        ];
        let (status, out, err) = try_run(gateway, &revoke, "");
        assert_eq!((status, err.lines().count()), (1, 2), "{out}{err}");
        assert!(out.contains("1 session"), "{out}");
        await_status(gateway, "/private/a", &bob.cookie, 401);
        let ended = run_json(gateway, &["sessions", "list", "--status", "revoked"]);
        assert_eq!(ids(&ended), [json!(bob.session)]);

        assert_eq!(
            run_json(gateway, &["sessions", "revoke", "--user", ANN])["revoked"],
            2
        );
        assert_eq!(
            run_json(gateway, &["sessions", "revoke", &ann.session])["revoked"],
            0
        );
        await_status(gateway, "/private/a", &again.cookie, 401);
        for words in [&["list", "--user"][..], &["revoke", "--user"], &["show"]] {
            let words = [&["sessions"], words, &["nobody@example.com"]].concat();
            let lines = run_failing(gateway, &words, "");
            assert!(
                lines.len() == 1 && lines[0].contains("nobody@example.com"),
                "{lines:?}"
            );
        }
        assert_eq!(try_run(gateway, &["sessions", "revoke"], "").0, 2);
    });
}

#[test]
fn token_is_issued_with_its_session() {
    for_each_store(|gateway| {
        let ann = gateway.register(ANN);
        let issued = run_json(gateway, &["token", "issue", "--user", ANN]);
        let text = |name: &str| issued[name].as_str().unwrap().to_owned();
        gateway
            .request(&Request::get("/private/a").bearer(&text("access_token")))
            .assert_ok();
        let scheme = format!("Session {}", text("session_token"));
        gateway
            .request(&Request::get("/private/a").header("Authorization", &scheme))
            .assert_ok();
        let refresh = json!({ "refresh_token": text("refresh_token") });
        gateway
            .request(&Request::post("/api/v1/auth/refresh").json(&refresh))
            .assert_ok();
        assert_eq!(issued["user"]["id"], ann.user);
        assert_eq!(issued["session"]["id"], issued["session_id"]);
        let revoked = run_json(gateway, &["sessions", "revoke", &text("session_id")]);
        assert_eq!(revoked["revoked"], 1);
        eventually("the token is refused", || {
            let response =
                gateway.request(&Request::get("/private/a").bearer(&text("access_token")));
            (response.status == 401).then_some(())
        });
    });
}

#[test]
fn user_input_is_escaped_for_the_terminal() {
    for_each_store(|gateway| {
        gateway.register(ANN);
        // Text turned around, and hidden; control characters are dropped when a session is made.
        let agent = "\u{202e}gnp.exe \u{200b}\u{9b}31m";
        let device = "phone\u{2066}";
        let login = Request::post("/api/v1/auth/login")
            .header("User-Agent", agent)
            .header("X-Device-Name", device)
            .json(&json!({ "email": ANN, "password": PASSWORD }));
        let session = gateway.request(&login).data()["session"].clone();
        let kept = agent.replace('\u{9b}', "");
        assert_eq!(session["user_agent"], kept, "it got as far as this");
        let id = session["id"].as_str().unwrap();
        for words in [
            &["sessions", "list"][..],
            &["sessions", "list", "--json"],
            &["sessions", "show", id],
            &["sessions", "show", id, "--json"],
            &["sessions", "show", "\u{1b}[2J"],
        ] {
            let (_, out, err) = try_run(gateway, words, "");
            let turns = ['\u{202e}', '\u{200b}', '\u{2066}'];
            let steers = |c: char| c != '\n' && (c.is_control() || turns.contains(&c));
            assert!(
                !out.contains(steers) && !err.contains(steers),
                "{out:?}{err:?}"
            );
        }
        let shown = run_json(gateway, &["sessions", "show", id]);
        assert_eq!(shown["user_agent"], kept, "a program reads it as it was");
    });
}

#[test]
fn unreachable_services_are_named() {
    let upstream = Upstream::start();
    // A gateway that can be reached but has no admin token.
    let gateway = Gateway::start(Config::new(upstream.address).set("/admin/token", Value::Null));
    gateway.register(ANN);
    for words in [&["sessions", "list"][..], &["users", "disable", ANN]] {
        let lines = run_failing(&gateway, words, "");
        assert!(
            lines.len() == 1 && lines[0].contains("admin.token"),
            "{lines:?}"
        );
    }
    // A token that is not the gateway's.
    let other = Config::new(upstream.address)
        .set("/admin/bind", json!(gateway.admin.to_string()))
        .set("/admin/token", json!("another-token-0123456789"));
    let file = other.write();
    let list = |file: &std::path::Path| {
        let (status, _, err) = run(&["sessions", "list", "--config", file.to_str().unwrap()]);
        assert_eq!((status, err.lines().count()), (1, 1), "{err}");
        assert!(
            !err.contains("another-token") && !err.contains(ADMIN_TOKEN),
            "{err}"
        );
        err
    };
    list(&file);
    // A Redis that is not there.
    let mut redis = Redis::start();
    let address = redis.address.to_string();
    let gone = Config::new(upstream.address).store(&redis.url());
    redis.kill();
    let err = list(&gone.write());
    assert!(err.contains(&address), "{err}");
}
