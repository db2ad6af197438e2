//! Coordination of a background fetch with the callers that need its result.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Requests of a fetch, which one task performs. Callers join the fetch in progress, so that many of
/// them cost one.
pub struct FetchSignal {
    /// Whether a fetch is running or requested.
    pending: Mutex<bool>,
    requested: Notify,
    /// Sends whether a completed fetch succeeded.
    completed: watch::Sender<bool>,
}

/// What became of a wait for a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchWait {
    Succeeded,
    /// The fetch failed, or did not end in time.
    Failed,
    /// None is pending, and none may start.
    Declined,
}

impl FetchSignal {
    /// A signal whose first fetch is pending.
    pub fn pending() -> FetchSignal {
        FetchSignal {
            pending: Mutex::new(true),
            requested: Notify::new(),
            completed: watch::Sender::new(false),
        }
    }

    /// Waits for the pending fetch, or for a new one if `may_start` allows it.
    pub async fn join(&self, timeout: Duration, may_start: impl FnOnce() -> bool) -> FetchWait {
        // Subscribe before `pending` is read, so that a completion in between is not missed.
        let mut completed = self.completed.subscribe();
        if !self.request(may_start) {
            return FetchWait::Declined;
        }
        match tokio::time::timeout(timeout, completed.changed()).await {
            Ok(Ok(())) if *completed.borrow() => FetchWait::Succeeded,
            _ => FetchWait::Failed,
        }
    }

    /// Requests a fetch unless one is pending. Returns false if it may not start.
    fn request(&self, may_start: impl FnOnce() -> bool) -> bool {
        // One critical section, so that no other caller sees that a fetch may not start but none
        // pending.
        let mut pending = self.pending.lock();
        if !*pending {
            if !may_start() {
                return false;
            }
            *pending = true;
            self.requested.notify_one();
        }
        true
    }

    /// Reports the end of a fetch.
    pub fn complete(&self, is_success: bool) {
        *self.pending.lock() = false;
        self.completed.send_replace(is_success);
    }

    /// Whether the latest fetch failed, or none has completed.
    pub fn has_failed(&self) -> bool {
        !*self.completed.borrow()
    }

    /// Waits until the next fetch is due: after the delay, or when it is requested.
    pub async fn until_due(&self, delay: Duration) {
        let due = tokio::time::sleep(delay);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => {
                    *self.pending.lock() = true;
                    return;
                }
                () = self.requested.notified() => {
                    // A fetch that was due at the same time has served an earlier request.
                    if *self.pending.lock() {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn request_that_a_due_fetch_has_served_starts_no_other() {
        let hour = Duration::from_secs(3600);
        let signal = FetchSignal::pending();
        signal.complete(true);
        assert!(signal.request(|| true));
        signal.complete(true);
        let next = tokio::time::timeout(hour / 2, signal.until_due(hour));
        assert!(next.await.is_err());
        assert!(signal.request(|| true));
        let next = tokio::time::timeout(hour / 2, signal.until_due(hour));
        assert!(next.await.is_ok());
    }
}
