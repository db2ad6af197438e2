//! What a caller signs out from: the session and the token that its credential names, also where they
//! have ended already. An end that could not be ensured before is ensured by the next attempt.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::answer::Refused;
use super::caller::{Person, is_same_origin};
use super::{Desk, LapsedClaims};
use crate::auth::credential;
use crate::auth::credential::Presented;
use crate::auth::session::{Millis, SessionId};
use crate::auth::token::Claims;
use crate::pipeline::admission::{Client, Identity};
use crate::refusal::Refusal;

/// The session and the token to end.
pub(super) struct Leaving {
    session: Option<SessionId>,
    /// The user to whom the session must belong, where a token names both.
    user: Option<String>,
    token: Option<Arc<Claims>>,
    /// The token was revoked before, perhaps together with all others of its user.
    is_repeated: bool,
}

impl Leaving {
    /// What a valid credential stands for.
    pub(super) fn of(identity: &Identity) -> Leaving {
        Leaving {
            session: identity.session().map(|session| session.id),
            user: None,
            token: identity.token.clone(),
            is_repeated: false,
        }
    }

    /// What a rejected credential stood for. `None`: it was rejected because it is wrong, or unknown.
    pub(super) fn after(
        refusal: Refusal,
        lapsed: Option<Arc<Claims>>,
        presented: &Presented<'_>,
    ) -> Option<Leaving> {
        if let Some(claims) = lapsed {
            let alone = claims.session.is_none() && refusal != Refusal::TokenExpired;
            return Some(Leaving {
                session: claims.session,
                user: Some(claims.user.clone()),
                token: alone.then_some(claims),
                is_repeated: refusal == Refusal::TokenRevoked,
            });
        }
        is_gone(refusal).then(|| Leaving {
            session: session_of(presented),
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
        desk: &Desk,
        client: &Client,
        idle: Option<Duration>,
    ) -> Result<(), Refused> {
        let (accounts, by) = (&desk.accounts, Some(client.ip));
        // The session first: a token that is revoked already could not ask for it again.
        if let Some(id) = self.session {
            let user = self.user.as_deref();
            accounts.sign_out(id, user, by, idle).await?;
        }
        let Some(token) = &self.token else {
            return Ok(());
        };
        let revoked = match self.is_repeated {
            true => ensure_revoked(desk, token).await,
            false => blacklist(desk, client, token).await,
        };
        // A durable session stands for its tokens: no store is trusted before it has the end.
        if self.session.is_none() || !accounts.is_durable() {
            revoked?;
        }
        Ok(())
    }
}

/// Revokes a token for the rest of its life.
pub(super) async fn blacklist(
    desk: &Desk,
    client: &Client,
    claims: &Claims,
) -> Result<(), Refused> {
    let ttl = blacklisted_for(desk, claims).await?;
    desk.accounts
        .blacklist(&claims.blacklist_key, ttl, Some(client.ip))
        .await?;
    Ok(())
}

/// Ensures what an earlier attempt revoked. It is no event: a revoked token, which anyone may have, would
/// fill the journal.
async fn ensure_revoked(desk: &Desk, claims: &Claims) -> Result<(), Refused> {
    desk.accounts.ensure_cut_off(&claims.person()).await?;
    let ttl = blacklisted_for(desk, claims).await?;
    desk.accounts
        .refuse_token(&claims.blacklist_key, ttl)
        .await?;
    Ok(())
}

async fn blacklisted_for(desk: &Desk, claims: &Claims) -> Result<Duration, Refused> {
    let leeway = desk.live.load().tokens.leeway;
    let now: Millis = desk.accounts.now().await?;
    let left = Duration::from_millis(claims.expires_at.saturating_sub(now)) + leeway;
    // A second more: stores round down, and a token outliving its entry would be valid again.
    Ok(left + Duration::from_secs(1))
}

/// The caller of an endpoint that ends sessions. Its own session may be among those that an earlier
/// attempt ended without being able to ensure it: then that is ensured before the caller is rejected.
pub(super) struct Leaver(pub(super) Person);

impl FromRequestParts<Desk> for Leaver {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Leaver, Refused> {
        match Person::from_request_parts(parts, desk).await {
            Ok(person) => Ok(Leaver(person)),
            Err(rejected) => {
                ensure_ended(parts, desk, rejected.refusal).await?;
                Err(rejected)
            }
        }
    }
}

async fn ensure_ended(parts: &Parts, desk: &Desk, refusal: Refusal) -> Result<(), Refused> {
    if !desk.store.wants_replicas() && !desk.accounts.is_durable() {
        return Ok(());
    }
    let live = desk.live.load_full();
    let Some(client) = parts.extensions.get::<Client>() else {
        return Ok(());
    };
    let presented = credential::extract(&parts.headers, &live.sessions.cookie.name);
    if matches!(presented, Presented::Cookie(_)) && !is_same_origin(&live, client, &parts.headers) {
        return Ok(());
    }
    let lapsed = parts.extensions.get::<LapsedClaims>();
    let lapsed = lapsed.map(|LapsedClaims(claims)| Arc::clone(claims));
    let was_ended = match refusal {
        Refusal::SessionRevoked => true,
        // A session outlives a token of it that was revoked alone.
        Refusal::TokenRevoked => lapsed.as_ref().is_some_and(|it| it.session.is_none()),
        _ => false,
    };
    match Leaving::after(refusal, lapsed, &presented).filter(|_| was_ended) {
        Some(leaving) => leaving.end(desk, client, live.sessions.idle_timeout).await,
        None => Ok(()),
    }
}

/// The session that a session token names.
fn session_of(presented: &Presented<'_>) -> Option<SessionId> {
    match presented {
        Presented::Cookie(token) | Presented::Session(token) => Some(token.id()),
        _ => None,
    }
}

/// Whether a credential was rejected because what it stands for is over.
fn is_gone(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::SessionNotFound
            | Refusal::SessionExpired
            | Refusal::SessionRevoked
            | Refusal::TokenRevoked
    )
}
