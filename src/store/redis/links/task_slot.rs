//! What one task of a process does for all: it is taken up once, and free again when that task ends,
//! as with the runtime that it was on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
pub(in crate::store::redis) struct TaskSlot(Arc<AtomicBool>);

/// The duty, taken up until this is dropped.
pub(in crate::store::redis) struct TaskSlotGuard(Arc<AtomicBool>);

impl TaskSlot {
    /// `None`: somebody has it.
    pub(in crate::store::redis) fn try_acquire(&self) -> Option<TaskSlotGuard> {
        let taken = self.0.swap(true, Ordering::SeqCst);
        (!taken).then(|| TaskSlotGuard(Arc::clone(&self.0)))
    }
}

impl Drop for TaskSlotGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
