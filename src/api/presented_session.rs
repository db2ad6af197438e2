//! What a caller signs out from: the session and the token that its credential names, also where they
//! have ended already. An end that could not be ensured before is ensured by the next attempt.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::ApiState;
use super::caller::{AuthenticatedCaller, is_allowed_origin};
use crate::auth::credential;
use crate::auth::credential::PresentedCredential;
use crate::auth::session::{Millis, SessionId};
use crate::auth::token::Claims;
use crate::pipeline::admission::{Client, Identity};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::Reloadable;

/// The session and the token to end.
pub(super) struct PresentedSession {
    session: Option<SessionId>,
    /// The user to whom the session must belong, where a token names both.
    user: Option<String>,
    token: Option<Arc<Claims>>,
    /// The token was revoked before, perhaps together with all others of its user.
    is_repeated: bool,
}

impl PresentedSession {
    /// What a valid credential stands for.
    pub(super) fn from_identity(identity: &Identity) -> PresentedSession {
        PresentedSession {
            session: identity.session().map(|session| session.id),
            user: None,
            token: identity.token.clone(),
            is_repeated: false,
        }
    }

    /// What a rejected credential stood for. `None`: it was rejected because it is wrong, or unknown.
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

    /// Ends the session and revokes the token.
    ///
    /// # Errors
    /// When it cannot be ensured.
    pub(super) async fn end(
        &self,
        desk: &ApiState,
        settings: &Reloadable,
        client: &Client,
    ) -> Result<(), Rejection> {
        let by = Some(client.ip);
        // The session first: a token that is revoked already could not ask for it again.
        if let Some(id) = self.session {
            let user = self.user.as_deref();
            let idle = settings.sessions.idle_timeout;
            desk.accounts.sign_out(id, user, by, idle).await?;
        }
        let Some(token) = &self.token else {
            return Ok(());
        };
        let revoked = match self.is_repeated {
            true => ensure_revoked(desk, settings, token).await,
            false => blacklist(desk, settings, client, token).await,
        };
        // A durable session stands for its tokens: no store is trusted before it has the end.
        if self.session.is_none() || !desk.sessions.is_durable() {
            revoked?;
        }
        Ok(())
    }
}

/// Revokes a token for the rest of its life.
pub(super) async fn blacklist(
    desk: &ApiState,
    settings: &Reloadable,
    client: &Client,
    claims: &Claims,
) -> Result<(), Rejection> {
    let ttl = blacklist_ttl(desk, settings, claims).await?;
    desk.accounts
        .blacklist(&claims.blacklist_key, ttl, Some(client.ip))
        .await?;
    Ok(())
}

/// Ensures what an earlier attempt revoked. It is no event: a revoked token, which anyone may have, would
/// fill the journal.
async fn ensure_revoked(
    desk: &ApiState,
    settings: &Reloadable,
    claims: &Claims,
) -> Result<(), Rejection> {
    desk.sessions
        .ensure_user_tokens_revoked(&claims.user_key())
        .await?;
    let ttl = blacklist_ttl(desk, settings, claims).await?;
    desk.sessions
        .revoke_token(&claims.blacklist_key, ttl)
        .await?;
    Ok(())
}

async fn blacklist_ttl(
    desk: &ApiState,
    settings: &Reloadable,
    claims: &Claims,
) -> Result<Duration, Rejection> {
    let leeway = settings.tokens.leeway;
    let now: Millis = desk.sessions.now().await?;
    let left = Duration::from_millis(claims.expires_at.saturating_sub(now)) + leeway;
    // A second more: stores round down, and a token outliving its entry would be valid again.
    Ok(left + Duration::from_secs(1))
}

/// The caller of an endpoint that ends sessions. Its own session may be among those that an earlier
/// attempt ended without being able to ensure it: then that is ensured before the caller is rejected.
pub(super) struct SignOutCaller(pub(super) AuthenticatedCaller);

impl FromRequestParts<ApiState> for SignOutCaller {
    type Rejection = Rejection;

    async fn from_request_parts(
        parts: &mut Parts,
        desk: &ApiState,
    ) -> Result<SignOutCaller, Rejection> {
        match AuthenticatedCaller::from_request_parts(parts, desk).await {
            Ok(person) => Ok(SignOutCaller(person)),
            Err(rejected) => {
                ensure_ended(parts, desk, &rejected).await?;
                Err(rejected)
            }
        }
    }
}

async fn ensure_ended(
    parts: &Parts,
    desk: &ApiState,
    rejection: &Rejection,
) -> Result<(), Rejection> {
    if !desk.sessions.ends_may_be_partial() {
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
    let presented = credential::extract(&parts.headers, &settings.sessions.cookie.name);
    if matches!(presented, PresentedCredential::Cookie(_))
        && !is_allowed_origin(settings, client, &parts.headers)
    {
        return Ok(());
    }
    let lapsed = rejection.lapsed_claims.as_ref();
    let was_ended = match rejection.refusal {
        Refusal::SessionRevoked => true,
        // A session outlives a token of it that was revoked alone.
        Refusal::TokenRevoked => lapsed.is_some_and(|it| it.session.is_none()),
        _ => false,
    };
    match PresentedSession::from_rejection(rejection, &presented).filter(|_| was_ended) {
        Some(leaving) => leaving.end(desk, settings, client).await,
        None => Ok(()),
    }
}

/// The session that a session token names.
fn session_id_of(presented: &PresentedCredential<'_>) -> Option<SessionId> {
    match presented {
        PresentedCredential::Cookie(token) | PresentedCredential::Session(token) => {
            Some(token.id())
        }
        _ => None,
    }
}

/// Whether a credential was rejected because what it stands for is over.
fn is_ended(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::SessionNotFound
            | Refusal::SessionExpired
            | Refusal::SessionRevoked
            | Refusal::TokenRevoked
    )
}
