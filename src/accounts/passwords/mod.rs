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
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue: usize,
    /// For sign-ins from addresses from which the account has signed in before: strangers, who may
    /// come from any number of addresses, cannot use it up.
    reserve: Arc<Semaphore>,
    waiting_for_reserve: Arc<AtomicUsize>,
    /// Salt and hash of what an unknown user's password is compared with.
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
        // Made up rather than hashed: it takes as long to compare with.
        let part = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        let salt = part(&rand::random::<[u8; 16]>());
        let nobody = format!("{salt}${}", part(&rand::random::<[u8; 32]>()));
        Ok(Passwords {
            turns: Arc::new(Semaphore::new(turns)),
            waiting: Arc::new(AtomicUsize::new(0)),
            queue,
            reserve: Arc::new(Semaphore::new(turns.div_ceil(2))),
            waiting_for_reserve: Arc::default(),
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

    /// Waits for a turn; one of the reserve, where the account is `known_here` and others wait.
    pub(super) async fn turn_of(&self, known_here: bool) -> Result<Turn, HashError> {
        if !known_here {
            return self.turn().await;
        }
        if let Ok(permit) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(Turn { _permit: permit });
        }
        let _place = Place::take(&self.waiting_for_reserve, self.queue)?;
        let permit = Arc::clone(&self.reserve)
            .acquire_owned()
            .await
            .map_err(|_| HashError::Failed)?;
        Ok(Turn { _permit: permit })
    }

    /// Hashes a password into the PHC string format.
    pub(super) async fn hash(
        &self,
        turn: Turn,
        password: &str,
        cost: HashCost,
    ) -> Result<String, HashError> {
        let password = Zeroizing::new(password.to_owned());
        // The turn goes along: a caller who goes away does not make room while the work goes on.
        blocking(move || {
            let _turn = turn;
            hash_now(&password, cost)
        })
        .await?
    }

    /// Compares a password with a hash, or with nobody's. A no takes the work of `cost` for everybody,
    /// also for whose hash was made at a lower one. The turn comes back with the answer.
    pub(super) async fn verify(
        &self,
        turn: Turn,
        password: &str,
        hash: Option<&str>,
        cost: HashCost,
    ) -> Result<(Turn, bool), HashError> {
        let password = Zeroizing::new(password.to_owned());
        let known = hash.is_some();
        let hash = self.to_compare(hash, cost);
        blocking(move || {
            let matches = compare(&password, &hash, cost)?;
            Ok((turn, known && matches))
        })
        .await?
    }

    /// The hash of an account, or one of `cost` that no password has.
    fn to_compare(&self, hash: Option<&str>, cost: HashCost) -> String {
        match hash {
            Some(hash) => hash.to_owned(),
            None => format!("{}{}", prefix(cost), self.nobody),
        }
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

/// What a hash of this cost begins with: Argon2id, version 19.
fn prefix(cost: HashCost) -> String {
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
    if hash.starts_with(&prefix(cost)) {
        return false;
    }
    let Ok(hash) = PasswordHash::new(hash) else {
        return false;
    };
    hash.algorithm.as_str() != "argon2id" || work_of(&hash).is_none_or(|it| it < work(cost))
}

/// The KiB that making a hash goes over.
fn work(cost: HashCost) -> u64 {
    u64::from(cost.memory) * u64::from(cost.iterations)
}

fn work_of(hash: &PasswordHash) -> Option<u64> {
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
fn compare(password: &str, hash: &str, cost: HashCost) -> Result<bool, HashError> {
    let matches = verify_now(password, hash)?;
    if !matches {
        catch_up(password, hash, cost)?;
    }
    Ok(matches)
}

/// Does the work that comparing with this hash has saved over what comparing with nobody's costs: the
/// time of a no would tell who has an account from before the cost rose.
fn catch_up(password: &str, hash: &str, cost: HashCost) -> Result<(), HashError> {
    let hash = PasswordHash::new(hash).map_err(|_| HashError::Failed)?;
    let left = work(cost).saturating_sub(work_of(&hash).unwrap_or_default());
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
