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

use crate::settings::HashCost;

/// Who waits for a turn, for each core. At about 40 ms a hash the last one waits two seconds.
const QUEUE_PER_CORE: usize = 50;
/// When a caller who found the queue full is told to come again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Hashes and verifies passwords; clones share the queue.
#[derive(Clone)]
pub(super) struct Passwords {
    slots: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue_limit: usize,
    /// For sign-ins from addresses from which the account has signed in before: strangers, who may
    /// come from any number of addresses, cannot use it up.
    reserve: Arc<Semaphore>,
    waiting_for_reserve: Arc<AtomicUsize>,
    /// Salt and hash of what an unknown user's password is compared with.
    dummy_hash: Arc<str>,
}

/// The right to hash now.
pub(super) struct HashSlot {
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
        Passwords::with_slots(cores, cores * QUEUE_PER_CORE)
    }

    fn with_slots(turns: usize, queue: usize) -> Result<Passwords, HashError> {
        // Made up rather than hashed: it takes as long to compare with.
        let part = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        let salt = part(&rand::random::<[u8; 16]>());
        let nobody = format!("{salt}${}", part(&rand::random::<[u8; 32]>()));
        Ok(Passwords {
            slots: Arc::new(Semaphore::new(turns)),
            waiting: Arc::new(AtomicUsize::new(0)),
            queue_limit: queue,
            reserve: Arc::new(Semaphore::new(turns.div_ceil(2))),
            waiting_for_reserve: Arc::default(),
            dummy_hash: nobody.into(),
        })
    }

    /// Waits for a turn.
    pub(super) async fn acquire_slot(&self) -> Result<HashSlot, HashError> {
        let _place = QueueEntry::enter(&self.waiting, self.queue_limit)?;
        let permit = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| HashError::Failed)?;
        Ok(HashSlot { _permit: permit })
    }

    /// Waits for a turn; one of the reserve, where the account is `known_here` and others wait.
    pub(super) async fn acquire_sign_in_slot(
        &self,
        known_here: bool,
    ) -> Result<HashSlot, HashError> {
        if !known_here {
            return self.acquire_slot().await;
        }
        if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(HashSlot { _permit: permit });
        }
        let _place = QueueEntry::enter(&self.waiting_for_reserve, self.queue_limit)?;
        let permit = Arc::clone(&self.reserve)
            .acquire_owned()
            .await
            .map_err(|_| HashError::Failed)?;
        Ok(HashSlot { _permit: permit })
    }

    /// Hashes a password into the PHC string format.
    pub(super) async fn hash(
        &self,
        turn: HashSlot,
        password: &str,
        cost: HashCost,
    ) -> Result<String, HashError> {
        let password = Zeroizing::new(password.to_owned());
        // The turn goes along: a caller who goes away does not make room while the work goes on.
        run_blocking(move || {
            let _turn = turn;
            hash_now(&password, cost)
        })
        .await?
    }

    /// Compares a password with a hash, or with nobody's. A no takes the work of `cost` for everybody,
    /// also for whose hash was made at a lower one. The turn comes back with the answer.
    pub(super) async fn verify(
        &self,
        turn: HashSlot,
        password: &str,
        hash: Option<&str>,
        cost: HashCost,
    ) -> Result<(HashSlot, bool), HashError> {
        let password = Zeroizing::new(password.to_owned());
        let known = hash.is_some();
        let hash = self.hash_or_dummy(hash, cost);
        run_blocking(move || {
            let matches = verify_with_equal_work(&password, &hash, cost)?;
            Ok((turn, known && matches))
        })
        .await?
    }

    /// The hash of an account, or one of `cost` that no password has.
    fn hash_or_dummy(&self, hash: Option<&str>, cost: HashCost) -> String {
        match hash {
            Some(hash) => hash.to_owned(),
            None => format!("{}{}", hash_prefix(cost), self.dummy_hash),
        }
    }
}

/// A place in the queue, given up on drop.
struct QueueEntry<'a>(&'a AtomicUsize);

impl QueueEntry<'_> {
    fn enter(waiting: &AtomicUsize, queue: usize) -> Result<QueueEntry<'_>, HashError> {
        let place = QueueEntry(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= queue {
            return Err(HashError::Busy);
        }
        Ok(place)
    }
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HashError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| HashError::Failed)
}

/// What a hash of this cost begins with: Argon2id, version 19.
fn hash_prefix(cost: HashCost) -> String {
    let HashCost {
        memory,
        iterations,
        parallelism,
    } = cost;
    format!("$argon2id$v=19$m={memory},t={iterations},p={parallelism}$")
}

fn argon2(cost: HashCost) -> Result<Argon2<'static>, HashError> {
    let params = Params::new(cost.memory, cost.iterations, cost.parallelism, None);
    Ok(Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        params.map_err(|_| HashError::Failed)?,
    ))
}

/// Tells whether a hash was made more cheaply than it would be now, or in another way. What a guess
/// costs is the memory that is gone over, times how often.
pub(super) fn is_outdated(hash: &str, cost: HashCost) -> bool {
    if hash.starts_with(&hash_prefix(cost)) {
        return false;
    }
    let Ok(hash) = PasswordHash::new(hash) else {
        return false;
    };
    hash.algorithm.as_str() != "argon2id"
        || work_of_hash(&hash).is_none_or(|it| it < work_of_cost(cost))
}

/// The KiB that making a hash goes over.
fn work_of_cost(cost: HashCost) -> u64 {
    u64::from(cost.memory) * u64::from(cost.iterations)
}

fn work_of_hash(hash: &PasswordHash) -> Option<u64> {
    let params = Params::try_from(hash).ok()?;
    Some(u64::from(params.m_cost()) * u64::from(params.t_cost()))
}

fn hash_now(password: &str, cost: HashCost) -> Result<String, HashError> {
    argon2(cost)?
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|_| HashError::Failed)
}

fn verify_now(password: &str, hash: &str) -> Result<bool, HashError> {
    let hash = PasswordHash::new(hash).map_err(|_| HashError::Failed)?;
    // The hash says itself how it was made.
    match Argon2::default().verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(HashError::Failed),
    }
}

/// Compares a password with a hash; a no takes at least the work of `cost`.
fn verify_with_equal_work(password: &str, hash: &str, cost: HashCost) -> Result<bool, HashError> {
    let matches = verify_now(password, hash)?;
    if !matches {
        equalize_work(password, hash, cost)?;
    }
    Ok(matches)
}

/// Does the work that comparing with this hash has saved over what comparing with nobody's costs: the
/// time of a no would tell who has an account from before the cost rose.
fn equalize_work(password: &str, hash: &str, cost: HashCost) -> Result<(), HashError> {
    let hash = PasswordHash::new(hash).map_err(|_| HashError::Failed)?;
    let left = work_of_cost(cost).saturating_sub(work_of_hash(&hash).unwrap_or_default());
    let iterations = left / u64::from(cost.memory.max(1));
    let rest = left % u64::from(cost.memory.max(1));
    let passes = [(u64::from(cost.memory), iterations), (rest, 1)];
    for (memory, iterations) in passes {
        let part = HashCost {
            memory: u32::try_from(memory).unwrap_or(u32::MAX),
            iterations: u32::try_from(iterations).unwrap_or(u32::MAX),
            parallelism: 1,
        };
        // Less than Argon2 has a size for is no time that could be measured.
        if memory >= u64::from(Params::MIN_M_COST) && iterations > 0 {
            hash_now(password, part)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
