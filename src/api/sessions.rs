//! The caller's own sessions: list, show and end them.

use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;

use super::ApiState;
use super::caller::AuthenticatedCaller;
use super::presented_session::SignOutCaller;
use super::query::QueryParams;
use super::response;
use super::view::{self, Revoked, SessionView, SessionsView, Success, ViewContext};
use crate::auth::session::{EndReason, SessionId};
use crate::rejection::{Refusal, Rejection};
use crate::store::{SessionEntry, SessionListQuery, Store};

/// List sessions
///
/// The caller's sessions, newest first.
#[utoipa::path(
    get,
    path = "/sessions",
    tag = "sessions",
    params(
        ("status" = Option<String>, Query, pattern = "^(active|revoked|expired|all)?$", description = "Sessions with this status; `active` by default"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Page size; 20 by default"),
        ("cursor" = Option<String>, Query, pattern = "^([0-9]{16}:[0-9a-f]{64})?$", description = "`next_cursor` of the previous page"),
    ),
    responses((status = 200, description = "A page of sessions", body = Success<SessionsView>)),
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    uri: Uri,
) -> Result<Response, Rejection> {
    let mut query = QueryParams::parse(&uri);
    let (limit, status) = (query.limit() as usize, query.status());
    let cursor = query.cursor(Store::parse_user_cursor);
    query.check()?;
    let context = view_context(&state, &caller).await?;
    let wanted = SessionListQuery {
        status,
        address: None,
        idle: context.idle,
        limit,
        cursor: cursor.as_deref(),
    };
    let page = state.sessions.list(&caller.user_key(), wanted).await?;
    Ok(response::data(&view::sessions(&page, &context)))
}

/// Get the current session
#[utoipa::path(
    get,
    path = "/sessions/current",
    tag = "sessions",
    responses(
        (status = 200, description = "The session of the credential", body = Success<SessionView>),
        (status = 404, description = "The credential has no session"),
    ),
)]
pub(super) async fn show_current(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let id = current_session_id(&caller)?;
    show_session(&state, &caller, id).await
}

/// Get a session
#[utoipa::path(
    get,
    path = "/sessions/{id}",
    tag = "sessions",
    params(("id" = String, Path, pattern = "^[0-9a-f]{64}$", description = "ID of one of the caller's sessions")),
    responses(
        (status = 200, description = "The session", body = Success<SessionView>),
        (status = 404, description = "The caller has no such session"),
    ),
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    Path(id): Path<String>,
) -> Result<Response, Rejection> {
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    show_session(&state, &caller, id).await
}

/// End the current session
///
/// Unlike sign-out, this leaves the cookie in place.
#[utoipa::path(
    delete,
    path = "/sessions/current",
    tag = "sessions",
    responses(
        (status = 204, description = "The session has ended"),
        (status = 404, description = "The credential has no session"),
    ),
)]
pub(super) async fn end_current(
    State(state): State<ApiState>,
    SignOutCaller(caller): SignOutCaller,
) -> Result<Response, Rejection> {
    let id = current_session_id(&caller)?;
    end_session(&state, &caller, id).await
}

/// End a session
///
/// Succeeds for a session that has already ended.
#[utoipa::path(
    delete,
    path = "/sessions/{id}",
    tag = "sessions",
    params(("id" = String, Path, pattern = "^[0-9a-f]{64}$", description = "ID of one of the caller's sessions")),
    responses(
        (status = 204, description = "The session has ended"),
        (status = 404, description = "The caller has no such session"),
    ),
)]
pub(super) async fn end(
    State(state): State<ApiState>,
    SignOutCaller(caller): SignOutCaller,
    Path(id): Path<String>,
) -> Result<Response, Rejection> {
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    end_session(&state, &caller, id).await
}

/// End other sessions
///
/// Ends all sessions but the current one.
#[utoipa::path(
    delete,
    path = "/sessions",
    tag = "sessions",
    responses((status = 200, description = "Number of active sessions that were ended", body = Success<Revoked>)),
)]
pub(super) async fn end_others(
    State(state): State<ApiState>,
    SignOutCaller(caller): SignOutCaller,
) -> Result<Response, Rejection> {
    let by = Some(caller.client.ip);
    let revoked = state
        .accounts
        .end_user_sessions(
            &caller.user_key(),
            caller.session_id(),
            EndReason::Terminated,
            by,
            caller.settings().sessions.idle_timeout,
        )
        .await?;
    Ok(response::data(&Revoked { revoked }))
}

/// Returns the session of the credential.
pub(super) fn current_session_id(caller: &AuthenticatedCaller) -> Result<SessionId, Rejection> {
    caller.session_id().ok_or(Refusal::NotFound.into())
}

async fn show_session(
    state: &ApiState,
    caller: &AuthenticatedCaller,
    id: SessionId,
) -> Result<Response, Rejection> {
    let entry = state
        .sessions
        .find(id)
        .await?
        .filter(|entry| entry.session.user == caller.user_key())
        .ok_or(Refusal::NotFound)?;
    session_response(state, caller, &entry).await
}

/// Renders a session as its owner sees it.
pub(super) async fn session_response(
    state: &ApiState,
    caller: &AuthenticatedCaller,
    entry: &SessionEntry,
) -> Result<Response, Rejection> {
    let context = view_context(state, caller).await?;
    Ok(response::data(&view::session(entry, &context)))
}

async fn end_session(
    state: &ApiState,
    caller: &AuthenticatedCaller,
    id: SessionId,
) -> Result<Response, Rejection> {
    let by = Some(caller.client.ip);
    let idle = caller.settings().sessions.idle_timeout;
    state
        .accounts
        .terminate(&caller.user_key(), id, by, idle)
        .await?;
    Ok(response::no_content())
}

async fn view_context(
    state: &ApiState,
    caller: &AuthenticatedCaller,
) -> Result<ViewContext, Rejection> {
    Ok(ViewContext {
        idle: caller.settings().sessions.idle_timeout,
        now: state.sessions.now().await?,
        current: caller.session_id(),
        count_open_streams: state.count_open_streams.clone(),
    })
}
