//! A real `redis-server` for one test, stopped on drop.

use std::net::TcpStream;

use crate::servers::{Process, free_port, until};

pub(crate) struct Server {
    process: Process,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start() -> Server {
        Server::start_on(free_port(), &[])
    }

    pub(crate) fn start_on(port: u16, options: &[&str]) -> Server {
        let process = Process::serving(port, &std::env::temp_dir(), options);
        let accepts = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        until("a server accepts connections", accepts);
        Server { process, port }
    }

    /// How many scripts it has run.
    pub(crate) async fn scripts(&self) -> u64 {
        let mut info = redis::cmd("INFO");
        info.arg("commandstats");
        let reported: String = info.query_async(&mut self.client().await).await.unwrap();
        let line = reported
            .lines()
            .find(|it| it.starts_with("cmdstat_evalsha:"));
        let calls = line.and_then(|line| line.split(['=', ',']).nth(1));
        calls.map_or(0, |calls| calls.parse().unwrap())
    }

    /// Sends a signal: `STOP`, `CONT`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Ends the server without a farewell; gives its port.
    pub(crate) fn kill(mut self) -> u16 {
        self.process.kill();
        self.port
    }

    /// A connection beside the store's, for looking at keys and breaking them.
    pub(crate) async fn client(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        // Without a deadline: what a test looks at is not how quickly it is looked at.
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        connecting.await.unwrap()
    }
}
