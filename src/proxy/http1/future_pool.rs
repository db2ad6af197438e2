//! Futures of a worker that are reused: a request has room for its state without an allocation, and an
//! idle connection has none.

use std::cell::RefCell;

use tokio_util::sync::ReusableBoxFuture;

use super::request::Served;

/// Number of futures that a worker keeps.
const MAX_KEPT: usize = 256;

/// The future of a request.
pub(super) type RequestFuture = ReusableBoxFuture<'static, Served>;

thread_local! {
    static FREE: RefCell<Vec<RequestFuture>> = const { RefCell::new(Vec::new()) };
}

/// Places a future in memory of the pool.
pub(super) fn place(future: impl Future<Output = Served> + Send + 'static) -> RequestFuture {
    match FREE.with_borrow_mut(Vec::pop) {
        Some(mut pooled) => {
            pooled.set(future);
            pooled
        }
        None => ReusableBoxFuture::new(future),
    }
}

/// Returns a future that has ended.
pub(super) fn give(ended: RequestFuture) {
    FREE.with_borrow_mut(|free| {
        if free.len() < MAX_KEPT {
            free.push(ended);
        }
    });
}
