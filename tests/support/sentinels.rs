//! A master, two replicas and three Sentinels.

use std::path::Path;

use tempfile::TempDir;

use super::servers::{Process, free_port, until};

pub(crate) const MASTER: &str = "mymaster";

/// A master, two replicas and three Sentinels that watch them.
pub(crate) struct SentinelSetup {
    folder: TempDir,
    pub(crate) servers: Vec<Process>,
    pub(crate) sentinels: Vec<Process>,
}

impl SentinelSetup {
    /// With the Sentinels' password, where they are to have one.
    pub(crate) fn start(password: Option<&'static str>) -> SentinelSetup {
        let folder = tempfile::tempdir().unwrap();
        let master = free_port();
        let master_port = master.to_string();
        let mut servers = vec![Process::serving(master, folder.path(), &[])];
        for _ in 0..2 {
            let following = ["--replicaof", "127.0.0.1", &master_port];
            servers.push(Process::serving(free_port(), folder.path(), &following));
        }
        servers.iter().for_each(Process::await_pong);
        until("the replicas follow", || {
            let role = servers[0].command(&["INFO", "replication"]);
            role.matches("state=online").count() == 2
        });
        let sentinels = (0..3).map(|_| sentinel(folder.path(), master, password));
        let watched = SentinelSetup {
            sentinels: sentinels.collect(),
            folder,
            servers,
        };
        until("the Sentinels know each other and the replicas", || {
            watched.sentinels.iter().all(|sentinel| {
                let cached = sentinel.command(&["SENTINEL", "MASTER", MASTER]);
                let reports = |name: &str, value: &str| {
                    let mut lines = cached.lines().skip_while(|line| *line != name);
                    lines.nth(1) == Some(value)
                };
                reports("num-slaves", "2") && reports("num-other-sentinels", "2")
            })
        });
        watched
    }

    /// The Sentinels' hosts and ports, with commas between.
    pub(crate) fn hosts(&self) -> String {
        let hosts = self.sentinels.iter();
        let hosts: Vec<String> = hosts.map(|s| format!("127.0.0.1:{}", s.port)).collect();
        hosts.join(",")
    }

    /// The place among the servers of the one that the Sentinels call the master.
    pub(crate) fn master(&self) -> usize {
        let reported = self.sentinels[0].command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        let port: u16 = reported.lines().nth(1).unwrap().parse().unwrap();
        self.servers.iter().position(|s| s.port == port).unwrap()
    }

    /// Starts a server again that was killed; the Sentinels make it a replica.
    pub(crate) fn restart_server(&mut self, place: usize) {
        let port = self.servers[place].port;
        self.servers[place] = Process::serving(port, self.folder.path(), &[]);
        self.servers[place].await_pong();
    }
}

fn sentinel(folder: &Path, master: u16, password: Option<&'static str>) -> Process {
    let port = free_port();
    let file = folder.join(format!("sentinel-{port}.conf"));
    let mut text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\n\
         sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER} 600\n\
         sentinel failover-timeout {MASTER} 3000\n",
        folder.display()
    );
    if let Some(password) = password {
        text += &format!("requirepass {password}\nsentinel sentinel-pass {password}\n");
    }
    std::fs::write(&file, text).unwrap();
    let mut process = Process::start(port, &[file.to_str().unwrap(), "--sentinel"]);
    process.password = password;
    process.await_pong();
    process
}
