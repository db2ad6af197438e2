//! A server that stands for a provider and responds as a test wants, at the level of bytes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// How the server responds to a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// A status, a content type and a body.
    Content(u16, &'static str, Vec<u8>),
    Redirect(String),
    /// A body that never ends.
    Endless,
    /// A head, and then a byte of the body every 20 ms.
    Drip,
    /// Nothing, and the connection stays open.
    Silence,
    /// The connection is reset once the request is read.
    Reset,
    /// Something that is not HTTP.
    Garbage,
    /// A JSON response after a while.
    Late(Duration, Value),
}

/// A request as the server received it.
#[derive(Clone)]
pub(super) struct Received {
    pub(super) target: String,
    /// In lower case up to the colons.
    pub(super) head: String,
    pub(super) body: String,
}

pub(super) struct LyingServer {
    pub(super) address: SocketAddr,
    replies: Arc<Mutex<HashMap<String, Reply>>>,
    received: Arc<Mutex<Vec<Received>>>,
    task: AbortHandle,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Reply {
        Reply::text(status, &body.to_string())
    }

    pub(super) fn text(status: u16, body: &str) -> Reply {
        Reply::Content(status, "application/json", body.as_bytes().to_vec())
    }
}

impl LyingServer {
    pub(super) async fn start() -> LyingServer {
        LyingServer::serve(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(super) fn serve(listener: TcpListener) -> LyingServer {
        let replies = Arc::new(Mutex::new(HashMap::new()));
        let received = Arc::new(Mutex::new(Vec::new()));
        let address = listener.local_addr().unwrap();
        let task = {
            let (replies, received) = (Arc::clone(&replies), Arc::clone(&received));
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (replies, received) = (Arc::clone(&replies), Arc::clone(&received));
                    tokio::spawn(async move {
                        // The client may have gone.
                        let _ = respond(stream, &replies, &received).await;
                    });
                }
            })
        };
        let server = LyingServer {
            address,
            replies,
            received,
            task: task.abort_handle(),
        };
        server.reply(
            "/.well-known/openid-configuration",
            Reply::json(200, &server.document()),
        );
        server
    }

    pub(super) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The document of a provider at this address.
    pub(super) fn document(&self) -> Value {
        let base = self.base();
        json!({
            "issuer": base,
            "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"),
            "jwks_uri": format!("{base}/jwks"),
            "userinfo_endpoint": format!("{base}/userinfo"),
            "revocation_endpoint": format!("{base}/revoke"),
            "pushed_authorization_request_endpoint": format!("{base}/par"),
        })
    }

    /// Sets the reply to requests of a path, without or with a query.
    pub(super) fn reply(&self, path: &str, reply: Reply) {
        self.replies.lock().insert(path.to_owned(), reply);
    }

    /// The requests of a path.
    pub(super) fn received(&self, path: &str) -> Vec<Received> {
        let received = self.received.lock();
        let is_of_path = |request: &&Received| request.target.split('?').next() == Some(path);
        received.iter().filter(is_of_path).cloned().collect()
    }

    pub(super) fn discoveries(&self) -> usize {
        self.received("/.well-known/openid-configuration").len()
    }
}

impl Drop for LyingServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(
    mut stream: TcpStream,
    replies: &Mutex<HashMap<String, Reply>>,
    received: &Mutex<Vec<Received>>,
) -> std::io::Result<()> {
    let Some(request) = read_request(&mut stream).await? else {
        return Ok(());
    };
    let path = request
        .target
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let reply = {
        let replies = replies.lock();
        let reply = replies.get(&request.target).or_else(|| replies.get(&path));
        reply.cloned().unwrap_or(Reply::text(404, "{}"))
    };
    received.lock().push(request);
    match reply {
        Reply::Content(status, content_type, body) => {
            write_response(&mut stream, status, content_type, &body).await
        }
        Reply::Redirect(location) => {
            let head =
                format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await
        }
        Reply::Endless => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":\"";
            stream.write_all(head).await?;
            loop {
                stream.write_all(&[b'x'; 16 * 1024]).await?;
            }
        }
        Reply::Drip => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
            stream.write_all(head).await?;
            loop {
                stream.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Reply::Silence => {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.map(|_| ())
        }
        Reply::Reset => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
        Reply::Garbage => stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await,
        Reply::Late(delay, body) => {
            tokio::time::sleep(delay).await;
            let body = body.to_string();
            write_response(&mut stream, 200, "application/json", body.as_bytes()).await
        }
    }
}

async fn write_response(
    stream: &mut TcpStream,
    status: u16,
    content_type: &str,
    body: &[u8],
) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.shutdown().await
}

/// Reads one request; `None` if the client closed the connection before.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<Received>> {
    let mut bytes = Vec::new();
    let head_length = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let (head, body) = bytes.split_at(head_length);
    let (head, mut body) = (String::from_utf8(head.to_vec()).unwrap(), body.to_vec());
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        stream.read_buf(&mut body).await?;
    }
    Ok(Some(Received {
        target: head.split(' ').nth(1).unwrap().to_owned(),
        head,
        body: String::from_utf8(body).unwrap(),
    }))
}
