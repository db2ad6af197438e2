//! Futures of a worker that are reused: a request has room for its state without an allocation, and an
//! idle connection has none.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use super::request::{self, Served};
use super::serve::Connection;

/// Number of futures that a worker keeps.
const MAX_KEPT: usize = 256;

/// The future of a request. It serves one after another, so that the state of a request is made where
/// it stays: it is too large to be moved for each of them.
pub(super) struct RequestFuture {
    serving: Pin<Box<dyn Future<Output = Infallible> + Send>>,
    handover: Arc<Mutex<Handover>>,
}

/// What the future takes and returns.
#[derive(Default)]
struct Handover {
    request: Option<Box<Connection>>,
    served: Option<Served>,
}

thread_local! {
    static FREE: RefCell<Vec<RequestFuture>> = const { RefCell::new(Vec::new()) };
}

/// Begins to serve the request of a connection, in memory of the pool.
pub(super) fn place(connection: Box<Connection>) -> RequestFuture {
    let pooled = FREE.with_borrow_mut(Vec::pop);
    let future = pooled.unwrap_or_else(|| {
        let handover = Arc::default();
        RequestFuture {
            serving: Box::pin(serve_each(Arc::clone(&handover))),
            handover,
        }
    });
    future.handover.lock().request = Some(connection);
    future
}

/// Returns a future that has ended.
pub(super) fn give(ended: RequestFuture) {
    FREE.with_borrow_mut(|free| {
        if free.len() < MAX_KEPT {
            free.push(ended);
        }
    });
}

async fn serve_each(handover: Arc<Mutex<Handover>>) -> Infallible {
    loop {
        let next = poll_fn(|_| match handover.lock().request.take() {
            Some(request) => Poll::Ready(request),
            // It is polled again with the next request.
            None => Poll::Pending,
        });
        let served = request::handle(next.await).await;
        handover.lock().served = Some(served);
    }
}

impl Future for RequestFuture {
    type Output = Served;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Served> {
        let Poll::Pending = self.serving.as_mut().poll(cx);
        match self.handover.lock().served.take() {
            Some(served) => Poll::Ready(served),
            None => Poll::Pending,
        }
    }
}
