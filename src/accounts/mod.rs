//! The stories that need people, sessions and tokens together: register, sign in, refresh, sign
//! out, and what an administrator does to users.

mod abandoned;
mod attempts;
mod backend;
mod common_passwords;
mod devices;
mod endings;
mod homes;
pub mod names;
mod passwords;
pub mod picture;
mod problems;
mod profile;
mod refresh;
mod refresh_token;
mod revocations;
mod sign_in;
mod strengthen;
mod trial;
mod users;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use attempts::Attempts;
pub use attempts::{address_key, counter, keys_of_user, limit_address_key, sign_in_limits};
pub use backend::Answer as BackendAnswer;
use backend::Backends;
use passwords::{HashError, Passwords};
pub use problems::Problems;
pub use profile::PasswordChange;
pub use refresh_token::RefreshToken;
pub use sign_in::Credentials;
pub use sign_in::by_backend::Attempt;
use tokio::sync::Semaphore;
pub use users::{AddUserError, CheckedPatch, CheckedUser, NewUser, UserPatch};

use crate::auth::session::{Device, SessionToken};
use crate::auth::token;
use crate::directory::{self, Directory, User};
use crate::events::Events;
use crate::refusal::Refusal;
use crate::sessions::durable::Durable;
use crate::store::{Entry, Store, StoreError};
use crate::telemetry::metrics::{Metrics, SignInMethod};

/// The stories; clones share everything.
#[derive(Clone)]
pub struct Accounts {
    directory: Directory,
    durable: Durable,
    store: Store,
    passwords: Passwords,
    attempts: Arc<Attempts>,
    abandoned: Arc<Semaphore>,
    backends: Backends,
    metrics: Arc<Metrics>,
    events: Events,
}

/// Who comes to the desk, as far as it is kept with the session.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub ip: IpAddr,
    pub user_agent: String,
    pub device: Device,
}

/// What a sign-in or a refresh hands out. The secrets go to their owner and nowhere else.
pub struct SignedIn {
    pub user: User,
    pub session: Entry,
    /// Absent after a refresh: the cookie stays what it is.
    pub session_token: Option<SessionToken>,
    pub access_token: String,
    pub expires_in: Duration,
    pub refresh_token: String,
}

/// Why a story did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("refused: {}", .0.code())]
    Refused(Refusal),
    /// Field and what is wrong with it.
    #[error("some fields are wrong")]
    Invalid(Vec<(String, String)>),
    /// An attempt to prove an identity that failed.
    #[error("refused: {}: {reason}", .refusal.code())]
    Unproven {
        refusal: Refusal,
        /// The account that was meant, where it is known.
        user: Option<String>,
        /// For the log; the client does not learn it.
        reason: &'static str,
    },
    #[error("over a limit")]
    Limited,
    /// Faster than any configured limit would allow.
    #[error("too fast")]
    TooFast(Duration),
    #[error("too many passwords wait to be hashed")]
    Busy(Duration),
    #[error("the store did not respond")]
    Store(#[from] StoreError),
    #[error("the database did not respond")]
    Directory(#[from] directory::Error),
    #[error("an access token could not be made")]
    Token(#[from] token::Error),
    #[error("a password could not be hashed")]
    Hash,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl From<HashError> for Failure {
    fn from(error: HashError) -> Failure {
        match error {
            HashError::Busy => Failure::Busy(passwords::RETRY_AFTER),
            HashError::Failed => Failure::Hash,
        }
    }
}

impl Accounts {
    /// Prepares the stories.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn new(
        directory: Directory,
        durable: Durable,
        store: Store,
        metrics: Arc<Metrics>,
        events: Events,
    ) -> Result<Accounts, HashError> {
        for limit in attempts::NAMES {
            for outcome in ["allowed", "limited", "degraded"] {
                metrics.ratelimit.with_label_values(&[limit, outcome]);
            }
        }
        Ok(Accounts {
            directory,
            durable,
            store,
            passwords: Passwords::new()?,
            attempts: Arc::new(Attempts::new()),
            abandoned: abandoned::permits(),
            backends: Backends::default(),
            metrics,
            events,
        })
    }

    /// The same stories over another handle on the store, for another runtime.
    #[must_use]
    pub fn with_store(&self, store: Store) -> Accounts {
        Accounts {
            store,
            ..self.clone()
        }
    }

    /// Counts a sign-in; `None`: it succeeded.
    pub fn count_sign_in(&self, method: SignInMethod, refusal: Option<Refusal>) {
        self.metrics.signed_in(method, refusal);
    }

    /// The people.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }
}

/// A field and what is wrong with it, as the one thing that is wrong.
fn invalid(field: &str, problem: impl Into<String>) -> Failure {
    Failure::Invalid(vec![(field.to_owned(), problem.into())])
}
