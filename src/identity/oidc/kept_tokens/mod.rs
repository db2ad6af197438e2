//! Provider tokens that sessions keep: sealed at sign-in, exchanged once in the fleet, forwarded to
//! upstreams, and revoked with the session.
//!
//! An exchange claims the tokens by a write that only one gateway can make, calls the provider, and keeps
//! the successor of the refresh token before it evaluates anything else. What it finds out is written with
//! the tokens: when the provider confirmed the session, which exchanges failed, and whether one was lost.
//! A lost exchange may have used up the refresh token, so `invalid_grant` ends the session only if none was.

mod claims;
mod exchange;
mod record;
mod revocation;
mod running;
mod sign_in;
mod sign_out;
mod successors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use record::{KeptTokens, Purpose};
use running::Running;
use secrecy::SecretString;
pub(super) use sign_in::check_tokens_size;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::{ProviderClient, Providers};
use crate::auth::sealing::KeyRing;
use crate::auth::session::{Millis, Session, SessionId};
use crate::clock;
use crate::identity::{AccountError, Accounts};
use crate::rejection::CallbackFault;
use crate::routing::ProviderTokenKind;
use crate::settings::Reloadable;
use crate::settings::provider::RecheckOutage;

/// Maximum number of bytes of the tokens that this gateway caches.
const CACHED_BYTES: u64 = 64 << 20;
/// Number of sessions for whose tokens the cache has room at first.
const INITIAL_CAPACITY: usize = 1024;
/// Maximum number of sessions that this gateway knows to have no tokens.
const MAX_WITHOUT_TOKENS: usize = 8192;
/// How long cached tokens are used without a look at the store: another gateway may have replaced them,
/// and a provider may revoke the access tokens that it replaced.
const CACHED_FOR: Duration = Duration::from_secs(5);
/// How long a session without tokens is not looked at again.
const ABSENT_FOR: Millis = 60_000;
/// Maximum number of rechecks that this gateway performs at a time.
const MAX_RECHECKS: usize = 32;

/// The provider tokens of sessions; clones share everything.
#[derive(Clone)]
pub struct ProviderTokens {
    shared: Arc<TokenExchanges>,
}

struct TokenExchanges {
    accounts: Accounts,
    /// Exchanges outlive the requests that wait for them.
    runtime: Handle,
    cache: Cache<SessionId, Arc<CachedTokens>, CachedTokensWeight>,
    /// Sessions without tokens that can be opened, and until when they are not looked at again.
    without_tokens: Cache<SessionId, Millis>,
    running: Running,
    rechecks: Arc<Semaphore>,
}

/// Opened tokens of a session, as this gateway read or wrote them last.
struct CachedTokens {
    tokens: KeptTokens,
    at: Instant,
}

/// Weighs cached tokens by their bytes.
#[derive(Clone)]
struct CachedTokensWeight;

impl Weighter<SessionId, Arc<CachedTokens>> for CachedTokensWeight {
    fn weight(&self, _: &SessionId, cached: &Arc<CachedTokens>) -> u64 {
        cached.tokens.bytes() as u64
    }
}

/// The settings by which the tokens of one session are used.
#[derive(Clone)]
pub struct TokenContext {
    provider: Arc<ProviderClient>,
    keys: Arc<KeyRing>,
    leeway: Duration,
    idle: Option<Duration>,
}

impl TokenContext {
    /// The context of a session; `None`: it has no provider whose tokens are kept.
    pub fn of(
        settings: &Reloadable,
        providers: &Providers,
        session: &Session,
    ) -> Option<TokenContext> {
        let provider = providers.get(&session.provider.as_ref()?.provider)?;
        let context = TokenContext::new(settings, provider)?;
        provider.settings().tokens.keep.then_some(context)
    }

    fn new(settings: &Reloadable, provider: &Arc<ProviderClient>) -> Option<TokenContext> {
        Some(TokenContext {
            provider: Arc::clone(provider),
            keys: Arc::clone(settings.encryption.as_ref()?),
            leeway: settings.tokens.leeway,
            idle: settings.sessions.idle_timeout,
        })
    }

    fn recheck(&self) -> Option<Purpose> {
        let interval = self.provider.settings().tokens.recheck;
        interval.map(Purpose::Recheck)
    }
}

impl ProviderTokens {
    /// Exchanges run on the current runtime.
    pub fn new(accounts: Accounts) -> ProviderTokens {
        ProviderTokens {
            shared: Arc::new(TokenExchanges {
                accounts,
                runtime: Handle::current(),
                cache: Cache::with_weighter(INITIAL_CAPACITY, CACHED_BYTES, CachedTokensWeight),
                without_tokens: Cache::new(MAX_WITHOUT_TOKENS),
                running: Running::default(),
                rechecks: Arc::new(Semaphore::new(MAX_RECHECKS)),
            }),
        }
    }

    /// The token of a session for an upstream. Waits for an exchange if it has less than ten seconds
    /// left, for at most the provider's `timeout`. `None`: the session has none.
    ///
    /// # Errors
    /// It is not certain whether the session has one, or the provider does not renew it.
    pub async fn token(
        &self,
        context: &TokenContext,
        session: &Arc<Session>,
        kind: ProviderTokenKind,
        now: Millis,
    ) -> Result<Option<SecretString>, AccountError> {
        if let Some(cached) = self.shared.fresh(session.id)
            && let Some(token) = cached.tokens.usable(kind, now)
        {
            return Ok(Some(token.clone()));
        }
        let timeout = context.provider.settings().timeout;
        let found = tokio::time::timeout(timeout, self.find(context, session, kind, now));
        found.await.unwrap_or(Err(CallbackFault::TimedOut.into()))
    }

    async fn find(
        &self,
        context: &TokenContext,
        session: &Arc<Session>,
        kind: ProviderTokenKind,
        now: Millis,
    ) -> Result<Option<SecretString>, AccountError> {
        let Some(read) = self.shared.read(context, session.id).await? else {
            return Ok(None);
        };
        if let Some(token) = read.tokens.usable(kind, now) {
            return Ok(Some(token.clone()));
        }
        if !read.tokens.has(kind) {
            return Ok(None);
        }
        let purpose = Purpose::Forward(kind);
        // A recheck in progress may have another outcome than an exchange for this request.
        let mut fault = self.exchange(context, session, purpose).await.err();
        if self.shared.usable(session.id, kind, now).is_none() {
            fault = self.exchange(context, session, purpose).await.err();
        }
        match self.shared.usable(session.id, kind, now) {
            Some(token) => Ok(Some(token)),
            None => Err(fault.unwrap_or(CallbackFault::TokenNotRenewed).into()),
        }
    }

    /// Joins the exchange of a session's tokens, or begins one.
    async fn exchange(
        &self,
        context: &TokenContext,
        session: &Arc<Session>,
        purpose: Purpose,
    ) -> Result<(), CallbackFault> {
        let exchange = || {
            let (shared, context) = (Arc::clone(&self.shared), context.clone());
            let session = Arc::clone(session);
            async move { shared.exchange(&context, &session, purpose).await }
        };
        let shared = &self.shared;
        shared
            .running
            .join(&shared.runtime, session.id, exchange)
            .await
    }

    /// Rechecks a session that is in use, in the background, if its provider has not confirmed it for too
    /// long.
    pub fn session_used(&self, context: &TokenContext, session: &Arc<Session>, now: Millis) {
        let Some(purpose) = context.recheck() else {
            return;
        };
        let cached = self.shared.cache.get(&session.id);
        let is_due = match cached {
            Some(cached) => now >= cached.tokens.next_look(purpose),
            None => {
                let until = self.shared.without_tokens.get(&session.id);
                until.is_none_or(|until| now >= until)
            }
        };
        if !is_due || self.shared.running.has(session.id) {
            return;
        }
        // One that finds no slot is due at its next use.
        let Ok(slot) = Arc::clone(&self.shared.rechecks).try_acquire_owned() else {
            return;
        };
        let (tokens, context, session) = (self.clone(), context.clone(), Arc::clone(session));
        self.shared.runtime.spawn(async move {
            if let Err(fault) = tokens.exchange(&context, &session, purpose).await {
                if matches!(
                    fault,
                    CallbackFault::SessionEndedByProvider | CallbackFault::TokensSealed
                ) {
                    let until = now.saturating_add(ABSENT_FOR);
                    tokens.shared.without_tokens.insert(session.id, until);
                }
                let reason = fault.as_str();
                tracing::debug!(session_id = %session.id, reason, "a session was not rechecked");
            }
            drop(slot);
        });
    }

    /// Whether requests of a session are rejected because its provider has not confirmed it for longer
    /// than `on_outage` permits. The session itself goes on, and is rechecked.
    pub async fn has_lapsed(
        &self,
        context: &TokenContext,
        session: &Arc<Session>,
        now: Millis,
    ) -> bool {
        let on_outage = context.provider.settings().tokens.on_outage;
        if on_outage == RecheckOutage::Continue || context.recheck().is_none() {
            return false;
        }
        if self.shared.cache.get(&session.id).is_none() {
            // Another gateway may have recorded failures.
            let timeout = context.provider.settings().timeout;
            let read = tokio::time::timeout(timeout, self.shared.read(context, session.id));
            if let Ok(Err(error)) = read.await {
                tracing::debug!(%error, session_id = %session.id, "provider tokens cannot be read");
            }
        }
        self.session_used(context, session, now);
        let cached = self.shared.cache.get(&session.id);
        let lapses_at = cached.and_then(|cached| cached.tokens.lapses_at(on_outage));
        lapses_at.is_some_and(|at| now >= at)
    }

    /// Waits until no exchange is in progress, for as long as one may take.
    pub async fn finish(&self, timeout: Duration) {
        // An exchange that is cut off may lose the successor of a refresh token.
        if tokio::time::timeout(timeout, self.shared.running.wait_until_idle())
            .await
            .is_err()
        {
            tracing::warn!("exchanges of provider tokens are cut off");
        }
    }
}

impl TokenExchanges {
    /// The cached tokens, if they were read or written a moment ago.
    fn fresh(&self, id: SessionId) -> Option<Arc<CachedTokens>> {
        let cached = self.cache.get(&id)?;
        (clock::monotonic() < cached.at + CACHED_FOR).then_some(cached)
    }

    /// The token in the cache, where it is valid for long enough.
    fn usable(&self, id: SessionId, kind: ProviderTokenKind, now: Millis) -> Option<SecretString> {
        self.fresh(id)?.tokens.usable(kind, now).cloned()
    }

    /// Reads the tokens of a session, and seals them anew if an older key has sealed them.
    async fn read(
        &self,
        context: &TokenContext,
        id: SessionId,
    ) -> Result<Option<Arc<CachedTokens>>, AccountError> {
        let Some(sealed) = self.accounts.sessions.provider_tokens(id).await? else {
            self.cache.remove(&id);
            return Ok(None);
        };
        let opened = KeptTokens::open(&context.keys, id, &sealed.sealed);
        let Some((tokens, is_outdated)) = opened else {
            return Err(unopenable(id).into());
        };
        let version = sealed.version;
        if is_outdated && let Some(sealed) = tokens.seal(&context.keys, id) {
            let put = self
                .accounts
                .sessions
                .put_provider_tokens(id, version, sealed.into());
            if let Err(error) = put.await {
                tracing::debug!(%error, "provider tokens wait to be sealed anew");
            }
        }
        Ok(Some(self.remember(id, tokens)))
    }

    fn remember(&self, id: SessionId, tokens: KeptTokens) -> Arc<CachedTokens> {
        let at = clock::monotonic();
        let cached = Arc::new(CachedTokens { tokens, at });
        self.cache.insert(id, Arc::clone(&cached));
        cached
    }
}

/// Reports tokens that no configured key opens.
fn unopenable(id: SessionId) -> CallbackFault {
    tracing::error!(
        session_id = %id,
        "no key of `encryption` opens the provider tokens of a session; add the older key to `encryption.also`"
    );
    CallbackFault::TokensSealed
}
