//! Sessions that no client received, because their sign-in failed after they were, or may have been,
//! written. They are ended in the background.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::Accounts;
use crate::auth::session::Session;

/// Maximum number ended concurrently; further sessions stay until they expire.
const MAX_CONCURRENT: usize = 1_000;
/// Maximum number of attempts, over about two minutes.
const MAX_ATTEMPTS: u32 = 30;
const INITIAL_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

impl Accounts {
    /// Ends a session whose sign-in failed.
    pub(super) fn abandon(&self, session: &Session) {
        let Ok(permit) = Arc::clone(&self.abandon_permits).try_acquire_owned() else {
            tracing::warn!("a session that no client received is left to expire");
            return;
        };
        let (sessions, id, user) = (self.sessions.clone(), session.id, session.user.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let mut pause = INITIAL_DELAY;
            for _ in 0..MAX_ATTEMPTS {
                if sessions.abandon(&user, id).await.is_ok() {
                    return;
                }
                sleep(pause).await;
                pause = (pause * 2).min(MAX_DELAY);
            }
            tracing::warn!("a session that no client received is left to expire");
        });
    }
}

pub(super) fn new_permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_CONCURRENT))
}
