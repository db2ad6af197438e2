//! Password hashing with Argon2id, off the request threads: one hash per core at a time, and a
//! bounded queue.

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

/// Queue length per core. At about 40 ms per hash the last one waits two seconds.
const QUEUE_PER_CORE: usize = 50;
/// Wait reported to a caller who found the queue full.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Hashes and verifies passwords; clones share the queue.
#[derive(Clone)]
pub(super) struct Passwords {
    slots: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue_limit: usize,
    /// Reserve for addresses from which the account has signed in before, so that an attack from
    /// many addresses cannot use up all slots.
    reserve: Arc<Semaphore>,
    waiting_for_reserve: Arc<AtomicUsize>,
    /// Salt and hash that the password of an unknown user is compared with.
    dummy_hash: Arc<str>,
}

/// Permission to hash.
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

    fn with_slots(slots: usize, queue: usize) -> Result<Passwords, HashError> {
        // Random instead of a real hash: comparing with it takes as long.
        let part = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        let salt = part(&rand::random::<[u8; 16]>());
        let dummy_hash = format!("{salt}${}", part(&rand::random::<[u8; 32]>()));
        Ok(Passwords {
            slots: Arc::new(Semaphore::new(slots)),
            waiting: Arc::new(AtomicUsize::new(0)),
            queue_limit: queue,
            reserve: Arc::new(Semaphore::new(slots.div_ceil(2))),
            waiting_for_reserve: Arc::default(),
            dummy_hash: dummy_hash.into(),
        })
    }

    /// Waits for a slot.
    pub(super) async fn acquire_slot(&self) -> Result<HashSlot, HashError> {
        let _entry = QueueEntry::enter(&self.waiting, self.queue_limit)?;
        let permit = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(|_| HashError::Failed)?;
        Ok(HashSlot { _permit: permit })
    }

    /// Waits for a slot, using the reserve when the account is `known_here` and others wait.
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
        let _entry = QueueEntry::enter(&self.waiting_for_reserve, self.queue_limit)?;
        let permit = Arc::clone(&self.reserve)
            .acquire_owned()
            .await
            .map_err(|_| HashError::Failed)?;
        Ok(HashSlot { _permit: permit })
    }

    /// Hashes a password into the PHC string format.
    pub(super) async fn hash(
        &self,
        slot: HashSlot,
        password: &str,
        cost: HashCost,
    ) -> Result<String, HashError> {
        let password = Zeroizing::new(password.to_owned());
        // The slot moves into the task: a disconnected caller frees no slot while hashing
        // continues.
        run_blocking(move || {
            let _slot = slot;
            hash_now(&password, cost)
        })
        .await?
    }

    /// Compares a password with a hash, or with a dummy hash. A mismatch takes the work of `cost`
    /// in every case, even if the hash was made at a lower cost. Returns the slot with the result.
    pub(super) async fn verify(
        &self,
        slot: HashSlot,
        password: &str,
        hash: Option<&str>,
        cost: HashCost,
    ) -> Result<(HashSlot, bool), HashError> {
        let password = Zeroizing::new(password.to_owned());
        let has_hash = hash.is_some();
        let hash = self.hash_or_dummy(hash, cost);
        run_blocking(move || {
            let matches = verify_with_equal_work(&password, &hash, cost)?;
            Ok((slot, has_hash && matches))
        })
        .await?
    }

    /// Returns the account's hash, or a dummy hash of `cost` that no password matches.
    fn hash_or_dummy(&self, hash: Option<&str>, cost: HashCost) -> String {
        match hash {
            Some(hash) => hash.to_owned(),
            None => format!("{}{}", hash_prefix(cost), self.dummy_hash),
        }
    }
}

/// An entry in the queue, released on drop.
struct QueueEntry<'a>(&'a AtomicUsize);

impl QueueEntry<'_> {
    fn enter(waiting: &AtomicUsize, queue: usize) -> Result<QueueEntry<'_>, HashError> {
        let entry = QueueEntry(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= queue {
            return Err(HashError::Busy);
        }
        Ok(entry)
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

/// Prefix of a hash with this cost: Argon2id, version 19.
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

/// Whether a hash was made at a lower cost or with other parameters. The cost of a guess is memory
/// times iterations.
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

/// The work of making a hash, in KiB of memory processed.
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
    // The hash contains its own parameters.
    match Argon2::default().verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(_) => Err(HashError::Failed),
    }
}

/// Compares a password with a hash; a mismatch takes at least the work of `cost`.
fn verify_with_equal_work(password: &str, hash: &str, cost: HashCost) -> Result<bool, HashError> {
    let matches = verify_now(password, hash)?;
    if !matches {
        equalize_work(password, hash, cost)?;
    }
    Ok(matches)
}

/// Performs the work that a cheaper hash saved compared with the dummy hash, so that the time of a
/// mismatch does not reveal accounts from before the cost was raised.
fn equalize_work(password: &str, hash: &str, cost: HashCost) -> Result<(), HashError> {
    let hash = PasswordHash::new(hash).map_err(|_| HashError::Failed)?;
    let missing = work_of_cost(cost).saturating_sub(work_of_hash(&hash).unwrap_or_default());
    let iterations = missing / u64::from(cost.memory.max(1));
    let rest = missing % u64::from(cost.memory.max(1));
    let passes = [(u64::from(cost.memory), iterations), (rest, 1)];
    for (memory, iterations) in passes {
        let part = HashCost {
            memory: u32::try_from(memory).unwrap_or(u32::MAX),
            iterations: u32::try_from(iterations).unwrap_or(u32::MAX),
            parallelism: 1,
        };
        // Work below Argon2's minimum memory takes no measurable time.
        if memory >= u64::from(Params::MIN_M_COST) && iterations > 0 {
            hash_now(password, part)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
