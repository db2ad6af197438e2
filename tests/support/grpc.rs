//! A minimal gRPC call: HTTP/2 in clear, a body in each direction, and a status in the trailers.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};

/// Serves calls for as long as the runtime of the caller lives; returns where.
pub async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream));
        }
    });
    address
}

async fn connection(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            if request.uri().path().ends_with("/Watch") {
                return serve_watch(respond).await;
            }
            if request.uri().path().ends_with("/Break") {
                return serve_broken(request.into_body(), respond).await;
            }
            if request.uri().path().ends_with("/Stall") {
                return std::future::pending().await;
            }
            if request.uri().path().ends_with("/events") {
                return serve_events(respond).await;
            }
            let te = request.headers().get("te").cloned();
            let mut body = request.into_body();
            let mut received = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                received.extend_from_slice(&data);
            }
            let head = Response::builder().header("content-type", "application/grpc");
            let mut stream = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            stream.send_data(Bytes::from(received), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            if let Some(te) = te {
                trailers.insert("x-saw-te", te);
            }
            stream.send_trailers(trailers).unwrap();
        });
    }
}

/// A call whose response says `hi` and then stays open for as long as the client wants.
async fn serve_watch(mut respond: h2::server::SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    let message = Bytes::from_static(b"\0\0\0\0\x02hi");
    stream.send_data(message, false).unwrap();
    let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
}

/// A call whose response breaks off behind its first message, once the request has ended.
async fn serve_broken(mut body: h2::RecvStream, mut respond: h2::server::SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    let message = Bytes::from_static(b"\0\0\0\0\x02hi");
    stream.send_data(message, false).unwrap();
    while body.data().await.is_some() {}
    stream.send_reset(h2::Reason::INTERNAL_ERROR);
}

/// An event stream with a second between its two events.
async fn serve_events(mut respond: h2::server::SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "text/event-stream");
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    let send = |stream: &mut h2::SendStream<Bytes>, text: &'static str| {
        stream.send_data(Bytes::from_static(text.as_bytes()), false)
    };
    send(&mut stream, "data: hello\n\n").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    // The client may have gone.
    let _ = send(&mut stream, "data: later\n\n");
    let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
}

/// What a call came back with.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

/// A call whose request and response are still open.
pub struct Call {
    pub send: h2::SendStream<Bytes>,
    response: Option<h2::client::ResponseFuture>,
    head: Option<(u16, HeaderMap)>,
    body: Option<h2::RecvStream>,
}

impl Call {
    /// Opens one over a connection of its own, in clear.
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Call {
        let socket = TcpStream::connect(address).await.unwrap();
        Call::over_connection(socket, "localhost", path, headers).await
    }

    /// Opens one over a connection on which HTTP/2 was agreed.
    pub async fn over_connection<T>(
        io: T,
        authority: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Call
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (client, connection) = h2::client::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let mut request = Request::post(format!("http://{authority}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, send) = client
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        Call {
            send,
            response: Some(response),
            head: None,
            body: None,
        }
    }

    /// Sends bytes of the request.
    pub fn write(&mut self, bytes: &[u8], end: bool) -> &mut Call {
        let bytes = Bytes::copy_from_slice(bytes);
        // The call may have been refused already.
        let _ = self.send.send_data(bytes, end);
        self
    }

    /// The next piece of the response; `None` at its end.
    pub async fn next(&mut self) -> Option<Result<Bytes, h2::Error>> {
        if let Some(response) = self.response.take() {
            match response.await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    self.head = Some((status, response.headers().clone()));
                    self.body = Some(response.into_body());
                }
                Err(error) => return Some(Err(error)),
            }
        }
        let body = self.body.as_mut().unwrap();
        let data = body.data().await?;
        Some(data.inspect(|data| {
            let _ = body.flow_control().release_capacity(data.len());
        }))
    }

    /// Reads to the end.
    pub async fn reply(mut self) -> Reply {
        let mut received = Vec::new();
        while let Some(data) = self.next().await {
            received.extend_from_slice(&data.unwrap());
        }
        let trailers = self.body.as_mut().unwrap().trailers().await.unwrap();
        let (status, headers) = self.head.unwrap();
        Reply {
            status,
            headers,
            body: received,
            trailers: trailers.unwrap_or_default(),
        }
    }
}

impl Reply {
    /// A field of the outcome, which is in the trailers, or in the head where there is nothing else.
    pub fn outcome_field(&self, name: &str) -> Option<&str> {
        let field = self.trailers.get(name).or_else(|| self.headers.get(name));
        field.map(|value| value.to_str().unwrap())
    }
}

/// A message with its prefix.
pub fn message(length: usize) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    bytes.extend(std::iter::repeat_n(b'x', length));
    bytes
}

/// Calls over a connection on which HTTP/2 was agreed (by ALPN).
pub async fn call<T>(
    io: T,
    authority: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut call = Call::over_connection(io, authority, path, headers).await;
    call.write(body, true);
    call.reply().await
}
