//! Deadlines that tell a slow store from a busy gateway.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::yield_now;
use tokio::time::timeout;

/// How many rounds of a runtime an answer takes at most: to gather the questions, to write them, to read
/// the answers, to part them, to hand them over.
pub(super) const REPLY_ROUNDS: u32 = 5;

/// Does what has a deadline; `None`: it came to nothing. When the time is over every task of this
/// runtime has so many turns more, and its sockets are read between them: under a load of thousands of
/// connections a turn may be longer than the deadline, and what was late was not the store. Where
/// nothing else is to do that takes no time.
pub(super) async fn timeout_with_grace<T>(
    patience: Duration,
    rounds: u32,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = timeout(patience, &mut work).await {
        return Some(done);
    }
    for _ in 0..rounds {
        yield_now().await;
        if let Some(done) = (&mut work).now_or_never() {
            return Some(done);
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

    /// A server that answers each byte at once, or only the first.
    fn server(answers: usize) -> std::net::SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            for _ in 0..answers {
                stream.read_exact(&mut byte).unwrap();
                stream.write_all(&byte).unwrap();
            }
            // Until the other side is gone.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        address
    }

    /// Asks through a task that owns the connection, as clients of a shared one do.
    async fn request(address: std::net::SocketAddr) -> (u8, TcpStream) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            stream.write_all(b"?").await.unwrap();
            let answer = stream.read_u8().await.unwrap();
            let _ = tell.send((answer, stream));
        });
        told.await.unwrap()
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
