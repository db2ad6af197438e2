//! The exchange of a session's tokens at its provider: once in the fleet.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::sleep;

use super::claims::Evaluation;
use super::record::{KeptTokens, Purpose, millis};
use super::successors::WRITE_TIME;
use super::{TokenContext, TokenExchanges};
use crate::auth::provider_tokens::PutTokensOutcome;
use crate::auth::session::{EndReason, Millis, Session, SessionId};
use crate::clock;
use crate::events::{Event, EventKind};
use crate::identity::oidc::{RefreshOutcome, TokenResponse};
use crate::rejection::CallbackFault;
use crate::telemetry::metrics::RecheckOutcome;

/// How often a request looks whether another gateway has finished its exchange.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Pause between two attempts to end a session.
const END_PAUSE: Duration = Duration::from_secs(1);
/// Time that a claim has beyond its calls of the provider.
const CLAIM_MARGIN: Duration = Duration::from_secs(5);

/// Tokens that this gateway alone exchanges, with the version of the claim.
pub(super) struct Claimed {
    pub(super) version: u64,
    pub(super) tokens: KeptTokens,
    now: Millis,
    /// The refresh token that is exchanged.
    pub(super) used: Option<SecretString>,
}

/// What has become of a session.
struct Finished {
    outcome: RecheckOutcome,
    result: Result<(), CallbackFault>,
}

impl Finished {
    fn unknown(fault: CallbackFault) -> Finished {
        Finished {
            outcome: RecheckOutcome::Unknown,
            result: Err(fault),
        }
    }
}

impl TokenExchanges {
    /// Exchanges the tokens of a session, unless that has become unnecessary.
    ///
    /// # Errors
    /// The provider has not confirmed the session.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        context: &TokenContext,
        session: &Arc<Session>,
        purpose: Purpose,
    ) -> Result<(), CallbackFault> {
        let Some(claimed) = self.claim(context, session, purpose).await? else {
            return Ok(());
        };
        let finished = self.perform(context, session, claimed).await;
        if context.recheck().is_some() {
            context.provider.count_recheck(finished.outcome);
        }
        finished.result
    }

    /// Claims the tokens by a write that only one gateway can make; `None`: nothing is left to do.
    async fn claim(
        &self,
        context: &TokenContext,
        session: &Session,
        purpose: Purpose,
    ) -> Result<Option<Claimed>, CallbackFault> {
        loop {
            let (sealed, mut tokens) = self.latest(context, session.id).await?;
            let now = self.now().await?;
            self.remember(session.id, tokens.clone());
            if tokens.satisfies(purpose, now) {
                return Ok(None);
            }
            if now < tokens.claimed_until() {
                if matches!(purpose, Purpose::Recheck(_)) {
                    return Err(CallbackFault::RefreshInProgress);
                }
                sleep(POLL_INTERVAL).await;
                continue;
            }
            if now < tokens.due_at(purpose) {
                return Err(CallbackFault::RefreshPaused);
            }
            if let Purpose::Forward(_) = purpose {
                // Nothing would be found out that the next request does not find out as well.
                find_refresh_token(context, &tokens)?;
            }
            // Before the provider is called: a write that fails must not cost a refresh token.
            let duration = 2 * context.provider.settings().timeout + WRITE_TIME + CLAIM_MARGIN;
            tokens.claim(now.saturating_add(millis(duration)));
            match self
                .put(context, session.id, sealed.version, &tokens)
                .await?
            {
                PutTokensOutcome::Written => {
                    return Ok(Some(Claimed {
                        version: sealed.version.saturating_add(1),
                        used: tokens.refresh_token.clone(),
                        tokens,
                        now,
                    }));
                }
                PutTokensOutcome::Changed => {}
                PutTokensOutcome::Gone => return Err(self.gone(session.id)),
            }
        }
    }

    /// Calls the provider, and acts on its response.
    async fn perform(
        self: &Arc<Self>,
        context: &TokenContext,
        session: &Arc<Session>,
        mut claimed: Claimed,
    ) -> Finished {
        let refresh_token = match find_refresh_token(context, &claimed.tokens) {
            Ok(refresh_token) => refresh_token,
            Err(fault) => return self.fail(context, session.id, claimed, fault).await,
        };
        match context.provider.refresh(&refresh_token).await {
            RefreshOutcome::Used { successor, tokens } => {
                let timeout = context.provider.settings().timeout;
                let until = claimed
                    .now
                    .saturating_add(millis(6 * timeout + CLAIM_MARGIN));
                claimed.tokens.keep_successor(successor, until);
                if let Err(fault) = self.write(context, session.id, &mut claimed).await {
                    return Finished::unknown(fault);
                }
                match tokens {
                    Ok(tokens) => self.finish(context, session, claimed, &tokens).await,
                    Err(fault) => self.fail(context, session.id, claimed, fault).await,
                }
            }
            RefreshOutcome::Unused(fault @ CallbackFault::GrantRejected) => {
                if !claimed.tokens.is_doubtful {
                    return self.end(context, session, fault).await;
                }
                // The exchange that was lost has used it up, most likely.
                claimed.tokens.refresh_token = None;
                self.fail(
                    context,
                    session.id,
                    claimed,
                    CallbackFault::RefreshTokenLost,
                )
                .await
            }
            RefreshOutcome::Unused(fault) => self.fail(context, session.id, claimed, fault).await,
            RefreshOutcome::Lost(fault, late) => {
                claimed.tokens.is_doubtful = true;
                let finished = self.fail(context, session.id, claimed, fault).await;
                if let Some(late) = late {
                    self.await_late_successor(context, session.id, refresh_token, late);
                }
                finished
            }
        }
    }

    /// Evaluates a response, and records what it says of the session.
    async fn finish(
        &self,
        context: &TokenContext,
        session: &Arc<Session>,
        mut claimed: Claimed,
        tokens: &TokenResponse,
    ) -> Finished {
        match self
            .evaluate(context, session, tokens, &claimed.tokens)
            .await
        {
            Evaluation::Confirmed { id_expires_at } => {
                let now = self.now().await.unwrap_or(claimed.now);
                claimed.tokens.confirm(tokens, id_expires_at, now);
                let written = self.write(context, session.id, &mut claimed).await;
                Finished {
                    outcome: RecheckOutcome::Renewed,
                    result: written,
                }
            }
            Evaluation::Refused(fault) => self.end(context, session, fault).await,
            Evaluation::Unusable(fault) => self.fail(context, session.id, claimed, fault).await,
        }
    }

    /// Records an exchange that says nothing of the session.
    async fn fail(
        &self,
        context: &TokenContext,
        id: SessionId,
        mut claimed: Claimed,
        fault: CallbackFault,
    ) -> Finished {
        let now = self.now().await.unwrap_or(claimed.now);
        claimed.tokens.fail(now);
        let (provider, reason) = (&*context.provider.settings().name, fault.as_str());
        tracing::warn!(provider, reason, session_id = %id, "a session could not be rechecked");
        // Without the write, the claim counts as lost once it is over.
        let _ = self.write(context, id, &mut claimed).await;
        Finished::unknown(fault)
    }

    /// Ends a session that its provider or `allow` does not admit any more.
    async fn end(
        &self,
        context: &TokenContext,
        session: &Arc<Session>,
        fault: CallbackFault,
    ) -> Finished {
        let provider = &*context.provider.settings().name;
        let event = Event::new(EventKind::ProviderEndedSession).provider(provider);
        let event = event.user(&session.user).session(session.id);
        self.accounts.events.record(event.reason(fault.as_str()));
        loop {
            let ended = self
                .accounts
                .end_session(session, EndReason::Provider, None, context.idle);
            match ended.await {
                Ok(_) => break,
                Err(error) => tracing::warn!(
                    %error, session_id = %session.id,
                    "a session that its provider has ended is not ended yet"
                ),
            }
            if clock::unix_millis() >= session.expires_at {
                break;
            }
            sleep(END_PAUSE).await;
        }
        self.cache.remove(&session.id);
        Finished {
            outcome: RecheckOutcome::Ended,
            result: Err(CallbackFault::SessionEndedByProvider),
        }
    }
}

/// The refresh token, if the provider of these settings has issued it.
fn find_refresh_token(
    context: &TokenContext,
    tokens: &KeptTokens,
) -> Result<SecretString, CallbackFault> {
    if !tokens.are_of(context.provider.settings()) {
        return Err(CallbackFault::TokensOfOtherIssuer);
    }
    let refresh_token = tokens.refresh_token.clone();
    refresh_token.ok_or(CallbackFault::RefreshTokenMissing)
}
