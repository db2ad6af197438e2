//! A cluster of three masters with a replica each.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::servers::{Process, free_port, until};

pub(crate) struct Nodes {
    pub(crate) servers: Vec<Process>,
    folder: TempDir,
    node_timeout: String,
}

/// One for the whole test binary. Statics are not dropped: a shell that waits for the end of its
/// input ends the servers when this process does.
pub(crate) fn shared() -> &'static Nodes {
    static SHARED: OnceLock<(Nodes, Child)> = OnceLock::new();
    &SHARED
        .get_or_init(|| {
            let nodes = Nodes::start("15000");
            let pids = nodes.servers.iter().map(|server| {
                let reported = server.command(&["INFO", "server"]);
                let pid = reported
                    .lines()
                    .find_map(|line| line.strip_prefix("process_id:"));
                pid.unwrap().trim().to_owned()
            });
            let pids: Vec<String> = pids.collect();
            let script = format!("cat; kill -9 {}", pids.join(" "));
            let mut watch = Command::new("sh");
            watch.args(["-c", &script]).stdin(Stdio::piped());
            (nodes, watch.stdout(Stdio::null()).spawn().unwrap())
        })
        .0
}

impl Nodes {
    /// With this many milliseconds until an unresponsive server counts as dead.
    pub(crate) fn start(node_timeout: &str) -> Nodes {
        let folder = tempfile::tempdir().unwrap();
        let servers = (0..6).map(|_| serve(free_port(), folder.path(), node_timeout));
        let servers: Vec<Process> = servers.collect();
        servers.iter().for_each(Process::await_pong);
        let mut creating = Command::new("redis-cli");
        creating.args(["--cluster", "create"]);
        creating.args(servers.iter().map(|s| format!("127.0.0.1:{}", s.port)));
        creating.args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = creating.output().unwrap();
        let reported = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{reported}");
        until("everybody knows the whole cluster", || {
            servers.iter().all(|server| {
                let cached = server.command(&["CLUSTER", "NODES"]);
                let state = server.command(&["CLUSTER", "INFO"]);
                state.contains("cluster_state:ok") && cached.matches("slave ").count() == 3
            })
        });
        until("the replicas follow", || {
            let linked = |server: &Process| {
                let reported = server.command(&["INFO", "replication"]);
                reported.contains("role:master") || reported.contains("master_link_status:up")
            };
            servers.iter().all(linked)
        });
        Nodes {
            servers,
            folder,
            node_timeout: node_timeout.to_owned(),
        }
    }

    /// Ends a server without a farewell and starts it again where it was, with nothing in it.
    pub(crate) fn empty(&mut self, place: usize) {
        let port = self.servers[place].port;
        self.servers[place].kill();
        self.servers[place] = serve(port, self.folder.path(), &self.node_timeout);
        self.servers[place].await_pong();
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.servers.iter().map(|server| server.port).collect()
    }

    /// The slot of a key, and the place of the server that has it.
    pub(crate) fn owner(&self, key: &str) -> (String, usize) {
        let slot = self.servers[0].command(&["CLUSTER", "KEYSLOT", key]);
        let holds = |server: &Process| {
            // A server that has the slot does not send elsewhere.
            let response = server.command(&["EXISTS", key]);
            !response.is_empty() && !response.contains("MOVED") && !response.contains("refused")
        };
        let place = self.servers.iter().position(holds);
        (slot, place.expect("nobody has the slot"))
    }

    /// Moves a slot with its keys from one master to another, as an operator's tool does.
    pub(crate) fn move_slot(&self, slot: &str, from: usize, to: usize) {
        let name = |place: usize| self.servers[place].command(&["CLUSTER", "MYID"]);
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let set = |server: &Process, state: &str, other: &str| {
            let reported = server.command(&["CLUSTER", "SETSLOT", slot, state, other]);
            assert_eq!(reported, "OK");
        };
        set(target, "IMPORTING", &name(from));
        set(source, "MIGRATING", &name(to));
        let port = target.port.to_string();
        loop {
            let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", slot, "1"]);
            let Some(key) = keys.lines().next().filter(|key| !key.is_empty()) else {
                break;
            };
            source.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "1000"]);
            // The rest of the slot is on the other side for a moment.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for server in [target, source] {
            set(server, "NODE", &name(to));
        }
    }
}

fn serve(port: u16, folder: &Path, node_timeout: &str) -> Process {
    let file = format!("nodes-{port}.conf");
    let clustered = ["--cluster-enabled", "yes", "--cluster-config-file", &file];
    let mut more = clustered.to_vec();
    more.extend(["--cluster-node-timeout", node_timeout]);
    Process::serving(port, folder, &more)
}
