//! Sign-out from one session or all.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::BodyFields;
use super::caller::{
    presented_credential, reject_credential, reject_cross_site, require_allowed_origin,
};
use super::oidc::sign_out::ProviderSignOut;
use super::presented_session::{PresentedSession, SignOutCaller, blacklist};
use super::response::{self, clear_cookie};
use super::view::{Revoked, Success};
use super::{ApiState, Caller};
use crate::auth::credential::{CredentialType, PresentedCredential};
use crate::auth::session::EndReason;
use crate::pipeline::admission::CredentialKind;
use crate::pipeline::facts::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Reason, Refusal, Rejection};

/// Optional body of a sign-out.
#[derive(ToSchema)]
struct SignOut {
    /// A refresh token of the session to end.
    refresh_token: Option<String>,
}

/// A sign-out that may go on at the provider.
#[derive(Serialize, ToSchema)]
struct SignedOut {
    /// Where the browser ends the session at the provider; null: nowhere.
    logout_url: Option<String>,
}

/// Sign out
///
/// Ends the session of the credential, of an expired but genuine access token, or of the refresh
/// token in the body; revokes the access token; clears the cookie. Succeeds if the session has
/// already ended. A sign-out that cannot be confirmed is a 503, and so is every repetition until it
/// can.
#[utoipa::path(
    post,
    path = "/auth/logout",
    tag = "auth",
    params(("provider" = Option<bool>, Query, description = "Whether to return the address of the sign-out at the provider")),
    request_body = Option<SignOut>,
    responses(
        (status = 200, description = "Signed out, with `provider=true`", body = Success<SignedOut>),
        (status = 204, description = "Signed out"),
    ),
)]
pub(super) async fn sign_out(
    State(state): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = reject_cross_site(&state, settings, &client, request)?;
    let presented = presented_credential(&parts.headers, settings);
    let by_cookie = matches!(
        presented,
        PresentedCredential::Cookie(_) | PresentedCredential::MalformedCookie
    );
    let session = match caller.map_or(Ok(None), |Extension(Caller(found))| found) {
        Ok(Some(identity)) if identity.credential_kind == CredentialKind::ApiKey => {
            return Err(Rejection::new(Refusal::Forbidden, Reason::ApiKeyChange));
        }
        Ok(identity) => identity.as_ref().map(PresentedSession::from_identity),
        Err(rejection) if rejection.credential == Some(CredentialType::ApiKey) => {
            return Err(rejection);
        }
        Err(rejection) => match PresentedSession::from_rejection(&rejection, &presented) {
            None => return Err(reject_credential(rejection, settings, &parts.headers)),
            ended => ended,
        },
    };
    if by_cookie {
        require_allowed_origin(&state, settings, &client, &parts.headers)?;
    }
    let mut fields = BodyFields::read_optional(&parts.headers, body).await?;
    let request_body = SignOut {
        refresh_token: fields.optional_text("refresh_token"),
    };
    fields.check()?;
    let at_provider = is_at_provider(&parts.uri)?;
    let presented = session.as_ref().filter(|_| at_provider);
    let provider = ProviderSignOut::prepare(&state, &snapshot, presented).await;
    if let Some(session) = session {
        session.end(&state, settings, &client).await?;
    }
    if let Some(token) = request_body.refresh_token {
        state
            .accounts
            .sign_out_with_refresh(settings, &token, Some(client.ip))
            .await?;
    }
    if !at_provider {
        return Ok(clear_cookie(response::no_content()));
    }
    let logout_url = provider.and_then(|provider| provider.url(settings, &client));
    Ok(clear_cookie(response::data(&SignedOut { logout_url })))
}

/// Whether the caller asks for the sign-out at the provider. Other parameters are ignored.
fn is_at_provider(uri: &Uri) -> Result<bool, Rejection> {
    let query = uri.query().unwrap_or_default();
    let parameters = url::form_urlencoded::parse(query.as_bytes());
    let mut values = parameters.filter(|(name, _)| name == "provider");
    match (
        values.next().as_ref().map(|(_, value)| &**value),
        values.next(),
    ) {
        (None, _) | (Some("false"), None) => Ok(false),
        (Some("true"), None) => Ok(true),
        (Some(_), _) => Err(Rejection::invalid_field(
            "provider",
            "must be true or false",
        )),
    }
}

/// Sign out everywhere
///
/// Ends all sessions of the caller, including the current one, and revokes every token without a
/// session that was issued to them so far.
#[utoipa::path(
    post,
    path = "/auth/logout-all",
    tag = "auth",
    responses((status = 200, description = "Number of active sessions that were ended", body = Success<Revoked>)),
)]
pub(super) async fn sign_out_everywhere(
    State(state): State<ApiState>,
    SignOutCaller(caller): SignOutCaller,
) -> Result<Response, Rejection> {
    let settings = caller.settings();
    let idle = settings.sessions.idle_timeout;
    let (reason, by) = (EndReason::SignOutEverywhere, Some(caller.client.ip));
    let accounts = &state.accounts;
    // The caller's own session ends last: until all others have ended, it can repeat the request.
    let mut revoked = accounts
        .end_user_sessions(&caller.user_key(), caller.session_id(), reason, by, idle)
        .await?;
    state
        .sessions
        .revoke_user_tokens(&caller.user_key())
        .await?;
    if let Some(own) = caller.identity.session() {
        revoked += usize::from(accounts.end_session(own, reason, by, idle).await?);
    }
    if let Some(token) = &caller.identity.token {
        blacklist(&state, settings, &caller.client, token).await?;
    }
    Ok(clear_cookie(response::data(&Revoked { revoked })))
}
