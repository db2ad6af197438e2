//! Sign out, here or everywhere.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use utoipa::ToSchema;

use super::auth::reject_cross_site;
use super::body::BodyFields;
use super::caller::{reject_credential, require_allowed_origin};
use super::presented_session::{PresentedSession, SignOutCaller, blacklist};
use super::response::{self, clear_cookie};
use super::view::{Revoked, Success};
use super::{ApiState, Caller};
use crate::auth::credential;
use crate::auth::credential::PresentedCredential;
use crate::auth::session::EndReason;
use crate::pipeline::admission::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::Rejection;

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
/// was gone already. A sign-out that cannot be ensured is a 503, and so is every further attempt until
/// it can.
#[utoipa::path(
    post,
    path = "/auth/logout",
    tag = "auth",
    request_body = Option<SignOut>,
    responses((status = 204, description = "Signed out")),
)]
pub(super) async fn sign_out(
    State(desk): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = reject_cross_site(&desk, settings, &client, request)?;
    let presented = credential::extract(&parts.headers, &settings.sessions.cookie.name);
    let by_cookie = matches!(
        presented,
        PresentedCredential::Cookie(_) | PresentedCredential::MalformedCookie
    );
    let leaving = match caller.map_or(Ok(None), |Extension(Caller(found))| found) {
        Ok(identity) => identity.as_ref().map(PresentedSession::from_identity),
        Err(rejection) => match PresentedSession::from_rejection(&rejection, &presented) {
            None => return Err(reject_credential(rejection, settings, &parts.headers)),
            ended => ended,
        },
    };
    if by_cookie {
        require_allowed_origin(&desk, settings, &client, &parts.headers)?;
    }
    let mut fields = BodyFields::read_optional(&parts.headers, body).await?;
    let typed = SignOut {
        refresh_token: fields.optional_text("refresh_token"),
    };
    fields.check()?;
    if let Some(leaving) = leaving {
        leaving.end(&desk, settings, &client).await?;
    }
    if let Some(token) = typed.refresh_token {
        desk.accounts
            .sign_out_with_refresh(settings, &token, Some(client.ip))
            .await?;
    }
    Ok(clear_cookie(response::no_content()))
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
    State(desk): State<ApiState>,
    SignOutCaller(person): SignOutCaller,
) -> Result<Response, Rejection> {
    let settings = person.settings();
    let idle = settings.sessions.idle_timeout;
    let (reason, by) = (EndReason::SignOutEverywhere, Some(person.client.ip));
    let accounts = &desk.accounts;
    // The caller's own session ends last: until everything else is ensured, it can ask again.
    let mut revoked = accounts
        .end_user_sessions(&person.user_key(), person.session_id(), reason, by, idle)
        .await?;
    desk.sessions.revoke_user_tokens(&person.user_key()).await?;
    if let Some(own) = person.identity.session() {
        revoked += usize::from(accounts.end_session(own, reason, by, idle).await?);
    }
    if let Some(token) = &person.identity.token {
        blacklist(&desk, settings, &person.client, token).await?;
    }
    Ok(clear_cookie(response::data(&Revoked { revoked })))
}
