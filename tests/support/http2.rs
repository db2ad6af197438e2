//! An HTTP/2 client in clear, by prior knowledge, or over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::Request;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

/// One connection; it blocks like the other clients.
pub struct Http2 {
    runtime: Arc<Runtime>,
    sender: SendRequest<Bytes>,
}

/// A response whose body is incomplete.
pub struct Stream {
    runtime: Arc<Runtime>,
    pub status: u16,
    pub headers: http::HeaderMap,
    body: RecvStream,
}

/// The request's side of a stream that is open.
pub struct Upload(h2::SendStream<Bytes>);

impl Upload {
    /// Sends a piece of the body.
    pub fn send(&mut self, data: &[u8]) -> Result<(), h2::Error> {
        self.0.send_data(Bytes::copy_from_slice(data), false)
    }
}

/// How long a client waits for anything.
const TIMEOUT: Duration = Duration::from_secs(15);

impl Http2 {
    pub fn connect(address: SocketAddr) -> Http2 {
        Http2::from_connecting(async move { TcpStream::connect(address).await.unwrap() })
    }

    /// Connects over TLS; `config` offers `h2`.
    pub fn connect_tls(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Http2 {
        let connector = TlsConnector::from(Arc::clone(config));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Http2::from_connecting(async move {
            let socket = TcpStream::connect(address).await.unwrap();
            connector.connect(name, socket).await.unwrap()
        })
    }

    fn from_connecting<T>(connecting: impl Future<Output = T>) -> Http2
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let sender = runtime.block_on(async {
            let (sender, connection) = h2::client::handshake(connecting.await).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Http2 {
            runtime: Arc::new(runtime),
            sender,
        }
    }

    /// Sends a request and reads the head of its response; an error is how the stream ended
    /// instead.
    pub fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Stream, h2::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let reply = self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await?;
            let (reply, mut send) = sender.send_request(request, body.is_empty())?;
            if !body.is_empty() {
                send.send_data(Bytes::copy_from_slice(body), true)?;
            }
            tokio::time::timeout(TIMEOUT, reply).await.unwrap()
        })?;
        Ok(Stream {
            runtime: Arc::clone(&self.runtime),
            status: reply.status().as_u16(),
            headers: reply.headers().clone(),
            body: reply.into_body(),
        })
    }

    /// Opens a WebSocket (RFC 8441) and returns the status of the response; `None`: the server, which has
    /// responded before, accepts none.
    pub fn open_websocket(&self, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder()
            .method("CONNECT")
            .uri(format!("https://localhost{path}"))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await.unwrap();
            if !sender.is_extended_connect_protocol_enabled() {
                return None;
            }
            let (reply, _upload) = sender.send_request(request, false).unwrap();
            let reply = tokio::time::timeout(TIMEOUT, reply).await.unwrap();
            Some(reply.unwrap().status().as_u16())
        })
    }

    /// Sends a request whose body goes on, and reads the head of its response.
    pub fn open_with_upload(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Upload, Stream), h2::Error> {
        let uri = format!("http://localhost{path}");
        let mut request = Request::builder().method("POST").uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let (upload, response) = self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await?;
            let (response, upload) = sender.send_request(request, false)?;
            let response = tokio::time::timeout(TIMEOUT, response).await.unwrap()?;
            Ok::<_, h2::Error>((upload, response))
        })?;
        let stream = Stream {
            runtime: Arc::clone(&self.runtime),
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.into_body(),
        };
        Ok((Upload(upload), stream))
    }

    /// Sends a request whose body ends with an empty DATA frame of its own.
    pub fn upload(&self, path: &str, headers: &[(&str, &str)], parts: &[&[u8]]) -> Stream {
        let mut request = Request::post(format!("http://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let response = self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await.unwrap();
            let (response, mut send) = sender.send_request(request, false).unwrap();
            for part in parts {
                // An upstream may respond before it has read everything.
                let _ = send.send_data(Bytes::copy_from_slice(part), false);
            }
            let _ = send.send_data(Bytes::new(), true);
            tokio::time::timeout(TIMEOUT, response)
                .await
                .unwrap()
                .unwrap()
        });
        Stream {
            runtime: Arc::clone(&self.runtime),
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.into_body(),
        }
    }

    /// Sends a request and reads its whole response.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut stream = self.open(method, path, headers, b"").unwrap();
        let mut text = String::new();
        while let Some(part) = stream.next() {
            text.push_str(&part.unwrap());
        }
        (stream.status, text)
    }
}

impl Stream {
    /// The next piece of the body; `None` at its end.
    pub fn next(&mut self) -> Option<Result<String, h2::Error>> {
        let body = &mut self.body;
        let part = self
            .runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, body.data()).await.unwrap() })?;
        Some(part.map(|part| {
            let _ = body.flow_control().release_capacity(part.len());
            String::from_utf8_lossy(&part).into_owned()
        }))
    }

    /// The rest of the body.
    pub fn text(&mut self) -> String {
        let mut text = String::new();
        while let Some(part) = self.next() {
            text.push_str(&part.unwrap());
        }
        text
    }

    /// Reads until the body contains this.
    pub fn read_until(&mut self, needle: &str) {
        let mut seen = String::new();
        while !seen.contains(needle) {
            seen.push_str(&self.next().unwrap().unwrap());
        }
    }

    /// Whether the stream ends within `deadline`, however it does.
    pub fn ends_within(&mut self, deadline: Duration) -> bool {
        let body = &mut self.body;
        self.runtime.block_on(async {
            let end = async { while matches!(body.data().await, Some(Ok(_))) {} };
            tokio::time::timeout(deadline, end).await.is_ok()
        })
    }
}
