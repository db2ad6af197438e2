//! A connected client, and tests of its heads and its end.

#![expect(clippy::unwrap_used, reason = "tests")]
use std::io::Read as _;
use std::net::Ipv4Addr;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::pipeline::upstream_request::PeerOrigin;
use crate::proxy::connection_auth::OwnConnections;
use crate::settings::ListenerId;

const LIMITS: HeadLimits = HeadLimits {
    size: 1024,
    fields: 10,
    timeout: Ticks::of(Duration::from_secs(15)),
    idle: Ticks::of(Duration::from_secs(75)),
};

/// A connection, and the socket of its client.
pub(crate) async fn connected() -> (Client, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap());
    let (socket, accepted) = tokio::join!(socket, listener.accept());
    let peer = Arc::new(Peer {
        ip: Ipv4Addr::LOCALHOST.into(),
        origin: PeerOrigin::new(Ipv4Addr::LOCALHOST.into(), false),
        tls: false,
        certificate: None,
        listener: ListenerId::Public(0),
        own_connections: OwnConnections::default(),
    });
    let transport = Transport::Plain(accepted.unwrap().0);
    let client = Client::new(transport, peer, Duration::from_secs(1));
    (client, socket.unwrap())
}

async fn next_target(client: &mut Client) -> Result<String, HeadError> {
    let (_sender, stop) = watch::channel(false);
    let head = client.read_head(&LIMITS, LIMITS.idle, &stop).await?;
    Ok(head.target().to_owned())
}

#[tokio::test]
async fn pipelined_heads_are_read_one_by_one() {
    let (mut client, mut socket) = connected().await;
    let heads = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\nGET /c";
    socket.write_all(heads.as_bytes()).await.unwrap();
    assert_eq!(next_target(&mut client).await.unwrap(), "/a");
    assert_eq!(next_target(&mut client).await.unwrap(), "/b");
    socket.shutdown().await.unwrap();
    let broken = next_target(&mut client).await;
    assert!(matches!(broken, Err(HeadError::Rejected(_))), "{broken:?}");
    assert_eq!(client.unread, b"GET /c");
}

#[tokio::test]
async fn idle_connection_holds_no_buffer() {
    let (mut client, mut socket) = connected().await;
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    next_target(&mut client).await.unwrap();
    client.out().extend_from_slice(b"response");
    client.flush_coalesced().await.unwrap();
    assert_eq!((client.unread.capacity(), client.unsent.capacity()), (0, 0));
    let mut response = [0; 8];
    socket.read_exact(&mut response).await.unwrap();
    assert_eq!(&response, b"response");
    drop(socket);
    let end = next_target(&mut client).await;
    assert!(matches!(end, Err(HeadError::Closed)), "{end:?}");
}

#[tokio::test]
async fn sent_bytes_are_not_kept_for_a_slow_client() {
    let (mut client, mut socket) = connected().await;
    if let Transport::Plain(stream) = &client.transport {
        setsockopt(stream, sockopt::SndBuf, &4096).unwrap();
    }
    let mut part = vec![0; 32 * 1024];
    for _ in 0..1000 {
        client.out().extend_from_slice(&[b'a'; 16 * 1024]);
        // A part always waits.
        while client.unsent_len() > 16 * 1024 {
            let sent = poll_fn(|cx| Poll::Ready(client.poll_send(cx))).await;
            assert!(
                matches!(sent, Poll::Pending | Poll::Ready(Ok(()))),
                "{sent:?}"
            );
            let size = part.len().min(client.unsent_len() / 2);
            let read = socket.read(part.get_mut(..size).unwrap());
            let _ = tokio::time::timeout(Duration::from_millis(5), read).await;
        }
    }
    assert!(
        client.unsent.capacity() <= 4 * MAX_SENT,
        "{}",
        client.unsent.capacity()
    );
}

#[tokio::test]
async fn http2_preface_stays_unread() {
    let (mut client, mut socket) = connected().await;
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let preface = next_target(&mut client).await;
    assert!(matches!(preface, Err(HeadError::Http2)), "{preface:?}");
    assert!(client.unread.starts_with(b"PRI * HTTP/2.0\r\n"));
}

#[tokio::test]
async fn sending_client_receives_response_without_reset() {
    let (mut client, mut socket) = connected().await;
    socket.write_all(&[b'a'; 32 * 1024]).await.unwrap();
    client.out().extend_from_slice(b"finish");
    let closing = async {
        client.close(true).await;
        drop(client);
    };
    // It keeps sending until it has the response.
    let sending = async {
        let mut response = [0; 6];
        socket.read_exact(&mut response).await.unwrap();
        socket.write_all(&[b'a'; 32 * 1024]).await.unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(&response, b"finish");
        assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
    };
    tokio::join!(closing, sending);
}

#[tokio::test]
async fn complete_response_yields_to_ready_tasks() {
    let (mut client, socket) = connected().await;
    client.out().extend_from_slice(b"finish");
    // Called directly: Tokio would first have to learn of the socket's readiness.
    let mut socket = socket.into_std().unwrap();
    let other = tokio::spawn(async move { socket.read(&mut [0; 6]) });
    client.flush_coalesced().await.unwrap();
    assert_eq!(
        other.await.unwrap().unwrap_err().kind(),
        io::ErrorKind::WouldBlock,
        "it was there before the other task had its turn"
    );
}
