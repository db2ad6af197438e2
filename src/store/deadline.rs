//! Deadlines that tell a slow store from a busy gateway.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::yield_now;
use tokio::time::timeout;

/// How many rounds of a runtime an answer takes at most: to gather the questions, to write them, to read
/// the answers, to part them, to hand them over.
pub(super) const AN_ANSWER: u32 = 5;

/// Does what has a deadline; `None`: it came to nothing. When the time is over every task of this
/// runtime has so many turns more, and its sockets are read between them: under a load of thousands of
/// connections a turn may be longer than the deadline, and what was late was not the store. Where
/// nothing else is to do that takes no time.
pub(super) async fn within<T>(
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

    const PATIENCE: Duration = Duration::from_millis(20);

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
    async fn ask(address: std::net::SocketAddr) -> (u8, TcpStream) {
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
    async fn a_busy_runtime_is_not_taken_for_a_slow_server() {
        let address = server(1);
        for _ in 0..20 {
            tokio::spawn(async {
                for _ in 0..10 {
                    std::thread::sleep(PATIENCE / 10);
                    yield_now().await;
                }
            });
        }
        let started = Instant::now();
        assert!(
            within(PATIENCE, 4 * AN_ANSWER, ask(address))
                .await
                .is_some()
        );
        assert!(started.elapsed() > PATIENCE, "the runtime was not busy");
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_in_time() {
        let address = server(0);
        let started = Instant::now();
        assert!(within(PATIENCE, AN_ANSWER, ask(address)).await.is_none());
        assert!((PATIENCE..PATIENCE * 10).contains(&started.elapsed()));
    }
}
