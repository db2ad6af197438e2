//! A real `redis-server` on a port of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::clock::{Clock, Environment};
use super::gateway::signal;
use super::ports;
use super::wait::eventually;

pub struct Redis {
    pub address: SocketAddr,
    child: Child,
    folder: TempDir,
    keeps: bool,
    environment: Environment,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    pub fn start() -> Redis {
        Redis::start_with(false, Environment::new())
    }

    /// Starts a server that writes to disk before it responds.
    pub fn start_persistent() -> Redis {
        Redis::start_with(true, Environment::new())
    }

    /// The same, by another clock than the machine's.
    pub fn start_persistent_by(clock: &Clock) -> Redis {
        Redis::start_with(true, clock.environment())
    }

    fn start_with(keeps: bool, environment: Environment) -> Redis {
        let folder = tempfile::tempdir().unwrap();
        let address = ports::free();
        let child = serve(address, &folder, keeps, &environment);
        let redis = Redis {
            address,
            child,
            folder,
            keeps,
            environment,
        };
        redis.await_pong();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Runs a command and returns what `redis-cli` printed.
    pub fn command(&self, arguments: &[&str]) -> String {
        let port = self.address.port().to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Runs commands as one transaction.
    pub fn transaction(&self, commands: &[&str]) {
        let mut client = Command::new("redis-cli")
            .args(["-p", &self.address.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let text = format!("MULTI\n{}\nEXEC\n", commands.join("\n"));
        client
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(client.wait().unwrap().success());
    }

    pub fn keys(&self) -> Vec<String> {
        self.command(&["--scan"])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Every key with its value, whatever its type, as text.
    pub fn dump(&self) -> String {
        let mut dump = String::new();
        for key in self.keys() {
            let read: &[&str] = match self.command(&["TYPE", &key]).as_str() {
                "string" => &["GET"],
                "hash" => &["HGETALL"],
                "zset" => &["ZRANGE", "0", "-1", "WITHSCORES"],
                "set" => &["SMEMBERS"],
                "list" => &["LRANGE", "0", "-1"],
                "stream" => &["XRANGE", "-", "+"],
                // It has expired.
                "none" => continue,
                other => panic!("{key} is a {other}"),
            };
            let mut arguments = vec![read[0], key.as_str()];
            arguments.extend(&read[1..]);
            dump.push_str(&format!("{key} {}\n", self.command(&arguments)));
        }
        dump
    }

    /// Stops it answering, with its connections open.
    pub fn pause(&self) {
        signal(self.child.id(), "STOP");
    }

    pub fn resume(&self) {
        signal(self.child.id(), "CONT");
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Goes on to serve reads, and refuses writes with this code.
    pub fn refuse_writes(&self, code: &str) {
        match code {
            "MISCONF" => {
                // What it saves cannot be put in the place of a folder.
                std::fs::create_dir(self.folder.path().join("dump.rdb")).unwrap();
                self.command(&["CONFIG", "SET", "save", "3600 1000000"]);
                self.save("rdb_last_bgsave_status:err");
            }
            "OOM" => drop(self.command(&["CONFIG", "SET", "maxmemory", "1"])),
            "NOREPLICAS" => drop(self.command(&["CONFIG", "SET", "min-replicas-to-write", "1"])),
            "READONLY" => drop(self.command(&["REPLICAOF", "127.0.0.1", "1"])),
            other => panic!("no server refuses writes with {other}"),
        }
    }

    /// Takes writes again.
    pub fn accept_writes(&self) {
        let folder = self.folder.path().join("dump.rdb");
        if folder.is_dir() {
            std::fs::remove_dir(folder).unwrap();
            self.save("rdb_last_bgsave_status:ok");
        }
        self.command(&["CONFIG", "SET", "maxmemory", "0"]);
        self.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        self.command(&["REPLICAOF", "NO", "ONE"]);
    }

    fn save(&self, outcome: &str) {
        eventually(outcome, || {
            self.command(&["BGSAVE"]);
            let info = self.command(&["INFO", "persistence"]);
            info.contains(outcome).then_some(())
        });
    }

    /// Starts it again where it was, with what it kept.
    pub fn restart(&mut self) {
        self.child = serve(self.address, &self.folder, self.keeps, &self.environment);
        self.await_pong();
    }

    fn await_pong(&self) {
        eventually("redis answers", || {
            (self.command(&["PING"]) == "PONG").then_some(())
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(address: SocketAddr, folder: &TempDir, keeps: bool, environment: &Environment) -> Child {
    let keep = if keeps { "yes" } else { "no" };
    Command::new("redis-server")
        .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", keep])
        .args(["--appendfsync", "always"])
        .envs(environment.iter().cloned())
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is needed for these tests: scripts/setup installs it")
}
