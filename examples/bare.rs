//! A bare pass-through on the gateway's release of Pingora, tuned as the gateway is: the baseline
//! of `bench/run`.
//!
//! `bare LISTEN UPSTREAM [WORKERS [CERT KEY]]`, for example `bare 127.0.0.1:8080 127.0.0.1:3000`:
//! by default one worker and cleartext; with a certificate TLS, and HTTP/2 by ALPN.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::listeners::ListenerConfig;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::protocols::l4::stream::L4BufferSettings;
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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(requested) = Arguments::parse(&arguments) else {
        eprintln!("usage: bare LISTEN UPSTREAM [WORKERS [CERT KEY]], the first both ADDRESS:PORT");
        return ExitCode::from(2);
    };
    let conf = ServerConf {
        threads: requested.workers,
        work_stealing: false,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let conf = Arc::clone(&server.configuration);
    let peer = peer(requested.upstream);
    let mut proxy = http_proxy_service(&conf, Bare { peer });
    let mut listener = ListenerConfig::tcp(requested.listen.to_string());
    if let Some((cert, key)) = requested.certificate {
        match TlsSettings::intermediate(cert, key) {
            Ok(mut tls) => {
                tls.enable_h2();
                listener = listener.tls(tls);
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        }
    } else {
        // The default is 64 KiB a connection, filled when it is accepted; behind TLS less is slower.
        listener = listener.l4_buffer(L4BufferSettings::new(8192, 1460));
    }
    proxy.add_listener(listener);
    server.add_service(proxy);
    server.run_forever()
}

/// What the command line asks for.
struct Arguments<'a> {
    listen: SocketAddr,
    upstream: SocketAddr,
    workers: usize,
    certificate: Option<(&'a str, &'a str)>,
}

impl<'a> Arguments<'a> {
    fn parse(arguments: &'a [String]) -> Option<Arguments<'a>> {
        let (servers, others) = arguments.split_at_checked(2)?;
        let address = |at: usize| servers.get(at)?.parse().ok();
        let (workers, certificate) = match others {
            [] => (1, None),
            [workers] => (workers.parse().ok()?, None),
            [workers, cert, key] => (workers.parse().ok()?, Some((&**cert, &**key))),
            _ => return None,
        };
        Some(Arguments {
            listen: address(0)?,
            upstream: address(1)?,
            workers,
            certificate,
        })
    }
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
