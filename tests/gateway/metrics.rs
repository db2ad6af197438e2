//! Metrics as a monitoring system reads them: valid, bounded, complete and documented.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::redis::Redis;
use crate::support::upstream::{Recorder, Upstream};
use crate::support::wait::eventually;
use crate::support::{ports, tls};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");
const CAPACITY: &str = include_str!("../../docs/capacity.md");

/// A gateway that has seen a bit of everything.
fn start_with_traffic() -> Gateway {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address).limit(
        "per-user",
        json!({ "algorithm": "sliding_window", "limit": 5, "window": "10m", "key": "user" }),
    ));
    let alice = gateway.register("alice@example.com");
    for _ in 0..7 {
        gateway.request(&Request::get("/private/secret-path").bearer(&alice.access_token));
    }
    gateway.get("/private/a");
    gateway.get("/nowhere/at/all");
    gateway.request(&Request::new("BREW", "/public/a"));
    let logout = Request::post("/api/v1/auth/logout").bearer(&alice.access_token);
    gateway.request(&logout);
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
fn promtool_reports_no_problems() {
    let gateway = start_with_traffic();
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
    let printed = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && printed.is_empty(),
        "{}",
        String::from_utf8_lossy(&printed)
    );
}

#[test]
fn expected_series_exist_at_start() {
    let gateway = Gateway::start(Config::new(Upstream::start().address).limit(
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
fn events_are_counted_under_bounded_labels() {
    let gateway = start_with_traffic();
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
fn metrics_and_documentation_agree() {
    let gateway = start_with_traffic();
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
    let source = include_str!("../../src/telemetry/metrics/mod.rs");
    for name in documented {
        let short = name.trim_start_matches("portcullis_");
        assert!(
            source.contains(&format!("\"{short}\"")),
            "{name} is documented and does not exist"
        );
    }
}

#[test]
fn sizing_guide_names_documented_metrics() {
    let mentioned = CAPACITY.split("portcullis_").skip(1);
    let names: BTreeSet<&str> = mentioned
        .filter_map(|text| {
            text.split(|c: char| !c.is_ascii_lowercase() && c != '_')
                .next()
        })
        .collect();
    assert!(!names.is_empty());
    for name in names {
        let is_documented = ["`", "{"]
            .iter()
            .any(|end| DOCUMENT.contains(&format!("| `portcullis_{name}{end}")));
        assert!(is_documented, "portcullis_{name}");
    }
}

#[test]
fn access_log_has_user_request_and_duration() {
    let gateway = start_with_traffic();
    let line = eventually("the access line", || {
        let mine = |e: &serde_json::Value| e.to_string().contains("/private/secret-path");
        gateway.events().into_iter().find(mine)
    });
    let text = line.to_string();
    for part in ["127.0.0.1", "GET", "private", "200"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // They are written after the responses.
    eventually("one line a request", || {
        let lines = gateway.events();
        let about = |line: &&serde_json::Value| line.to_string().contains("/private/secret-path");
        let count = lines.iter().filter(about).count();
        assert!(count <= 7, "one line a request");
        (count == 7).then_some(())
    });
}

#[test]
fn upstream_errors_are_counted_and_ejection_is_reported() {
    let upstream = Upstream::start();
    let silent = Recorder::responding("");
    let other = tls::certificate("localhost");
    let server = format!("http://{}", ports::free());
    let mut config = Config::new(upstream.address);
    let ca = config.write_beside("other.pem", &other.cert);
    config.put("/upstreams/gone", json!({ "servers": [server] }));
    config.put(
        "/upstreams/silent",
        json!({ "servers": [format!("http://{}", silent.address)], "timeouts": { "read": "100ms" } }),
    );
    let port = start_plaintext_server();
    config.put(
        "/upstreams/clear",
        json!({ "servers": [format!("https://localhost:{port}")], "tls": { "ca": ca } }),
    );
    for name in ["gone", "silent", "clear"] {
        let prefix = format!("/{name}");
        let route = json!({ "name": name, "match": { "prefix": prefix }, "auth": "none", "upstream": name });
        config = config.route(route);
    }
    let gateway = Gateway::start(config);
    let errors = |upstream: &str, kind: &str| {
        let labels = [
            format!("upstream=\"{upstream}\""),
            format!("kind=\"{kind}\""),
        ];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        gateway.metric("portcullis_upstream_errors_total", &labels)
    };
    let text = Request::get("/metrics").send(gateway.admin).text();
    for kind in ["connect", "timeout", "protocol", "reset", "tls"] {
        let series =
            format!("portcullis_upstream_errors_total{{kind=\"{kind}\",upstream=\"gone\"}} 0");
        assert!(text.contains(&series), "{series}");
    }
    let http2 = Http2::connect(gateway.public);
    for (path, status, upstream, kind) in [
        ("/gone/a", 502, "gone", "connect"),
        ("/silent/a", 504, "silent", "timeout"),
        ("/public/garbage", 502, "echo", "protocol"),
        ("/public/close", 502, "echo", "reset"),
        ("/clear/a", 502, "clear", "tls"),
    ] {
        let before = errors(upstream, kind);
        assert_eq!(gateway.get(path).status, status, "{path}");
        assert!(errors(upstream, kind) > before, "{path} on HTTP/1.1");
        let before = errors(upstream, kind);
        assert_eq!(http2.request("GET", path, &[]).0, status, "{path}");
        assert!(errors(upstream, kind) > before, "{path} on HTTP/2");
    }
    let healthy = || gateway.metric("portcullis_upstream_healthy", &["upstream=\"gone\""]);
    for _ in 0..5 {
        gateway.get("/gone/a");
    }
    // Five failures in a row eject it, although there is no other server.
    assert_eq!(healthy(), 0.0);
    assert_eq!(
        gateway.metric("portcullis_upstream_healthy", &["upstream=\"echo\""]),
        1.0
    );
}

/// A port where a client of TLS gets something else.
fn start_plaintext_server() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    port
}

#[test]
fn in_flight_requests_and_durations_are_counted() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let in_flight = || gateway.metric("portcullis_requests_in_flight", &[]);
    assert_eq!(in_flight(), 0.0);
    let mut client = Client::connect(gateway.public);
    client.send(Request::get("/public/sse").to_bytes());
    client.read_until("data:");
    assert_eq!(in_flight(), 1.0);
    assert!(gateway.metric("portcullis_connections_open", &[]) >= 1.0);
    drop(client);
    eventually("the stream has ended", || {
        (in_flight() == 0.0).then_some(())
    });
    gateway.get("/private/a");
    let labels = ["route=\"private\"", "class=\"4xx\""];
    let count = || gateway.metric("portcullis_request_duration_seconds_count", &labels);
    eventually("the refusal is counted", || (count() == 1.0).then_some(()));
}

#[test]
fn certificate_expiry_is_exported() {
    let upstream = Upstream::start();
    let certificate = tls::certificate("localhost");
    let config = Config::new(upstream.address);
    let cert = config.write_beside("site.pem", &certificate.cert);
    let key = config.write_beside("site.key", &certificate.key);
    let tls = json!({ "certificates": [{ "cert": cert, "key": key }] });
    let gateway = Gateway::start(config.set("/listeners/0/tls", tls));
    let label = format!("certificate=\"{}\"", cert.display());
    let expiry = gateway.metric("portcullis_tls_certificate_not_after_seconds", &[&label]);
    // The year 4096, which the library that made it gives by default.
    assert_eq!(expiry, 67_090_118_400.0);
}

#[test]
fn first_cleanup_waits_for_the_connections_to_the_store() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    for _ in 0..2 {
        let gateway = Gateway::start(Config::new(upstream.address).store(&redis.url()));
        let runs = |outcome: &str| {
            let outcome = format!("outcome=\"{outcome}\"");
            gateway.metric("portcullis_cleanup_runs_total", &[&outcome])
        };
        eventually("the first cleanup", || {
            let ended = runs("done") + runs("skipped") + runs("failed");
            (ended >= 1.0).then_some(())
        });
        assert!(runs("failed") < 1.0);
    }
}
