//! How long a future waits.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::clock;

/// Runs the future, and returns with its output how long it waited. For a future that is ready at
/// once no clock is read. Borrowed: futures of this size are not moved.
pub(in crate::proxy) async fn measure_wait<F: Future>(
    mut work: Pin<&mut F>,
) -> (F::Output, Duration) {
    let mut since = None;
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => {
            let waited = since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
            Poll::Ready((done, waited))
        }
        Poll::Pending => {
            since.get_or_insert_with(clock::monotonic);
            Poll::Pending
        }
    })
    .await
}
