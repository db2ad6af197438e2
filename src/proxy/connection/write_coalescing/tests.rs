#![expect(clippy::unwrap_used, reason = "tests")]
use std::io::Read;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::proxy::connection::{Transport, Window};
use crate::proxy::open_streams::stream_control::CloseReason;

const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection, and its client.
async fn pair() -> (DownstreamConnection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let transport = Transport::Plain(accepted.unwrap().0);
    let connection = DownstreamConnection::new(transport, &[], WRITE_TIMEOUT);
    (connection, client.unwrap())
}

async fn write(connection: &mut DownstreamConnection, bytes: &[u8]) {
    connection.write_all(bytes).await.unwrap();
    connection.flush().await.unwrap();
}

async fn read(client: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    read
}

#[tokio::test]
async fn only_a_complete_response_is_deferred() {
    for (undivided, before, is_finished, waits) in [
        (true, &b""[..], true, true),
        (true, b"", false, false),
        (true, b"part", true, false),
        // The client still sends.
        (false, b"", true, false),
    ] {
        let (mut connection, mut client) = pair().await;
        connection.is_coalescable = undivided;
        if !before.is_empty() {
            write(&mut connection, before).await;
        }
        if is_finished {
            connection.control().set_response_finished();
        }
        write(&mut connection, b"rest").await;
        assert_eq!(connection.unsent.len(), if waits { 4 } else { 0 });
        connection.flush_coalesced().await.unwrap();
        drop(connection);
        assert_eq!(read(&mut client).await, [before, b"rest"].concat());
    }
}

#[tokio::test]
async fn large_response_is_not_deferred() {
    let (mut connection, mut client) = pair().await;
    connection.is_coalescable = true;
    connection.control().set_response_finished();
    write(&mut connection, &[b'a'; WRITE_BUFFER + 1]).await;
    write(&mut connection, b"end").await;
    assert!(connection.unsent.is_empty());
    drop(connection);
    assert_eq!(read(&mut client).await.len(), WRITE_BUFFER + 4);
}

#[tokio::test]
async fn deferred_response_yields_to_ready_tasks() {
    let (mut connection, client) = pair().await;
    connection.is_coalescable = true;
    connection.control().set_response_finished();
    write(&mut connection, b"finish").await;
    // Called directly: Tokio would first have to learn of the socket's readiness.
    let mut client = client.into_std().unwrap();
    let other = tokio::spawn(async move { client.read(&mut [0; 6]) });
    connection.flush_coalesced().await.unwrap();
    assert_eq!(
        other.await.unwrap().unwrap_err().kind(),
        io::ErrorKind::WouldBlock,
        "it was there before the other task had its turn"
    );
}

#[tokio::test]
async fn only_a_complete_response_outlives_its_connection() {
    for (is_finished, closing, received) in [
        (true, None, &b"finish"[..]),
        (false, None, b""),
        (true, Some(CloseReason::Ended), b""),
    ] {
        let (mut connection, mut client) = pair().await;
        let control = connection.control();
        connection.is_coalescable = true;
        connection.write_all(b"finish").await.unwrap();
        if is_finished {
            control.set_response_finished();
        }
        closing.map(|why| control.close(why));
        drop(connection);
        assert_eq!(read(&mut client).await, received);
    }
}

#[tokio::test]
async fn sending_client_receives_response_without_reset() {
    let (mut connection, mut client) = pair().await;
    connection.window = Window::Length(256 * 1024);
    client.write_all(&[b'a'; 32 * 1024]).await.unwrap();
    write(&mut connection, b"finish").await;
    let closing = async {
        AsyncWriteExt::shutdown(&mut connection).await.unwrap();
        drop(connection);
    };
    // It keeps sending until it has the response.
    let sending = async {
        let mut response = [0; 6];
        client.read_exact(&mut response).await.unwrap();
        client.write_all(&[b'a'; 32 * 1024]).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!((&response, read(&mut client).await), (b"finish", vec![]));
    };
    tokio::join!(closing, sending);
}

#[tokio::test]
async fn stalled_client_fails_every_write() {
    let (mut connection, _client) = pair().await;
    let failed = loop {
        if let Err(error) = connection.write_all(&[0; 64 * 1024]).await {
            break error;
        }
    };
    assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    assert!(connection.control().is_stalled());
    connection.unsent.extend_from_slice(b"finish");
    let delivered = connection.flush_coalesced().await;
    assert_eq!(delivered.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let closed = AsyncWriteExt::shutdown(&mut connection).await;
    assert_eq!(closed.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
