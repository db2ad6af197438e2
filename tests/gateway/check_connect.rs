//! `portcullis check --connect`: what the file names is tried, and nothing is changed there.

use serde_json::json;

use crate::support::config::Config;
use crate::support::gateway::run;
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::sentinels::{MASTER, Watched};
use crate::support::upstream::Upstream;

/// Status, standard output and standard error.
fn check(config: &Config) -> (i32, String, String) {
    let file = config.write();
    run(&["check", "--connect", "--config", file.to_str().unwrap()])
}

/// A configuration without warnings.
fn config(upstream: &Upstream) -> Config {
    Config::new(upstream.address).set("/identity/builtin/registration", json!("closed"))
}

struct Scene {
    redis: Redis,
    upstream: Upstream,
}

fn scene() -> Scene {
    Scene {
        redis: Redis::start(),
        upstream: Upstream::start(),
    }
}

impl Scene {
    fn config(&self) -> Config {
        config(&self.upstream).store(&self.redis.url())
    }

    /// The errors with this configuration; there must be some.
    fn errors(&self, config: &Config) -> String {
        let (status, out, err) = check(config);
        assert_eq!(status, 1, "{out}{err}");
        assert!(out.contains(": valid\n"), "{out}");
        err
    }
}

#[test]
fn what_is_fine_is_told_a_line_each() {
    let scene = scene();
    let config = scene.config();
    let (status, out, err) = check(&config);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    let address = scene.redis.address;
    assert_eq!(lines.len(), 4, "{out}");
    assert!(
        lines[1].starts_with(&format!("store: {address}: Redis ")),
        "{out}"
    );
    assert!(lines[2].starts_with("database: ") && lines[2].ends_with(": reachable"));
    let server = format!(
        "upstream echo: http://{}: reachable",
        scene.upstream.address
    );
    assert_eq!(lines[3], server);
    assert!(scene.redis.keys().is_empty());
    assert!(
        !config.folder().join("people.db").exists(),
        "nothing is made"
    );
    // Without it nothing is tried.
    scene.redis.stop();
    let file = config.write();
    assert_eq!(run(&["check", "--config", file.to_str().unwrap()]).0, 0);
    scene.redis.cont();
}

#[test]
fn a_server_that_would_forget_revocations_is_an_error() {
    let scene = scene();
    for policy in ["allkeys-lru", "volatile-ttl"] {
        scene
            .redis
            .command(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let told = scene.errors(&scene.config());
        assert!(
            told.contains(&format!("maxmemory-policy is {policy}")),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn a_server_that_cannot_be_used_is_told_with_its_reason() {
    let scene = scene();
    let nobody = ports::free();
    for (url, reason) in [
        (format!("redis://{nobody}"), "it cannot be used"),
        (
            format!("redis://:hunter2@{}", scene.redis.address),
            "it cannot be used: ",
        ),
        (
            format!("rediss://{}", scene.redis.address),
            "it cannot be used: no answer",
        ),
        (
            format!("redis+cluster://{}", scene.redis.address),
            "none of these servers says who has which slot",
        ),
        (
            format!("redis+sentinel://{}/{MASTER}", scene.redis.address),
            "no Sentinel says where mymaster is",
        ),
    ] {
        let told = scene.errors(&scene.config().store(&url));
        assert!(told.contains(reason), "{url}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let gone = ports::free().port().to_string();
    scene.redis.command(&["REPLICAOF", "127.0.0.1", &gone]);
    let told = scene.errors(&scene.config());
    assert!(
        told.contains("it is a replica, and takes no writes"),
        "{told}"
    );
}

#[test]
fn each_command_that_the_user_lacks_is_named() {
    let scene = scene();
    let user = |rules: &[&str]| {
        let mut all = vec!["ACL", "SETUSER", "gateway", "reset", "on", ">pw"];
        all.extend(rules);
        assert_eq!(scene.redis.command(&all), "OK");
        scene
            .config()
            .set("/store/username", json!("gateway"))
            .set("/store/password", json!("pw"))
    };
    let told = scene.errors(&user(&[
        "~*",
        "+@all",
        "-rpush",
        "-evalsha",
        "-script|load",
    ]));
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for command in ["EVALSHA", "SCRIPT LOAD", "RPUSH"] {
        let expected = format!("the user may not use {command}");
        assert!(
            told.iter().any(|line| line.ends_with(&expected)),
            "{told:?}"
        );
    }
    let told = scene.errors(&user(&["~other:*", "+@all"]));
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("keys that begin with portcullis:"), "{told}");
    assert!(scene.redis.keys().is_empty());
}

#[test]
fn the_user_of_the_documentation_may_do_everything() {
    let scene = scene();
    let page = include_str!("../../docs/topologies.md");
    let rules = page.split("ACL SETUSER gateway").nth(1).unwrap();
    let rules = rules.split("```").next().unwrap().replace("PASSWORD", "pw");
    let mut all = vec!["ACL", "SETUSER", "gateway"];
    all.extend(rules.split_whitespace());
    assert_eq!(scene.redis.command(&all), "OK");
    let config = scene
        .config()
        .set("/store/username", json!("gateway"))
        .set("/store/password", json!("pw"));
    let (status, out, err) = check(&config);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
}

#[test]
fn databases_and_upstreams_are_tried() {
    let scene = scene();
    let nobody = ports::free();
    let server = format!("http://{nobody}");
    let config = scene
        .config()
        .set("/upstreams/echo/servers", json!([server]));
    let (status, _, err) = check(&config);
    assert_eq!(status, 0, "{err}");
    let told = format!("portcullis: warning: upstream echo: {server}: cannot be reached: ");
    assert!(err.starts_with(&told), "{err}");
    for (url, reason) in [
        (
            "sqlite:/does/not/exist/people.db".to_owned(),
            "does not exist",
        ),
        (
            format!("postgres://ann:hunter2@{nobody}/people"),
            "cannot be opened",
        ),
    ] {
        let told = scene.errors(&scene.config().set("/database/url", json!(url)));
        assert!(told.contains(reason) && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn sentinels_are_asked_one_by_one() {
    let mut watched = Watched::start(None);
    let upstream = Upstream::start();
    let url = format!("redis+sentinel://{}/{MASTER}", watched.hosts());
    let config = config(&upstream).store(&url);
    let (status, out, err) = check(&config);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    assert_eq!(
        out.matches("store: Sentinel 127.0.0.1:").count(),
        3,
        "{out}"
    );
    watched.sentinels[1].kill();
    let (status, out, err) = check(&config);
    assert_eq!(status, 0, "{out}{err}");
    assert!(
        err.starts_with("portcullis: warning: store: Sentinel "),
        "{err}"
    );
    assert!(out.contains("store: 127.0.0.1:"), "{out}");
}

#[test]
fn keys_of_another_program_under_the_prefix_are_a_warning() {
    let scene = scene();
    // Under other prefixes there may be anything.
    scene.redis.command(&["SET", "other:thing", "1"]);
    // What a backend writes to revoke is ours.
    let revocation = ["SET", "portcullis:blacklist:abc", "1", "EX", "60"];
    scene.redis.command(&revocation);
    let (status, out, err) = check(&scene.config());
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    scene.redis.command(&["SET", "portcullis:queue:7", "1"]);
    let (status, out, err) = check(&scene.config());
    assert_eq!(status, 0, "{out}{err}");
    let told = format!("{out}{err}");
    assert!(
        told.contains("`portcullis:queue:7` is no key of the gateway's"),
        "{told}"
    );
}
