//! `portcullis check --connect`: tests the connections that the file names, and changes nothing
//! there.

use serde_json::json;

use crate::support::config::Config;
use crate::support::gateway::run;
use crate::support::ports;
use crate::support::redis::Redis;
use crate::support::sentinels::{MASTER, SentinelSetup};
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

struct Fixture {
    redis: Redis,
    upstream: Upstream,
}

fn fixture() -> Fixture {
    Fixture {
        redis: Redis::start(),
        upstream: Upstream::start(),
    }
}

impl Fixture {
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
fn successful_checks_print_one_line_each() {
    let fixture = fixture();
    let config = fixture.config();
    let (status, out, err) = check(&config);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    let address = fixture.redis.address;
    assert_eq!(lines.len(), 4, "{out}");
    assert!(
        lines[1].starts_with(&format!("store: {address}: Redis ")),
        "{out}"
    );
    assert!(lines[2].starts_with("database: ") && lines[2].ends_with(": reachable"));
    let server = format!(
        "upstream echo: http://{}: reachable",
        fixture.upstream.address
    );
    assert_eq!(lines[3], server);
    assert!(fixture.redis.keys().is_empty());
    assert!(
        !config.folder().join("people.db").exists(),
        "nothing is made"
    );
    // Without it nothing is tried.
    fixture.redis.pause();
    let file = config.write();
    assert_eq!(run(&["check", "--config", file.to_str().unwrap()]).0, 0);
    fixture.redis.resume();
}

#[test]
fn evicting_redis_is_an_error() {
    let fixture = fixture();
    for policy in ["allkeys-lru", "volatile-ttl"] {
        fixture
            .redis
            .command(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let reported = fixture.errors(&fixture.config());
        assert!(
            reported.contains(&format!("maxmemory-policy is {policy}")),
            "{reported}"
        );
        assert_eq!(reported.lines().count(), 1, "{reported}");
    }
}

#[test]
fn unusable_server_is_reported_with_the_reason() {
    let fixture = fixture();
    let missing = ports::free();
    for (url, reason) in [
        (
            format!("redis://{missing}"),
            "it cannot be used: connection refused",
        ),
        (
            format!("redis://:hunter2@{}", fixture.redis.address),
            "it cannot be used: ",
        ),
        (
            format!("rediss://{}", fixture.redis.address),
            "it cannot be used: no response",
        ),
        (
            format!("redis+cluster://{}", fixture.redis.address),
            "none of these servers says who has which slot",
        ),
        (
            format!("redis+sentinel://{}/{MASTER}", fixture.redis.address),
            "no Sentinel says where mymaster is",
        ),
    ] {
        let reported = fixture.errors(&fixture.config().store(&url));
        assert!(reported.contains(reason), "{url}: {reported}");
        assert!(!reported.contains("hunter2"), "{reported}");
    }
    let gone = ports::free().port().to_string();
    fixture.redis.command(&["REPLICAOF", "127.0.0.1", &gone]);
    let reported = fixture.errors(&fixture.config());
    assert!(
        reported.contains("it is a replica, which accepts no writes"),
        "{reported}"
    );
}

#[test]
fn missing_acl_commands_are_named() {
    let fixture = fixture();
    let user = |rules: &[&str]| {
        let mut all = vec!["ACL", "SETUSER", "gateway", "reset", "on", ">pw"];
        all.extend(rules);
        assert_eq!(fixture.redis.command(&all), "OK");
        fixture
            .config()
            .set("/store/username", json!("gateway"))
            .set("/store/password", json!("pw"))
    };
    let reported = fixture.errors(&user(&[
        "~*",
        "+@all",
        "-rpush",
        "-evalsha",
        "-script|load",
    ]));
    let reported: Vec<&str> = reported.lines().collect();
    assert_eq!(reported.len(), 3, "{reported:?}");
    for command in ["EVALSHA", "SCRIPT LOAD", "RPUSH"] {
        let expected = format!("the user may not use {command}");
        assert!(
            reported.iter().any(|line| line.ends_with(&expected)),
            "{reported:?}"
        );
    }
    let reported = fixture.errors(&user(&["~other:*", "+@all"]));
    assert_eq!(reported.lines().count(), 1, "{reported}");
    assert!(
        reported.contains("keys that begin with portcullis:"),
        "{reported}"
    );
    assert!(fixture.redis.keys().is_empty());
}

#[test]
fn documented_acl_user_has_every_permission() {
    let fixture = fixture();
    let page = include_str!("../../docs/topologies.md");
    let rules = page.split("ACL SETUSER gateway").nth(1).unwrap();
    let rules = rules.split("```").next().unwrap().replace("PASSWORD", "pw");
    let mut all = vec!["ACL", "SETUSER", "gateway"];
    all.extend(rules.split_whitespace());
    assert_eq!(fixture.redis.command(&all), "OK");
    let config = fixture
        .config()
        .set("/store/username", json!("gateway"))
        .set("/store/password", json!("pw"));
    let (status, out, err) = check(&config);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
}

#[test]
fn databases_and_upstreams_are_checked() {
    let fixture = fixture();
    let missing = ports::free();
    let server = format!("http://{missing}");
    let config = fixture
        .config()
        .set("/upstreams/echo/servers", json!([server]));
    let (status, _, err) = check(&config);
    assert_eq!(status, 0, "{err}");
    let reported = format!("portcullis: warning: upstream echo: {server}: cannot be reached: ");
    assert!(err.starts_with(&reported), "{err}");
    for (url, reason) in [
        (
            "sqlite:/does/not/exist/people.db".to_owned(),
            "does not exist",
        ),
        (
            format!("postgres://ann:hunter2@{missing}/people"),
            "cannot be opened",
        ),
    ] {
        let reported = fixture.errors(&fixture.config().set("/database/url", json!(url)));
        assert!(
            reported.contains(reason) && !reported.contains("hunter2"),
            "{reported}"
        );
    }
}

#[test]
fn each_sentinel_is_checked() {
    let mut watched = SentinelSetup::start(None);
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
fn foreign_keys_under_the_prefix_are_a_warning() {
    let fixture = fixture();
    // Under other prefixes there may be anything.
    fixture.redis.command(&["SET", "other:thing", "1"]);
    // What a backend writes to revoke is ours.
    let revocation = ["SET", "portcullis:blacklist:abc", "1", "EX", "60"];
    fixture.redis.command(&revocation);
    let (status, out, err) = check(&fixture.config());
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    fixture.redis.command(&["SET", "portcullis:queue:7", "1"]);
    let (status, out, err) = check(&fixture.config());
    assert_eq!(status, 0, "{out}{err}");
    let reported = format!("{out}{err}");
    assert!(
        reported.contains("`portcullis:queue:7` is no key of the gateway's"),
        "{reported}"
    );
}
