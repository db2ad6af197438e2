//! The session and token that a caller signs out from, even if they have already ended: an end that
//! could not be confirmed is confirmed by the next attempt.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::ApiState;
use super::caller::{AuthenticatedCaller, is_allowed_origin, presented_credential};
use crate::auth::credential::PresentedCredential;
use crate::auth::session::{Millis, Session, SessionId};
use crate::auth::token::Claims;
use crate::pipeline::admission::Identity;
use crate::pipeline::facts::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::Reloadable;

/// The session and the token to end.
pub(super) struct PresentedSession {
    session: Option<SessionId>,
    /// The user that must own the session, if a token names both.
    user: Option<String>,
    token: Option<Arc<Claims>>,
    /// The token was already revoked, alone or with all of its user's tokens.
    is_repeated: bool,
}

impl PresentedSession {
    /// The session and token of a valid credential.
    pub(super) fn from_identity(identity: &Identity) -> PresentedSession {
        PresentedSession {
            session: identity.session().map(|session| session.id),
            user: None,
            token: identity.token.clone(),
            is_repeated: false,
        }
    }

    /// The session and token of an ended credential; `None` if it is invalid or unknown.
    pub(super) fn from_rejection(
        rejection: &Rejection,
        presented: &PresentedCredential<'_>,
    ) -> Option<PresentedSession> {
        let refusal = rejection.refusal;
        if let Some(claims) = rejection.lapsed_claims.clone() {
            let alone = claims.session.is_none() && refusal != Refusal::TokenExpired;
            return Some(PresentedSession {
                session: claims.session,
                user: Some(claims.user.clone()),
                token: alone.then_some(claims),
                is_repeated: refusal == Refusal::TokenRevoked,
            });
        }
        is_ended(refusal).then(|| PresentedSession {
            session: session_id_of(presented),
            user: None,
            token: None,
            is_repeated: false,
        })
    }

    /// The session to end, which may have another owner.
    pub(super) fn session_id(&self) -> Option<SessionId> {
        self.session
    }

    /// Whether a session belongs to the user that is named, if one is.
    pub(super) fn may_end(&self, session: &Session) -> bool {
        let mut named = self.user.iter();
        named.all(|user| *user == session.user)
    }

    /// Ends the session and revokes the token.
    ///
    /// # Errors
    /// The store could not confirm the end.
    pub(super) async fn end(
        &self,
        state: &ApiState,
        settings: &Reloadable,
        client: &Client,
    ) -> Result<(), Rejection> {
        let by = Some(client.ip);
        // The session ends first: with a revoked token the client could not repeat the request.
        if let Some(id) = self.session {
            let user = self.user.as_deref();
            let idle = settings.sessions.idle_timeout;
            state.accounts.sign_out(id, user, by, idle).await?;
        }
        let Some(token) = &self.token else {
            return Ok(());
        };
        let revoked = match self.is_repeated {
            true => ensure_revoked(state, settings, token).await,
            false => blacklist(state, settings, client, token).await,
        };
        // The end of a durable session covers its tokens: no store is trusted before it has the end.
        if self.session.is_none() || !state.sessions.is_durable() {
            revoked?;
        }
        Ok(())
    }
}

/// Revokes a token for the rest of its lifetime.
pub(super) async fn blacklist(
    state: &ApiState,
    settings: &Reloadable,
    client: &Client,
    claims: &Claims,
) -> Result<(), Rejection> {
    let ttl = blacklist_ttl(state, settings, claims).await?;
    state
        .accounts
        .blacklist(&claims.blacklist_key, ttl, Some(client.ip))
        .await?;
    Ok(())
}

/// Confirms the revocation of an earlier attempt, without an event: anyone may hold a revoked token
/// and could fill the journal.
async fn ensure_revoked(
    state: &ApiState,
    settings: &Reloadable,
    claims: &Claims,
) -> Result<(), Rejection> {
    state
        .sessions
        .ensure_user_tokens_revoked(&claims.user_key())
        .await?;
    let ttl = blacklist_ttl(state, settings, claims).await?;
    state
        .sessions
        .revoke_token(&claims.blacklist_key, ttl)
        .await?;
    Ok(())
}

async fn blacklist_ttl(
    state: &ApiState,
    settings: &Reloadable,
    claims: &Claims,
) -> Result<Duration, Rejection> {
    let leeway = settings.tokens.leeway;
    let now: Millis = state.sessions.now().await?;
    let left = Duration::from_millis(claims.expires_at.saturating_sub(now)) + leeway;
    // One second more: stores round down, and a token that outlives its entry would be valid again.
    Ok(left + Duration::from_secs(1))
}

/// The caller of an endpoint that ends sessions. If an earlier attempt ended its own session without
/// confirmation, the end is confirmed before the caller is rejected.
pub(super) struct SignOutCaller(pub(super) AuthenticatedCaller);

impl FromRequestParts<ApiState> for SignOutCaller {
    type Rejection = Rejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &ApiState,
    ) -> Result<SignOutCaller, Rejection> {
        match AuthenticatedCaller::from_request_parts(parts, state).await {
            Ok(caller) => Ok(SignOutCaller(caller)),
            Err(rejected) => {
                ensure_ended(parts, state, &rejected).await?;
                Err(rejected)
            }
        }
    }
}

async fn ensure_ended(
    parts: &Parts,
    state: &ApiState,
    rejection: &Rejection,
) -> Result<(), Rejection> {
    if !state.sessions.ends_may_be_partial() {
        return Ok(());
    }
    let extensions = &parts.extensions;
    let (Some(client), Some(snapshot)) = (
        extensions.get::<Client>(),
        extensions.get::<Arc<Snapshot>>(),
    ) else {
        return Ok(());
    };
    let settings = &snapshot.settings;
    let presented = presented_credential(&parts.headers, settings);
    if matches!(presented, PresentedCredential::Cookie(_))
        && !is_allowed_origin(settings, client, &parts.headers)
    {
        return Ok(());
    }
    let lapsed = rejection.lapsed_claims.as_ref();
    let was_ended = match rejection.refusal {
        Refusal::SessionRevoked => true,
        // A session survives the revocation of a single token.
        Refusal::TokenRevoked => lapsed.is_some_and(|it| it.session.is_none()),
        _ => false,
    };
    match PresentedSession::from_rejection(rejection, &presented).filter(|_| was_ended) {
        Some(session) => session.end(state, settings, client).await,
        None => Ok(()),
    }
}

/// The session that a session token identifies.
fn session_id_of(presented: &PresentedCredential<'_>) -> Option<SessionId> {
    match presented {
        PresentedCredential::Cookie(token) | PresentedCredential::Session(token) => {
            Some(token.id())
        }
        _ => None,
    }
}

/// Whether a credential was rejected because its session or token has ended.
fn is_ended(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::SessionNotFound
            | Refusal::SessionExpired
            | Refusal::SessionRevoked
            | Refusal::TokenRevoked
    )
}
