//! A bare pass-through on the Pingora that the gateway is built on, tuned as the gateway is: the
//! floor that `bench/run` compares with.
//!
//! `bare LISTEN UPSTREAM`, for example `bare 127.0.0.1:8080 127.0.0.1:3000`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Forwards everything to one server.
struct Bare {
    /// Built once: building a peer for each request may resolve names.
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    /// No module: the default one compresses.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> Result<bool> {
        // What a gateway in production has to do on each request, so the floor does it too.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(75));
        }
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<SocketAddr> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let [listen, upstream] = arguments[..] else {
        eprintln!("usage: bare LISTEN UPSTREAM, both ADDRESS:PORT");
        return ExitCode::from(2);
    };
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let conf = Arc::clone(&server.configuration);
    let mut proxy = http_proxy_service(
        &conf,
        Bare {
            peer: peer(upstream),
        },
    );
    proxy.add_tcp(&listen.to_string());
    server.add_service(proxy);
    server.run_forever()
}

/// The peer, with every timeout set.
fn peer(upstream: SocketAddr) -> HttpPeer {
    let mut peer = HttpPeer::new(upstream, false, String::new());
    let options = &mut peer.options;
    options.connection_timeout = Some(Duration::from_secs(1));
    options.total_connection_timeout = Some(Duration::from_secs(1));
    options.read_timeout = Some(Duration::from_secs(60));
    options.write_timeout = Some(Duration::from_secs(60));
    options.idle_timeout = Some(Duration::from_secs(60));
    peer
}
