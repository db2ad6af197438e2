//! Logouts at providers, and sign-ins that are in progress meanwhile.

use super::source::SessionSource;
use super::{SessionError, Sessions};
use crate::auth::provider_logout::ProviderLogout;
use crate::auth::session::{EndReason, Session};
use crate::store::StoreError;

/// When a sign-in at a provider began.
#[derive(Debug, Clone, Copy)]
pub struct SignInStart {
    /// Number of the latest logout before it. `None`: the store did not respond, so that no logout was
    /// confirmed either.
    latest_logout: Option<u64>,
}

/// Outcome of a logout at a provider.
pub struct ProviderLogoutOutcome {
    /// The sessions that it ended.
    pub ended: Vec<Session>,
    /// Whether every session that it covers has ended.
    pub ensured: Result<(), SessionError>,
}

impl Sessions {
    /// Begins a sign-in at a provider, before its code is redeemed. `is_store_down`: the store has just
    /// failed to respond, although its clock may still be known.
    ///
    /// # Errors
    /// When the store does not respond and sessions need it.
    pub async fn begin_provider_sign_in(
        &self,
        is_store_down: bool,
    ) -> Result<SignInStart, StoreError> {
        let latest = match is_store_down {
            true => Err(StoreError::Unreachable),
            false => self.store.latest_logout().await,
        };
        let latest_logout = match (latest, self.source()) {
            (Err(_), SessionSource::Durable(_)) => None,
            (latest, _) => Some(latest?),
        };
        Ok(SignInStart { latest_logout })
    }

    /// Records that a sign-in redeems a code; `false`: another one has redeemed it. Without the store, only
    /// this gateway knows of codes.
    ///
    /// # Errors
    /// When the store does not respond and sessions need it.
    pub async fn redeem_code(
        &self,
        provider: &str,
        code: &str,
        start: SignInStart,
    ) -> Result<bool, StoreError> {
        if start.latest_logout.is_none() {
            return Ok(true);
        }
        match (self.store.redeem_code(provider, code).await, self.source()) {
            (Err(_), SessionSource::Durable(_)) => Ok(true),
            (is_first, _) => is_first,
        }
    }

    /// Whether a logout at the provider has overtaken the sign-in of a session that now exists.
    ///
    /// # Errors
    /// When it is not certain.
    pub async fn is_overtaken_by_logout(
        &self,
        session: &Session,
        start: SignInStart,
    ) -> Result<bool, StoreError> {
        match (&session.provider, start.latest_logout) {
            (Some(sign_in), Some(latest)) => self.store.is_logged_out(sign_in, latest).await,
            (None, _) | (_, None) => Ok(false),
        }
    }

    /// Ends the sessions that a logout at a provider covers, as far as possible.
    pub async fn end_provider_sessions(&self, logout: &ProviderLogout) -> ProviderLogoutOutcome {
        let marked = self.store.mark_logout(logout).await;
        let in_store = self.store.provider_sessions(logout).await;
        let in_database = match self.source() {
            SessionSource::Store => Ok(Vec::new()),
            SessionSource::Durable(durable) => durable.provider_sessions(logout).await,
        };
        let mut sessions: Vec<Session> = in_store.as_ref().cloned().unwrap_or_default();
        sessions.extend(in_database.as_ref().into_iter().flatten().cloned());
        sessions.sort_unstable_by_key(|session| session.id);
        sessions.dedup_by_key(|session| session.id);
        let found = marked.and(in_store).map_err(SessionError::from);
        let mut outcome = ProviderLogoutOutcome {
            ended: Vec::new(),
            ensured: found.and(in_database.map_err(SessionError::from)).map(drop),
        };
        for session in sessions {
            // Idle ones end too: a longer timeout must not revive them.
            match self.end(session.id, EndReason::Backchannel, None).await {
                Ok(true) => outcome.ended.push(session),
                Ok(false) => {}
                Err(SessionError::Store(StoreError::Unreplicated)) => {
                    outcome.ended.push(session);
                    outcome.ensured = Err(StoreError::Unreplicated.into());
                }
                Err(error) => outcome.ensured = Err(error),
            }
        }
        outcome
    }
}
