//! Users and sign-in: registration, sign-in, refresh, sign-out, profiles and user administration.

mod abandoned;
mod backend;
mod common_passwords;
mod devices;
mod error;
mod field_errors;
mod identities;
pub mod normalize;
pub mod oidc;
mod passwords;
pub mod picture;
mod profile;
mod refresh;
mod refresh_token;
mod rehash;
mod sign_in;
mod sign_in_attempt;
mod sign_out;
mod throttle;
mod user_changes;
mod users;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use backend::CurrentBackendClient;
pub use backend::{BackendResponse, user_from_session};
pub use error::AccountError;
pub use field_errors::FieldErrors;
pub use identities::{IdentityName, UnlinkedBy};
use oidc::PendingLogouts;
use passwords::{HashError, Passwords};
pub use profile::PasswordChange;
pub use refresh_token::RefreshToken;
pub use sign_in::by_backend::BackendSignIn;
pub use sign_in::{Credentials, SessionOrigin};
use throttle::FloodGuard;
pub use throttle::{
    address_key, failure_counter_keys, limit_address_key, sign_in_counter, sign_in_limits,
};
use tokio::sync::Semaphore;
use user_changes::UnappliedChanges;
pub use users::{AddUserError, CheckedPatch, CheckedUser, NewUser, UserPatch};

use crate::auth::session::{Device, SessionToken};
use crate::database::Database;
pub use crate::database::{Avatar, AvatarInfo, User, UserIdentity};
use crate::events::Events;
use crate::rejection::Refusal;
use crate::sessions::Sessions;
use crate::store::{SessionEntry, Store};
use crate::telemetry::metrics::{LimitOutcome, Metrics, SignInMethod};

/// Operations on users and their sessions; clones share everything.
#[derive(Clone)]
pub struct Accounts {
    database: Database,
    sessions: Sessions,
    store: Store,
    passwords: Passwords,
    flood_guard: Arc<FloodGuard>,
    abandon_permits: Arc<Semaphore>,
    unapplied_changes: Arc<UnappliedChanges>,
    backend_client: CurrentBackendClient,
    pending_logouts: PendingLogouts,
    metrics: Arc<Metrics>,
    events: Events,
}

/// The client of a sign-in, as recorded with the session.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    pub ip: IpAddr,
    pub user_agent: String,
    pub device: Device,
}

/// Result of a sign-in or refresh. The secrets go to their owner only.
pub struct SignedIn {
    pub user: User,
    pub session: SessionEntry,
    /// Absent after a refresh, which keeps the cookie.
    pub session_token: Option<SessionToken>,
    pub access_token: String,
    pub expires_in: Duration,
    pub refresh_token: String,
}

impl Accounts {
    /// Builds the operations, and the metrics of the built-in limits.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn new(
        database: Database,
        sessions: Sessions,
        store: Store,
        metrics: Arc<Metrics>,
        events: Events,
    ) -> Result<Accounts, HashError> {
        for limit in throttle::LIMIT_NAMES {
            for outcome in [
                LimitOutcome::Allowed,
                LimitOutcome::Limited,
                LimitOutcome::Degraded,
            ] {
                let labels = [limit, outcome.as_str()];
                metrics.ratelimit.with_label_values(&labels);
            }
        }
        Ok(Accounts {
            database,
            sessions,
            store,
            passwords: Passwords::new()?,
            flood_guard: Arc::new(FloodGuard::new()),
            abandon_permits: abandoned::new_permits(),
            unapplied_changes: Arc::default(),
            backend_client: CurrentBackendClient::default(),
            pending_logouts: PendingLogouts::default(),
            metrics,
            events,
        })
    }

    /// The same operations over another store handle, for another runtime.
    #[must_use]
    pub fn with_store(&self, store: Store) -> Accounts {
        Accounts {
            sessions: self.sessions.with_store(store.clone()),
            store,
            ..self.clone()
        }
    }

    /// Counts a sign-in; `None` means that it succeeded.
    pub fn count_sign_in(&self, method: SignInMethod, refusal: Option<Refusal>) {
        self.metrics.count_sign_in(method, refusal);
    }

    /// Counts a sign-in at a provider; `None` means that it succeeded.
    pub fn count_provider_sign_in(&self, provider: &str, refusal: Option<Refusal>) {
        self.metrics.count_provider_sign_in(provider, refusal);
    }

    /// Whether the database of users responds.
    pub async fn is_database_up(&self) -> bool {
        self.database.probe().await.is_ok()
    }
}
