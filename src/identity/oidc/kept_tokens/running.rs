//! The exchanges that this gateway performs: at most one for each session at a time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::auth::session::SessionId;
use crate::rejection::CallbackFault;

type Outcome = Result<(), CallbackFault>;

/// Exchanges in progress; clones share them.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<Inner>);

#[derive(Default)]
struct Inner {
    exchanges: Mutex<HashMap<SessionId, watch::Receiver<Option<Outcome>>>>,
    ended: Notify,
}

/// Removes an exchange when it ends, in whatever way.
struct Guard {
    running: Running,
    session: SessionId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.running.0.exchanges.lock().remove(&self.session);
        self.running.0.ended.notify_waiters();
    }
}

impl Running {
    /// Waits for the outcome of the exchange in progress, or of this one, which goes on even if the
    /// caller does not wait for it.
    pub(super) async fn join<F>(
        &self,
        runtime: &Handle,
        session: SessionId,
        exchange: impl FnOnce() -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut outcome = {
            let mut exchanges = self.0.exchanges.lock();
            match exchanges.get(&session) {
                Some(outcome) => outcome.clone(),
                None => {
                    let (sender, outcome) = watch::channel(None);
                    exchanges.insert(session, outcome.clone());
                    let guard = Guard {
                        running: self.clone(),
                        session,
                    };
                    let exchange = exchange();
                    runtime.spawn(async move {
                        let result = exchange.await;
                        // A request that sees the outcome may begin another exchange.
                        drop(guard);
                        sender.send_replace(Some(result));
                    });
                    outcome
                }
            }
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.unwrap_or(Ok(())),
            Err(_) => Err(CallbackFault::RefreshCutOff),
        }
    }

    /// Whether an exchange of a session is in progress.
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.0.exchanges.lock().contains_key(&session)
    }

    /// Waits until no exchange is in progress.
    pub(super) async fn wait_until_idle(&self) {
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.0.exchanges.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn concurrent_callers_share_one_exchange() {
        let running = Running::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let (id, other) = (SessionId([1; 32]), SessionId([2; 32]));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let join = |id| {
            let (calls, gate) = (Arc::clone(&calls), Arc::clone(&gate));
            let running = running.clone();
            async move {
                let exchange = || async move {
                    calls.fetch_add(1, Ordering::SeqCst);
                    let _permit = gate.acquire().await;
                    Err(CallbackFault::TimedOut)
                };
                running.join(&Handle::current(), id, exchange).await
            }
        };
        let joined = async {
            let both = tokio::join!(join(id), join(id), join(other));
            assert_eq!(
                both,
                (
                    Err(CallbackFault::TimedOut),
                    Err(CallbackFault::TimedOut),
                    Err(CallbackFault::TimedOut)
                )
            );
        };
        let release = async {
            while calls.load(Ordering::SeqCst) < 2 {
                tokio::task::yield_now().await;
            }
            assert!(running.has(id) && running.has(other));
            gate.add_permits(2);
        };
        tokio::join!(joined, release);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        running.wait_until_idle().await;
        assert!(!running.has(id));
    }

    #[tokio::test]
    async fn exchange_that_panics_is_over() {
        let running = Running::default();
        let id = SessionId([1; 32]);
        let exchange = || async {
            tokio::task::yield_now().await;
            std::panic::resume_unwind(Box::new(()));
        };
        let outcome = running.join(&Handle::current(), id, exchange).await;
        assert_eq!(outcome, Err(CallbackFault::RefreshCutOff));
        assert!(!running.has(id));
    }
}
