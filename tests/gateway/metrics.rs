//! What a monitoring system reads: valid, bounded, complete and documented.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

const DOCUMENT: &str = include_str!("../../docs/metrics.md");

/// A gateway that has seen a bit of everything.
fn used() -> Gateway {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address).limited(
        "per-user",
        json!({ "algorithm": "sliding_window", "limit": 5, "window": "10m", "key": "user" }),
    ));
    let alice = gateway.register("alice@example.com");
    for _ in 0..7 {
        gateway.ask(&Request::get("/private/secret-path").bearer(&alice.access_token));
    }
    gateway.get("/private/a");
    gateway.get("/nowhere/at/all");
    gateway.ask(&Request::new("BREW", "/public/a"));
    let logout = Request::post("/api/v1/auth/logout").bearer(&alice.access_token);
    gateway.ask(&logout);
    gateway
}

fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn promtool_has_nothing_to_say() {
    let gateway = used();
    let text = Request::get("/metrics").send(gateway.admin).text();
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("skipped: promtool is not installed (package prometheus)");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn known_series_exist_from_the_start() {
    let gateway = Gateway::start(Config::new(Upstream::start().address).limited(
        "per-user",
        json!({ "algorithm": "sliding_window", "limit": 5, "window": "10m", "key": "user" }),
    ));
    let text = Request::get("/metrics").send(gateway.admin).text();
    for series in [
        "portcullis_auth_total{outcome=\"ok\"} 0",
        "portcullis_auth_total{outcome=\"token_expired\"} 0",
        "portcullis_ratelimit_total{limit=\"per-user\",outcome=\"limited\"} 0",
        "portcullis_ratelimit_total{limit=\"per-user\",outcome=\"degraded\"} 0",
        "portcullis_sessions_created_total 0",
        "portcullis_sessions_ended_total{reason=",
        "portcullis_config_reloads_total{outcome=\"rejected\"} 0",
        "portcullis_store_up 1",
        "portcullis_live_connections 0",
        "portcullis_upstream_healthy{server=",
        "portcullis_build_info{version=",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(series), "{series} is missing:\n{text}");
    }
}

#[test]
fn what_happened_is_counted_under_bounded_labels() {
    let gateway = used();
    let text = Request::get("/metrics").send(gateway.admin).text();
    let counted = |labels: &[&str]| gateway.metric("portcullis_requests_total", labels);
    assert_eq!(counted(&["route=\"private\"", "code=\"200\""]), 5.0);
    assert_eq!(counted(&["route=\"private\"", "code=\"429\""]), 2.0);
    assert_eq!(counted(&["route=\"private\"", "code=\"401\""]), 1.0);
    assert_eq!(counted(&["method=\"OTHER\""]), 1.0);
    assert_eq!(counted(&["code=\"404\""]), 1.0);
    let limited = gateway.metric("portcullis_ratelimit_total", &["per-user", "\"limited\""]);
    assert_eq!(limited, 2.0);
    assert_eq!(
        gateway.metric("portcullis_sessions_created_total", &[]),
        1.0
    );
    for unbounded in [
        "secret-path",
        "nowhere",
        "BREW",
        "alice",
        "client=",
        "127.0.0.1\"",
    ] {
        let found = text
            .lines()
            .find(|line| line.contains(unbounded) && !line.contains("server="));
        assert_eq!(found, None, "{unbounded}");
    }
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_is_there() {
    let gateway = used();
    let exposed = families(&Request::get("/metrics").send(gateway.admin).text());
    let documented: BTreeSet<String> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .map(str::to_owned)
        .collect();
    let ours = |name: &&String| name.starts_with("portcullis_");
    let exposed: BTreeSet<_> = exposed.iter().filter(ours).collect();
    let documented: BTreeSet<_> = documented.iter().filter(ours).collect();
    let undocumented: Vec<_> = exposed.difference(&documented).collect();
    assert!(
        undocumented.is_empty(),
        "not in docs/metrics.md: {undocumented:?}"
    );
    // Families without a series yet are not rendered, so the other direction asks the source.
    let source = include_str!("../../src/metrics.rs");
    for name in documented {
        let short = name.trim_start_matches("portcullis_");
        assert!(
            source.contains(&format!("\"{short}\"")),
            "{name} is documented and does not exist"
        );
    }
}

#[test]
fn one_line_a_request_tells_who_what_and_how_long() {
    let gateway = used();
    let line = crate::support::wait::eventually("the access line", || {
        let mine = |e: &serde_json::Value| e.to_string().contains("/private/secret-path");
        gateway.events().into_iter().find(mine)
    });
    let text = line.to_string();
    for part in ["127.0.0.1", "GET", "private", "200"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // They are written after the answers.
    crate::support::wait::eventually("one line a request", || {
        let lines = gateway.events();
        let about = |line: &&serde_json::Value| line.to_string().contains("/private/secret-path");
        let count = lines.iter().filter(about).count();
        assert!(count <= 7, "one line a request");
        (count == 7).then_some(())
    });
}
