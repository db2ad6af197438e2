//! The number of heap allocations of a request in the steady state, by path.
//!
//! The gateway runs in a process of its own, which is this program again: its allocator counts. To find
//! the allocations of one lane, run it under a profiler: `PORTCULLIS_LANE="no auth"
//! PORTCULLIS_PROFILER="valgrind --tool=dhat"`.

use std::alloc::System;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use portcullis::config::{self, ConfigSource, FilesRead, Purpose};
use portcullis::gateway::{self, ActivatedSockets, Process, SocketSource, StartOptions};
use portcullis::telemetry::logging::{Format, Logs};
use portcullis::telemetry::metrics::Metrics;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::{DEADLINE, within};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The variable that names the folder of the gateway's configuration.
const FOLDER: &str = "PORTCULLIS_TEST_FOLDER";
const FILE: &str = "portcullis.yaml";
const SOCKET: &str = "allocations";

/// Requests before the first count: pools are filled and connections are open.
const WARM_UP: usize = 200;
const ROUNDS: usize = 5;
const REQUESTS: usize = 200;

/// A path of a request, and the allocations that it may cost.
struct Lane {
    name: &'static str,
    request: Request,
    status: u16,
    budget: usize,
}

/// The gateway whose allocations are counted.
struct Measured {
    child: Child,
    counts: UnixStream,
}

impl Measured {
    fn start(config: &Config) -> Measured {
        config.write();
        let listener = UnixListener::bind(config.folder().join(SOCKET)).unwrap();
        let program = std::env::current_exe().unwrap();
        let profiler = std::env::var("PORTCULLIS_PROFILER").unwrap_or_default();
        let words = profiler.split_whitespace().map(OsString::from);
        let mut words = words.chain([program.into_os_string()]);
        let child = Command::new(words.next().unwrap())
            .args(words)
            .args(["allocations::serve", "--exact", "--ignored"])
            .env(FOLDER, config.folder())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let counts = listener.accept().unwrap().0;
        // A profiler makes the start slow.
        let deadline = if profiler.is_empty() {
            DEADLINE
        } else {
            10 * DEADLINE
        };
        within(deadline, "the gateway is ready", || {
            let response = Request::get("/ready").try_send(config.admin()).ok()?;
            (response.status == 200).then_some(())
        });
        Measured { child, counts }
    }

    /// Allocations so far.
    fn count(&mut self) -> usize {
        self.report()[0]
    }

    /// Bytes that are allocated now.
    fn live_bytes(&mut self) -> usize {
        self.report()[1]
    }

    fn report(&mut self) -> [usize; 2] {
        let mut report = [[0; size_of::<usize>()]; 2];
        self.counts.write_all(&[0]).unwrap();
        self.counts.read_exact(report.as_flattened_mut()).unwrap();
        report.map(usize::from_ne_bytes)
    }

    /// The fewest allocations of a request in any round: background tasks allocate at any time, and
    /// more of them run while a busy machine serves the requests of a round.
    fn per_request(&mut self, client: &mut Client, lane: &Lane) -> f64 {
        let bytes = lane.request.to_bytes();
        let mut send = |count| {
            for _ in 0..count {
                let response = client.send(&bytes).read_response();
                assert_eq!(response.status, lane.status, "{}", lane.name);
            }
        };
        send(WARM_UP);
        let rounds = (0..ROUNDS).map(|_| {
            let before = self.count();
            send(REQUESTS);
            self.count() - before
        });
        rounds.min().unwrap_or(usize::MAX) as f64 / REQUESTS as f64
    }
}

impl Drop for Measured {
    /// Ends the gateway, which writes a profile if it runs under a profiler.
    fn drop(&mut self) {
        let _ = self.counts.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

fn config(upstream: &Upstream, redis: &Redis) -> Config {
    let by_user = |limit: usize, consistency: &str| {
        json!({ "algorithm": "sliding_window", "window": "1h", "key": "user", "limit": limit,
            "consistency": consistency })
    };
    let limits = json!({
        "leased": by_user(1_000_000_000, "leased"),
        "exact": by_user(1_000_000_000, "exact"),
        "spent_leased": by_user(1, "leased"),
        "spent_exact": by_user(1, "exact"),
    });
    let names = limits.as_object().unwrap().keys().cloned();
    let config = Config::new(upstream.address).store(&redis.url());
    names.fold(config.set("/limits", limits.clone()), |config, name| {
        config.route(
            json!({ "name": name, "match": { "prefix": format!("/{name}") },
            "auth": "required", "upstream": "echo", "limits": [name] }),
        )
    })
}

fn lanes(token: &str) -> Vec<Lane> {
    let lane = |name, request: Request, status, budget| Lane {
        name,
        request,
        status,
        budget,
    };
    let known = |path| Request::get(path).bearer(token);
    vec![
        lane("no auth", Request::get("/public/a"), 200, 0),
        lane(
            "no auth, body",
            Request::post("/public/a").body("a body"),
            200,
            0,
        ),
        lane("known session", known("/private/a"), 200, 0),
        lane("leased limit", known("/leased/a"), 200, 2),
        lane("exact limit", known("/exact/a"), 200, 7),
        lane("denied, leased limit", known("/spent_leased/a"), 429, 1),
        lane("denied, exact limit", known("/spent_exact/a"), 429, 1),
        lane("no credential", Request::get("/private/a"), 401, 0),
    ]
}

#[test]
fn request_allocates_no_more_than_its_budget() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let config = config(&upstream, &redis);
    let mut measured = Measured::start(&config);
    let user = json!({ "email": "ann@example.com", "password": "correct horse battery" });
    let register = Request::post("/api/v1/auth/register").json(&user);
    let response = register.send(config.listener(0));
    let token = response.data()["access_token"].as_str().unwrap().to_owned();
    let mut client = Client::connect(config.listener(0));
    let mut over = Vec::new();
    let only = std::env::var("PORTCULLIS_LANE").ok();
    for lane in lanes(&token) {
        if only.as_ref().is_some_and(|only| only != lane.name) {
            continue;
        }
        if lane.status == 429 {
            client.send(lane.request.to_bytes()).read_response();
        }
        let count = measured.per_request(&mut client, &lane);
        let line = format!(
            "{}: {count:.2} allocations, budget {}",
            lane.name, lane.budget
        );
        eprintln!("{line}");
        if count > lane.budget as f64 + 0.5 {
            over.push(line);
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}

/// Connections of each kind whose memory is measured.
const CONNECTIONS: usize = 400;

#[test]
fn connection_takes_no_more_memory_than_its_budget() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let config = config(&upstream, &redis);
    let mut measured = Measured::start(&config);
    let mut open = Vec::new();
    // Each response of the first kind goes on, so its connection has one to the upstream.
    let kinds = [("active", "/public/sse", 12), ("idle", "/public/a", 3)];
    for (kind, target, kib) in kinds {
        let before = measured.live_bytes();
        for _ in 0..CONNECTIONS {
            let mut client = Client::connect(config.listener(0));
            client.send(Request::get(target).to_bytes());
            match kind {
                "active" => assert!(client.read_until("\r\n\r\n").contains(" 200 ")),
                _ => assert_eq!(client.read_response().status, 200),
            }
            open.push(client);
        }
        let bytes = (measured.live_bytes() - before) / CONNECTIONS;
        assert!(bytes <= kib * 1024, "{kind}: {bytes} bytes");
    }
}

#[test]
#[ignore = "the gateway of the other test, in a process of its own"]
fn serve() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    report_counts(&folder);
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let logs = Logs::start(Format::Json, "info", &metrics).unwrap();
    let source = ConfigSource::File(folder.join(FILE));
    let start = StartOptions {
        process: Process::start().unwrap(),
        sockets: SocketSource::ServiceManager(ActivatedSockets::default()),
        settings: config::load(&source, Purpose::Serve).unwrap(),
        source: None,
        files: FilesRead::default(),
        metrics,
        logs,
        seed_users: Vec::new(),
        on_ready: Box::new(|_| ()),
    };
    gateway::run(start).unwrap();
}

/// Reports the number of allocations so far and the live bytes for every byte that arrives, and ends the
/// process with the connection.
fn report_counts(folder: &Path) {
    let mut counts = UnixStream::connect(folder.join(SOCKET)).unwrap();
    std::thread::spawn(move || {
        while counts.read_exact(&mut [0]).is_ok() {
            let stats = ALLOCATOR.stats();
            let count = stats.allocations + stats.reallocations;
            let live = stats.bytes_allocated - stats.bytes_deallocated;
            let report = [count, live].map(usize::to_ne_bytes);
            let _ = counts.write_all(report.as_flattened());
        }
        std::process::exit(0);
    });
}
