//! Hashing passwords: Argon2id, off the threads that serve requests, as many at a time as there are
//! cores, and with a bounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

/// Who waits for a turn, for each core. At about 40 ms a hash the last one waits two seconds.
const QUEUE_PER_CORE: usize = 50;
/// When a caller who found the queue full is told to come again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Hashes and verifies passwords; clones share the queue.
#[derive(Clone)]
pub(super) struct Passwords {
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue: usize,
    /// What an unknown user's password is compared with, so that it takes the same time.
    nobody: Arc<str>,
}

/// The right to hash now.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// Why a password was not hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    #[error("too many passwords wait to be hashed")]
    Busy,
    #[error("the password hash did not work")]
    Failed,
}

impl Passwords {
    /// Prepares for as many hashes at once as there are cores.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub(super) fn new() -> Result<Passwords, HashError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Passwords::with_turns(cores, cores * QUEUE_PER_CORE)
    }

    fn with_turns(turns: usize, queue: usize) -> Result<Passwords, HashError> {
        // Made up rather than hashed: it takes as long to compare with, and the 19 MiB that a hash
        // needs are not asked for before somebody signs in.
        let part = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        let nobody = format!(
            "$argon2id$v=19$m={},t={},p={}${}${}",
            Params::DEFAULT_M_COST,
            Params::DEFAULT_T_COST,
            Params::DEFAULT_P_COST,
            part(&rand::random::<[u8; 16]>()),
            part(&rand::random::<[u8; 32]>()),
        );
        Ok(Passwords {
            turns: Arc::new(Semaphore::new(turns)),
            waiting: Arc::new(AtomicUsize::new(0)),
            queue,
            nobody: nobody.into(),
        })
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Result<Turn, HashError> {
        let _place = Place::take(&self.waiting, self.queue)?;
        let permit = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(|_| HashError::Failed)?;
        Ok(Turn { _permit: permit })
    }

    /// Hashes a password into the PHC string format.
    pub(super) async fn hash(&self, turn: Turn, password: &str) -> Result<String, HashError> {
        let password = Zeroizing::new(password.to_owned());
        // The turn goes along: a caller who goes away does not make room while the work goes on.
        blocking(move || {
            let _turn = turn;
            hash_now(&password)
        })
        .await?
    }

    /// Compares a password with a hash, or with nobody's. The turn comes back with the answer.
    pub(super) async fn verify(
        &self,
        turn: Turn,
        password: &str,
        hash: Option<&str>,
    ) -> Result<(Turn, bool), HashError> {
        let password = Zeroizing::new(password.to_owned());
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).to_owned();
        blocking(move || {
            let matches = verify_now(&password, &hash)?;
            Ok((turn, known && matches))
        })
        .await?
    }
}

/// A place in the queue, given up on drop.
struct Place<'a>(&'a AtomicUsize);

impl Place<'_> {
    fn take(waiting: &AtomicUsize, queue: usize) -> Result<Place<'_>, HashError> {
        let place = Place(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= queue {
            return Err(HashError::Busy);
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HashError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| HashError::Failed)
}

fn argon2() -> Argon2<'static> {
    // Argon2id, version 19, 19 MiB, two passes, one lane: OWASP's first choice of parameters.
    Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        Params::DEFAULT,
    )
}

/// Tells whether a hash was made more cheaply than it would be now, or in another way.
pub(super) fn is_outdated(hash: &str) -> bool {
    let now = format!(
        "$argon2id$v=19$m={},t={},p={}$",
        Params::DEFAULT_M_COST,
        Params::DEFAULT_T_COST,
        Params::DEFAULT_P_COST,
    );
    if hash.starts_with(&now) {
        return false;
    }
    let Ok(hash) = PasswordHash::new(hash) else {
        return false;
    };
    let params = Params::try_from(&hash).ok();
    let as_costly = |params: Params| {
        params.m_cost() >= Params::DEFAULT_M_COST && params.t_cost() >= Params::DEFAULT_T_COST
    };
    hash.algorithm.as_str() != "argon2id" || !params.is_some_and(as_costly)
}

fn hash_now(password: &str) -> Result<String, HashError> {
    argon2()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|_| HashError::Failed)
}

fn verify_now(password: &str, hash: &str) -> Result<bool, HashError> {
    let hash = PasswordHash::new(hash).map_err(|_| HashError::Failed)?;
    match argon2().verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(HashError::Failed),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn a_password_is_verified_exactly_as_typed() {
        let passwords = Passwords::with_turns(1, 10).unwrap();
        let typed = " pässword 🔑 ".repeat(30);
        let hash = passwords
            .hash(passwords.turn().await.unwrap(), &typed)
            .await
            .unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let (mut turn, right) = passwords
            .verify(passwords.turn().await.unwrap(), &typed, Some(&hash))
            .await
            .unwrap();
        assert!(right);
        for wrong in [typed.trim(), &typed.to_uppercase(), &typed[..128], ""] {
            let right;
            (turn, right) = passwords.verify(turn, wrong, Some(&hash)).await.unwrap();
            assert!(!right, "{wrong}");
        }
    }

    #[tokio::test]
    async fn nobodys_password_takes_the_same_work_and_never_matches() {
        let passwords = Passwords::with_turns(1, 10).unwrap();
        let (_, right) = passwords
            .verify(passwords.turn().await.unwrap(), "x", None)
            .await
            .unwrap();
        assert!(!right);
        assert!(
            passwords
                .nobody
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
    }

    #[tokio::test]
    async fn a_full_queue_is_told_and_places_are_given_back() {
        let passwords = Passwords::with_turns(1, 1).unwrap();
        let turn = passwords.turn().await.unwrap();
        let mut second = Box::pin(passwords.turn());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(passwords.turn().await.err(), Some(HashError::Busy));
        drop(turn);
        drop(second.await.unwrap());
        passwords.turn().await.unwrap();
    }

    #[test]
    fn a_hash_is_outdated_when_it_cost_less() {
        let hash = |start: &str| format!("{start}$c29tZXNhbHRzb21lc2FsdA$aGFzaGhhc2hoYXNoaGFzaA");
        for (start, outdated) in [
            ("$argon2id$v=19$m=19456,t=2,p=1", false),
            ("$argon2id$v=19$m=65536,t=3,p=4", false),
            ("$argon2id$v=19$m=8192,t=2,p=1", true),
            ("$argon2id$v=19$m=19456,t=1,p=1", true),
            ("$argon2i$v=19$m=19456,t=2,p=1", true),
        ] {
            assert_eq!(is_outdated(&hash(start)), outdated, "{start}");
        }
        // There is nothing to make better of what cannot be verified.
        assert!(!is_outdated("no hash"));
    }

    #[tokio::test]
    async fn a_hash_that_is_none_is_an_error_and_not_a_wrong_password() {
        let passwords = Passwords::with_turns(1, 1).unwrap();
        let turn = passwords.turn().await.unwrap();
        let outcome = passwords.verify(turn, "x", Some("no hash")).await;
        assert_eq!(outcome.err(), Some(HashError::Failed));
    }
}
