//! Sign out, here or everywhere.

use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::header;
use utoipa::ToSchema;

use crate::admission::{Client, Identity};
use crate::credential::{self, Presented};
use crate::refusal::Refusal;
use crate::session::SessionId;
use crate::session::{EndReason, Millis};
use crate::settings::Live;
use crate::token::Claims;

use super::answer::{self, Refused};
use super::auth::from_here;
use super::body::Fields;
use super::caller::{Person, must_be_same_origin, refuse};
use super::view::{Revoked, Success};
use super::{Caller, Desk, LapsedClaims};

/// What signing out may take.
#[derive(ToSchema)]
struct SignOut {
    /// One of the session that is to end.
    refresh_token: Option<String>,
}

/// Sign out
///
/// Ends the session of the credential, of an expired but genuine access token, or of the refresh
/// token in the body; refuses the access token from now on; clears the cookie. Also where all of it
/// was gone already.
#[utoipa::path(
    post,
    path = "/auth/logout",
    tag = "auth",
    request_body = Option<SignOut>,
    responses((status = 204, description = "Signed out")),
    security((), ("bearer" = []), ("session" = []), ("cookie" = [])),
)]
pub(super) async fn sign_out(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    lapsed: Option<Extension<LapsedClaims>>,
    request: Request,
) -> Result<Response, Refused> {
    let live = desk.live.load_full();
    let (parts, body) = from_here(&desk, &live, &client, request)?;
    let lapsed = lapsed.map(|Extension(LapsedClaims(claims))| claims);
    let to_end = lapsed.as_ref().and_then(|claims| claims.session);
    let identity = match caller.map_or(Ok(None), |Extension(Caller(found))| found) {
        Ok(identity) => identity,
        // A token that may be revoked is good enough to end its session by. Without a session it has
        // to be blacklisted: in the database, where that is enough.
        Err(refusal @ Refusal::StoreUnavailable) if to_end.is_none() => {
            match lapsed.as_ref().filter(|_| desk.accounts.is_durable()) {
                Some(claims) => blacklist(&desk, &client, claims).await?,
                None => return Err(refuse(refusal, &live, &parts.headers)),
            }
            None
        }
        Err(refusal) if is_gone(refusal) || lapsed.is_some() => None,
        Err(refusal) => return Err(refuse(refusal, &live, &parts.headers)),
    };
    let presented = credential::extract(&parts.headers, &live.sessions.cookie.name);
    let by_cookie = matches!(presented, Presented::Cookie(_) | Presented::MalformedCookie);
    let ended = session_of(&presented).filter(|_| identity.is_none());
    if by_cookie {
        must_be_same_origin(&desk, &live, &client, &parts.headers)?;
    }
    let mut fields = Fields::read_optional(&parts.headers, body).await?;
    let typed = SignOut {
        refresh_token: fields.optional_text("refresh_token"),
    };
    fields.check()?;
    if let Some(identity) = &identity {
        leave(&desk, &client, identity, live.sessions.idle_timeout).await?;
    }
    let idle = live.sessions.idle_timeout;
    if let Some(session) = ended.filter(|_| desk.store.wants_replicas()) {
        // Whoever tries again hears only now that it is done, if it is.
        desk.accounts
            .sign_out(session, None, Some(client.ip), idle)
            .await?;
    }
    if let (Some(claims), Some(session)) = (lapsed, to_end) {
        desk.accounts
            .sign_out(session, Some(&claims.user), Some(client.ip), idle)
            .await?;
    }
    if let Some(token) = typed.refresh_token {
        desk.accounts
            .sign_out_by_refresh(&live, &token, Some(client.ip))
            .await?;
    }
    Ok(without_cookies(&live))
}

/// The session that a session token names.
fn session_of(presented: &Presented<'_>) -> Option<SessionId> {
    match presented {
        Presented::Cookie(token) | Presented::Session(token) => Some(token.id()),
        _ => None,
    }
}

/// Says that it is done, and takes the session cookie away.
fn without_cookies(live: &Live) -> Response {
    let mut response = answer::nothing();
    for cookie in credential::clearing_cookies(&live.sessions.cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Ends what the caller signed in with: the session, and the access token even if it has none.
pub(super) async fn leave(
    desk: &Desk,
    client: &Client,
    identity: &Identity,
    idle: Option<Duration>,
) -> Result<(), Refused> {
    // The session first: with a token that is refused already nobody could ask for it again.
    if let Some(session) = identity.session() {
        desk.accounts
            .sign_out(session.id, None, Some(client.ip), idle)
            .await?;
    }
    if let Some(token) = &identity.token {
        let refused = blacklist(desk, client, token).await;
        // A session in the database stands for its tokens: no store is trusted before it has heard
        // of the end.
        if identity.session().is_none() || !desk.accounts.is_durable() {
            refused?;
        }
    }
    Ok(())
}

async fn blacklist(desk: &Desk, client: &Client, claims: &Claims) -> Result<(), Refused> {
    let live = desk.live.load();
    let leeway = live.tokens.leeway;
    let now: Millis = desk.accounts.now().await?;
    let left = Duration::from_millis(claims.expires_at.saturating_sub(now)) + leeway;
    // A second more: stores round down, and a token outliving its refusal would be valid again.
    let ttl = left + Duration::from_secs(1);
    desk.accounts
        .blacklist(&claims.blacklist_key, ttl, Some(client.ip))
        .await?;
    Ok(())
}

/// The session is over already: nothing is left to sign out from.
fn is_gone(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::SessionNotFound
            | Refusal::SessionExpired
            | Refusal::SessionRevoked
            | Refusal::TokenRevoked
    )
}

/// Sign out everywhere
///
/// Ends all sessions of the caller, this one too, and refuses every token without a session that was
/// issued to them up to now.
#[utoipa::path(
    post,
    path = "/auth/logout-all",
    tag = "auth",
    responses((status = 200, description = "How many sessions were alive", body = Success<Revoked>)),
)]
pub(super) async fn sign_out_everywhere(
    State(desk): State<Desk>,
    person: Person,
) -> Result<Response, Refused> {
    let live = desk.live.load_full();
    let idle = live.sessions.idle_timeout;
    let (reason, by) = (EndReason::SignOutEverywhere, Some(person.client.ip));
    let accounts = &desk.accounts;
    let mut revoked = accounts
        .end_sessions_of(&person.key(), None, reason, by, idle)
        .await?;
    if let Some(own) = person.identity.session() {
        // The list of them may have been lost; this one is known.
        revoked += usize::from(accounts.end_session(own, reason, by, idle).await?);
    }
    accounts.cut_off(&person.key()).await?;
    if let Some(token) = &person.identity.token {
        blacklist(&desk, &person.client, token).await?;
    }
    let mut response = answer::data(&Revoked { revoked });
    for cookie in credential::clearing_cookies(&live.sessions.cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
