//! `redis-server` processes for fleets, used by the tests of the store and of the gateway.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ports::{Ports, is_free};

/// How long a machine under load may take for what is quick on an idle one.
const DEADLINE: Duration = Duration::from_secs(30);
/// A cluster's server takes the port 10,000 above its own as well. Both are below the range that
/// `ports.rs` has for the other tests, and below that from which Linux takes ports for outgoing
/// connections.
static PORTS: Mutex<Ports> = Mutex::new(Ports::new(1_100, 34, 25));

/// Finds a loopback port that is free now, with the one 10,000 above it.
pub(crate) fn free_port() -> u16 {
    let both_are_free = |port| is_free(port) && is_free(port + 10_000);
    PORTS.lock().next(both_are_free)
}

/// A running `redis-server`; it is ended with this.
pub(crate) struct Process {
    child: Child,
    pub(crate) port: u16,
    pub(crate) password: Option<&'static str>,
}

impl Process {
    pub(crate) fn start(port: u16, arguments: &[&str]) -> Process {
        let child = Command::new("redis-server")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is needed for these tests: scripts/setup installs it");
        Process {
            child,
            port,
            password: None,
        }
    }

    /// A server that keeps nothing on disk.
    pub(crate) fn serving(port: u16, folder: &Path, more: &[&str]) -> Process {
        let (text, folder) = (port.to_string(), folder.to_str().unwrap());
        // Several servers share the folder, and each writes what it is sent to begin with.
        let file = format!("dump-{port}.rdb");
        let mut arguments = vec!["--port", &text, "--bind", "127.0.0.1", "--dir", folder];
        arguments.extend(["--save", "", "--appendonly", "no", "--dbfilename", &file]);
        arguments.extend(["--repl-diskless-sync-delay", "0"]);
        arguments.extend(more);
        Process::start(port, &arguments)
    }

    /// A master with a replica that follows it, both of them keeping nothing on disk.
    pub(crate) fn serving_with_replica(folder: &Path) -> (Process, Process) {
        let master = Process::serving(free_port(), folder, &[]);
        master.await_pong();
        let following = ["--replicaof", "127.0.0.1", &master.port.to_string()];
        let replica = Process::serving(free_port(), folder, &following);
        until("the replica follows", || {
            let reported = master.command(&["INFO", "replication"]);
            reported.contains("state=online")
        });
        // Before its first report, which may take a second, a new replica is sent nothing.
        master.command(&["SET", "first", "1"]);
        master.await_replicas(1);
        (master, replica)
    }

    /// Runs a command and returns what `redis-cli` printed, a line an element.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]);
        if let Some(password) = self.password {
            command.env("REDISCLI_AUTH", password);
        }
        let output = command.args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    pub(crate) fn await_pong(&self) {
        until("a server answers", || self.command(&["PING"]) == "PONG");
    }

    /// Waits until this many replicas have confirmed all writes so far. (`WAIT` would wait for the
    /// writes of its own connection.)
    pub(crate) fn await_replicas(&self, many: usize) {
        let reported = || self.command(&["INFO", "replication"]);
        let number = |text: &str| text.trim().parse::<u64>().unwrap();
        let written = reported();
        let written = written
            .lines()
            .find_map(|line| line.strip_prefix("master_repl_offset:"))
            .map(number);
        let confirmed = |line: &str| {
            let offset = line
                .split(',')
                .find_map(|part| part.strip_prefix("offset="));
            line.starts_with("slave") && offset.map(number) >= written
        };
        until("the replicas have everything", || {
            reported().lines().filter(|line| confirmed(line)).count() == many
        });
    }

    /// Sends a signal: `STOP`, `CONT`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Ends it without a farewell.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}
