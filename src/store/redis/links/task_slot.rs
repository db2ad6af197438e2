//! Slot for a task that runs at most once per process.
//!
//! The slot is free again when the task ends, also because its runtime has shut down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Slot for one running task.
#[derive(Default)]
pub(in crate::store::redis) struct TaskSlot(Arc<AtomicBool>);

/// Occupies the slot until it is dropped.
pub(in crate::store::redis) struct TaskSlotGuard(Arc<AtomicBool>);

impl TaskSlot {
    /// Occupies the slot; `None`: it is taken.
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
