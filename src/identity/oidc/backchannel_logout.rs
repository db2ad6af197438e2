//! Back-channel logout (OpenID Connect Back-Channel Logout 1.0): a provider ends the sessions of its users.
//!
//! A logout that cannot be ensured is repeated by the gateway that received it, until its token expires.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use super::ProviderClient;
use crate::auth::provider_logout::ProviderLogout;
use crate::auth::session::{EndReason, Millis};
use crate::auth::token::provider_token::{LogoutTarget, LogoutToken};
use crate::clock;
use crate::events::{Event, EventKind};
use crate::identity::{AccountError, Accounts};
use crate::rejection::{CallbackFault, Refusal, Rejection};
use crate::sessions::SessionError;
use crate::settings::Reloadable;
use crate::settings::provider::{Provider, UserStorage};
use crate::store::{LogoutTokenUse, StoreError};
use crate::telemetry::metrics::BackchannelOutcome;

/// Pause before a logout that could not be ensured is repeated.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of logouts that are repeated concurrently.
const MAX_PENDING: usize = 1_000;
/// Maximum retention of the use of a logout token.
const MAX_TOKEN_TTL: Duration = Duration::from_secs(366 * 86_400);

/// Why a provider receives no 200 for its logout request.
#[derive(Debug)]
pub enum LogoutFailure {
    /// The logout token fails this check.
    Refused(CallbackFault),
    /// It is not certain that the logout is in force.
    Unavailable(AccountError),
}

/// The logout tokens that this gateway repeats.
#[derive(Clone, Default)]
pub(in crate::identity) struct PendingLogouts(Arc<Mutex<BTreeSet<PendingToken>>>);

/// Name of a provider and `jti`.
type PendingToken = (Arc<str>, String);

/// Holds a place among the pending logouts until it is dropped.
struct PendingPlace {
    pending: PendingLogouts,
    token: PendingToken,
}

impl PendingLogouts {
    /// `None`: the logout is pending already, or too many are.
    fn enter(&self, token: PendingToken) -> Option<PendingPlace> {
        let mut tokens = self.0.lock();
        if tokens.len() >= MAX_PENDING {
            tracing::warn!("too many logouts of providers are pending; one is not repeated");
            return None;
        }
        tokens.insert(token.clone()).then(|| PendingPlace {
            pending: self.clone(),
            token,
        })
    }
}

impl Drop for PendingPlace {
    fn drop(&mut self) {
        self.pending.0.lock().remove(&self.token);
    }
}

/// A logout that a provider requests by a verified token.
struct RequestedLogout {
    logout: ProviderLogout,
    token: PendingToken,
    token_use: LogoutTokenUse,
    /// When its token is no longer accepted.
    until: Millis,
    cut_off: Option<BearerCutOff>,
}

/// Rejection of the bearer tokens of a user of the provider.
struct BearerCutOff {
    issuer: String,
    /// The user's names in tokens: `sub`, and the user IDs of the sessions that were ended.
    users: BTreeSet<String>,
    /// Prefix of user IDs in sessions; `None` if users are in the database.
    session_prefix: Option<String>,
    /// Prefixes of the users of the trusted issuers and introspection entries with this issuer.
    token_prefixes: Vec<String>,
    requested_at: Millis,
}

/// The prefixes of the users of an issuer in bearer tokens.
fn token_prefixes(settings: &Reloadable, issuer: &str) -> Vec<String> {
    let trusted = settings.tokens.trusted.iter();
    let trusted = trusted.filter(|trusted| trusted.issuer == issuer);
    let trusted = trusted.map(|trusted| trusted.user_prefix.clone());
    let entries = settings.introspection.iter().map(|entry| &entry.rules);
    let entries = entries.filter(|rules| rules.user_issuer() == issuer);
    trusted
        .chain(entries.map(|rules| rules.user_prefix.clone()))
        .collect()
}

impl RequestedLogout {
    fn new(
        provider: &Provider,
        token: LogoutToken,
        settings: &Reloadable,
        requested_at: Millis,
    ) -> RequestedLogout {
        let (sid, subject) = match token.target {
            LogoutTarget::Session { sid, subject } => (Some(sid), subject),
            LogoutTarget::Subject(subject) => (None, Some(subject)),
        };
        let alone = subject.as_ref().filter(|_| sid.is_none());
        let cut_off = alone.map(|subject| BearerCutOff {
            issuer: token.issuer.clone(),
            users: [subject.clone()].into(),
            session_prefix: match &provider.users {
                UserStorage::External { prefix } => Some(prefix.clone()),
                UserStorage::Database { .. } => None,
            },
            token_prefixes: token_prefixes(settings, &token.issuer),
            requested_at,
        });
        let leeway = Millis::try_from(settings.tokens.leeway.as_millis()).unwrap_or(0);
        RequestedLogout {
            cut_off,
            token_use: LogoutTokenUse::new(&provider.name, &token.token_id),
            until: token.expires_at.saturating_add(leeway),
            token: (Arc::clone(&provider.name), token.token_id),
            logout: ProviderLogout {
                provider: Arc::clone(&provider.name),
                sid,
                subject,
            },
        }
    }
}

impl BearerCutOff {
    /// The users as bearer tokens name them.
    fn user_keys(&self) -> impl Iterator<Item = String> {
        let users = self.users.iter();
        users.flat_map(move |user| {
            let prefixes = self.token_prefixes.iter();
            prefixes.map(move |prefix| format!("{}\0{prefix}{user}", self.issuer))
        })
    }
}

impl Accounts {
    /// Ends the sessions that a logout token of a provider names.
    ///
    /// # Errors
    /// The token fails a check, or it is not certain that all sessions have ended.
    pub async fn log_out_by_provider(
        &self,
        settings: &Reloadable,
        provider: &ProviderClient,
        token: &str,
        ip: IpAddr,
    ) -> Result<(), LogoutFailure> {
        let name = &*provider.settings().name;
        let outcome = self.serve_logout(settings, provider, token).await;
        let label = match &outcome {
            Ok(()) => BackchannelOutcome::Ok,
            Err(LogoutFailure::Refused(_)) => BackchannelOutcome::Refused,
            Err(LogoutFailure::Unavailable(_)) => BackchannelOutcome::Unavailable,
        };
        self.metrics.count_backchannel_logout(name, label);
        if let Err(LogoutFailure::Refused(fault)) = &outcome {
            let event = Event::new(EventKind::BackchannelLogoutRefused).provider(name);
            self.events.record(event.reason(fault.as_str()).ip(ip));
        }
        outcome
    }

    async fn serve_logout(
        &self,
        settings: &Reloadable,
        provider: &ProviderClient,
        token: &str,
    ) -> Result<(), LogoutFailure> {
        let (leeway, now) = (settings.tokens.leeway, clock::unix_millis());
        let verified = provider.verify_logout_token(token, leeway, now).await;
        let verified = verified.map_err(|fault| match fault.refusal() {
            Refusal::ProviderUnavailable => {
                LogoutFailure::Unavailable(Rejection::from(fault).into())
            }
            _ => LogoutFailure::Refused(fault),
        })?;
        let requested_at = self.sessions.now().await.unwrap_or(now);
        let mut requested =
            RequestedLogout::new(provider.settings(), verified, settings, requested_at);
        // Unknown is not used: repeating a logout ends nothing else.
        let used = self.store.is_logout_token_used(requested.token_use).await;
        if used == Ok(true) {
            return Err(LogoutFailure::Refused(CallbackFault::LogoutReplayed));
        }
        let performed = self.perform_logout(&mut requested).await;
        let remaining = Duration::from_millis(requested.until.saturating_sub(now));
        let ttl = remaining.min(MAX_TOKEN_TTL);
        let used = match performed {
            Ok(()) => self.store.use_logout_token(requested.token_use, ttl).await,
            Err(error) => return Err(self.delay_logout(requested, error)),
        };
        match used {
            Ok(true) => {
                self.report_logout(&requested);
                Ok(())
            }
            Ok(false) => Err(LogoutFailure::Refused(CallbackFault::LogoutReplayed)),
            Err(error) => Err(self.delay_logout(requested, error.into())),
        }
    }

    /// Repeats a logout that could not be ensured, in the background.
    fn delay_logout(&self, requested: RequestedLogout, error: SessionError) -> LogoutFailure {
        let provider = &*requested.logout.provider;
        let reason: &dyn std::error::Error = &error;
        tracing::warn!(
            provider,
            error = reason,
            "a logout of a provider is not ensured yet"
        );
        self.repeat_logout(requested);
        LogoutFailure::Unavailable(error.into())
    }

    /// Ends the sessions and rejects the bearer tokens, as far as possible.
    async fn perform_logout(&self, requested: &mut RequestedLogout) -> Result<(), SessionError> {
        let outcome = self.sessions.end_provider_sessions(&requested.logout).await;
        for session in &outcome.ended {
            self.report_end(&session.user, session.id, EndReason::Backchannel, None);
        }
        let mut ensured = outcome.ensured;
        if let Some(cut_off) = &mut requested.cut_off {
            let users = outcome.ended.iter().filter_map(|session| {
                let prefix = cut_off.session_prefix.as_deref()?;
                session.user.strip_prefix(prefix).map(str::to_owned)
            });
            cut_off.users.extend(users.collect::<Vec<_>>());
            for user_key in cut_off.user_keys() {
                let revoked = self
                    .sessions
                    .revoke_user_tokens_up_to(&user_key, cut_off.requested_at);
                ensured = ensured.and(revoked.await);
            }
        }
        ensured
    }

    /// Repeats a logout until it is ensured or its token has expired.
    fn repeat_logout(&self, mut requested: RequestedLogout) {
        let Some(place) = self.pending_logouts.enter(requested.token.clone()) else {
            return;
        };
        let accounts = self.clone();
        tokio::spawn(async move {
            let _place = place;
            while clock::unix_millis() < requested.until {
                sleep(RETRY_INTERVAL).await;
                match accounts.is_ensured_by_retry(&requested).await {
                    // A sign-in since then is not to be ended.
                    Ok(true) => return,
                    Ok(false) => {
                        if accounts.perform_logout(&mut requested).await.is_ok() {
                            accounts.report_logout(&requested);
                            return;
                        }
                    }
                    // The database may respond.
                    Err(_) => drop(accounts.perform_logout(&mut requested).await),
                }
            }
            let provider = &*requested.logout.provider;
            tracing::error!(provider, "a logout of a provider could not be ensured");
        });
    }

    /// Whether a retry of the provider was successful meanwhile. This attempt has not used the token
    /// then: the provider received no 200 for it, so that a retry must not be a replay.
    async fn is_ensured_by_retry(&self, requested: &RequestedLogout) -> Result<bool, StoreError> {
        let token_use = requested.token_use;
        self.store.release_logout_token(token_use).await?;
        self.store.is_logout_token_used(token_use).await
    }

    fn report_logout(&self, requested: &RequestedLogout) {
        let event = Event::new(EventKind::BackchannelLogout);
        self.events
            .record(event.provider(&requested.logout.provider));
    }
}
