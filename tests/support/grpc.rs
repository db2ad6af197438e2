//! The shape of a gRPC call: HTTP/2 in clear, a body each way, and a status in the trailers.

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
                return watch(respond).await;
            }
            if request.uri().path().ends_with("/Stall") {
                return std::future::pending().await;
            }
            if request.uri().path().ends_with("/events") {
                return events(respond).await;
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

/// A call whose answer says `hi` and then stays open for as long as the client wants.
async fn watch(mut respond: h2::server::SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    let message = Bytes::from_static(b"\0\0\0\0\x02hi");
    stream.send_data(message, false).unwrap();
    let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
}

/// An event stream with a second between its two events.
async fn events(mut respond: h2::server::SendResponse<Bytes>) {
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
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
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
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut request = Request::post(format!("https://{authority}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (response, mut send) = client
        .send_request(request.body(()).unwrap(), false)
        .unwrap();
    send.send_data(Bytes::copy_from_slice(body), true).unwrap();
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    let mut stream = response.into_body();
    let mut received = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        let _ = stream.flow_control().release_capacity(data.len());
        received.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await.unwrap().unwrap_or_default();
    Reply {
        status,
        body: received,
        trailers,
    }
}
