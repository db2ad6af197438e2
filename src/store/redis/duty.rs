//! What one task of a process does for all: it is taken up once, and free again when that task ends,
//! as with the runtime that it was on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub(super) struct Duty(Arc<AtomicBool>);

/// The duty, taken up until this is dropped.
pub(super) struct OnDuty(Arc<AtomicBool>);

impl Duty {
    /// `None`: somebody has it.
    pub(super) fn take_up(&self) -> Option<OnDuty> {
        let taken = self.0.swap(true, Ordering::SeqCst);
        (!taken).then(|| OnDuty(Arc::clone(&self.0)))
    }
}

impl Drop for OnDuty {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
