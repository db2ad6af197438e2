//! Timeout that distinguishes a slow store from a busy gateway.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::yield_now;
use tokio::time::timeout;

/// Rounds of the runtime that a reply takes at most.
///
/// To collect the requests, to write them, to read the replies, to split them, to deliver them.
pub(super) const REPLY_ROUNDS: u32 = 5;

/// Runs a future with a timeout and some rounds of grace; `None`: it did not complete.
///
/// After the timeout, every task of the runtime is polled up to `rounds` more times, and sockets are
/// read in between. Under a load of thousands of connections, one round may take longer than the
/// timeout although the store has replied in time. On an idle runtime the rounds take no time.
pub(super) async fn timeout_with_grace<T>(
    duration: Duration,
    rounds: u32,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    if let Ok(output) = timeout(duration, &mut work).await {
        return Some(output);
    }
    for _ in 0..rounds {
        yield_now().await;
        if let Some(output) = (&mut work).now_or_never() {
            return Some(output);
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{Read, Write};
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(20);

    /// Starts a server that echoes the given number of bytes.
    fn server(replies: usize) -> std::net::SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            for _ in 0..replies {
                stream.read_exact(&mut byte).unwrap();
                stream.write_all(&byte).unwrap();
            }
            // Waits for the client to disconnect.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        address
    }

    /// Sends a request through a task that owns the connection, as on a shared connection.
    async fn request(address: std::net::SocketAddr) -> (u8, TcpStream) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            stream.write_all(b"?").await.unwrap();
            let reply = stream.read_u8().await.unwrap();
            let _ = sender.send((reply, stream));
        });
        receiver.await.unwrap()
    }

    #[tokio::test]
    async fn busy_runtime_does_not_time_out() {
        let address = server(1);
        for _ in 0..20 {
            tokio::spawn(async {
                for _ in 0..10 {
                    std::thread::sleep(DEADLINE / 10);
                    yield_now().await;
                }
            });
        }
        let started = Instant::now();
        assert!(
            timeout_with_grace(DEADLINE, 4 * REPLY_ROUNDS, request(address))
                .await
                .is_some()
        );
        assert!(started.elapsed() > DEADLINE, "the runtime was not busy");
    }

    #[tokio::test]
    async fn unresponsive_server_times_out() {
        let address = server(0);
        let started = Instant::now();
        assert!(
            timeout_with_grace(DEADLINE, REPLY_ROUNDS, request(address))
                .await
                .is_none()
        );
        assert!((DEADLINE..DEADLINE * 10).contains(&started.elapsed()));
    }
}
