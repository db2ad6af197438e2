#![expect(clippy::unwrap_used, reason = "tests")]

mod connections;
mod rotation;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use pingora::http::RequestHeader;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::settings::{
    Balance, HealthCheck, Protocol, Server, ServerAddress, Timeouts, UpstreamHost, UpstreamTls,
};

/// An HTTP/1.1 server on loopback that responds to every request with one status.
struct TestServer {
    port: u16,
    status: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl TestServer {
    async fn start() -> TestServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let status = Arc::new(AtomicU16::new(200));
        let requests = Arc::new(AtomicUsize::new(0));
        let (current_status, counter) = (Arc::clone(&status), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(respond_once(stream, current_status.load(Ordering::SeqCst)));
            }
        });
        TestServer {
            port,
            status,
            requests,
            task,
        }
    }

    fn server(&self) -> Server {
        tcp("127.0.0.1", self.port)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond_once(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: u16) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let response = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn tcp(host: &str, port: u16) -> Server {
    Server {
        url: format!("http://{host}:{port}").into(),
        address: ServerAddress::Tcp {
            host: host.to_owned(),
            port,
        },
        tls: false,
        weight: 1,
    }
}

fn unix(path: PathBuf) -> Server {
    Server {
        url: format!("unix:{}", path.display()).into(),
        address: ServerAddress::Unix(path),
        tls: false,
        weight: 1,
    }
}

/// Servers to which no test connects.
fn unreachable_servers(weights: &[usize]) -> Vec<Server> {
    let server = |(n, weight): (usize, &usize)| Server {
        weight: *weight,
        ..tcp(&format!("10.0.0.{n}"), 80)
    };
    weights.iter().enumerate().map(server).collect()
}

fn upstream(servers: Vec<Server>, balance: Balance) -> settings::Upstream {
    let second = Duration::from_secs(1);
    settings::Upstream {
        name: "orders".into(),
        servers,
        protocol: Protocol::Http1,
        host: UpstreamHost::Upstream,
        tls: UpstreamTls::default(),
        balance,
        health_check: None,
        timeouts: Timeouts {
            connect: second,
            read: 2 * second,
            write: 3 * second,
            idle: 4 * second,
            stream_idle: None,
        },
        retries: 1,
    }
}

fn checked(servers: Vec<Server>) -> settings::Upstream {
    settings::Upstream {
        health_check: Some(HealthCheck {
            path: "/healthz".to_owned(),
            interval: Duration::from_millis(10),
            timeout: Duration::from_millis(500),
            unhealthy_after: 2,
            healthy_after: 2,
        }),
        ..upstream(servers, Balance::RoundRobin)
    }
}

async fn build(settings: &[settings::Upstream], previous: Option<&Upstreams>) -> Upstreams {
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings: Vec<_> = settings.iter().cloned().map(Arc::new).collect();
    Upstreams::build(&settings, previous, &metrics, Handle::current()).await
}

/// Starts the only upstream of a configuration.
async fn start(settings: settings::Upstream) -> Arc<Upstream> {
    Arc::clone(build(&[settings], None).await.get(0).unwrap())
}

/// Requests `/` from the chosen server over a new connection, as the proxy would.
async fn request(chosen: &ChosenServer) -> pingora::Result<u16> {
    let connector = Connector::<()>::new(None);
    let (mut session, _) = connector.get_http_session(&*chosen.peer(None)).await?;
    let mut head = RequestHeader::build("GET", b"/", None)?;
    head.insert_header("host", "orders")?;
    session.write_request_header(Box::new(head)).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    Ok(session.response_header().unwrap().status.as_u16())
}

/// Waits until a server is in rotation, or, with `available` false, until none is.
async fn wait_until_available(upstream: &Upstream, available: bool) {
    let changed = async {
        while upstream.is_available() != available {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), changed).await;
    assert!(
        waited.is_ok(),
        "the upstream never became available: {available}"
    );
}
