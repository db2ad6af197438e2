//! The caller's own sessions: list, show, end one, end the others.

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

/// List
///
/// The caller's sessions, newest first.
#[utoipa::path(
    get,
    path = "/sessions",
    tag = "sessions",
    params(
        ("status" = Option<String>, Query, pattern = "^(active|revoked|expired|all)?$", description = "Those that stand so; `active` if not said"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "20 if not said"),
        ("cursor" = Option<String>, Query, pattern = "^([0-9]{16}:[0-9a-f]{64})?$", description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page of sessions", body = Success<SessionsView>)),
)]
pub(super) async fn list(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
    uri: Uri,
) -> Result<Response, Rejection> {
    let mut query = QueryParams::parse(&uri);
    let (limit, status) = (query.limit() as usize, query.status());
    let cursor = query.cursor(Store::parse_user_cursor);
    query.check()?;
    let sight = view_context(&desk, &person).await?;
    let wanted = SessionListQuery {
        status,
        address: None,
        idle: sight.idle,
        limit,
        cursor: cursor.as_deref(),
    };
    let page = desk.sessions.list(&person.user_key(), wanted).await?;
    Ok(response::data(&view::sessions(&page, &sight)))
}

/// The current one
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
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let id = current_session_id(&person)?;
    show_session(&desk, &person, id).await
}

/// One of them
#[utoipa::path(
    get,
    path = "/sessions/{id}",
    tag = "sessions",
    params(("id" = String, Path, pattern = "^[0-9a-f]{64}$", description = "Of one of the caller's sessions")),
    responses(
        (status = 200, description = "The session", body = Success<SessionView>),
        (status = 404, description = "The caller has no such session"),
    ),
)]
pub(super) async fn show(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
    Path(id): Path<String>,
) -> Result<Response, Rejection> {
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    show_session(&desk, &person, id).await
}

/// End the current one
///
/// Unlike signing out it leaves the cookie where it is.
#[utoipa::path(
    delete,
    path = "/sessions/current",
    tag = "sessions",
    responses(
        (status = 204, description = "It is over"),
        (status = 404, description = "The credential has no session"),
    ),
)]
pub(super) async fn end_current(
    State(desk): State<ApiState>,
    SignOutCaller(person): SignOutCaller,
) -> Result<Response, Rejection> {
    let id = current_session_id(&person)?;
    end_session(&desk, &person, id).await
}

/// End one
///
/// Also where it was over already.
#[utoipa::path(
    delete,
    path = "/sessions/{id}",
    tag = "sessions",
    params(("id" = String, Path, pattern = "^[0-9a-f]{64}$", description = "Of one of the caller's sessions")),
    responses(
        (status = 204, description = "It is over"),
        (status = 404, description = "The caller has no such session"),
    ),
)]
pub(super) async fn end(
    State(desk): State<ApiState>,
    SignOutCaller(person): SignOutCaller,
    Path(id): Path<String>,
) -> Result<Response, Rejection> {
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    end_session(&desk, &person, id).await
}

/// End the others
///
/// Ends all but the current one.
#[utoipa::path(
    delete,
    path = "/sessions",
    tag = "sessions",
    responses((status = 200, description = "How many were alive", body = Success<Revoked>)),
)]
pub(super) async fn end_others(
    State(desk): State<ApiState>,
    SignOutCaller(person): SignOutCaller,
) -> Result<Response, Rejection> {
    let by = Some(person.client.ip);
    let revoked = desk
        .accounts
        .end_user_sessions(
            &person.user_key(),
            person.session_id(),
            EndReason::Terminated,
            by,
            person.settings().sessions.idle_timeout,
        )
        .await?;
    Ok(response::data(&Revoked { revoked }))
}

/// The session of the credential.
pub(super) fn current_session_id(person: &AuthenticatedCaller) -> Result<SessionId, Rejection> {
    person.session_id().ok_or(Refusal::NotFound.into())
}

async fn show_session(
    desk: &ApiState,
    person: &AuthenticatedCaller,
    id: SessionId,
) -> Result<Response, Rejection> {
    let entry = desk
        .sessions
        .find(id)
        .await?
        .filter(|entry| entry.session.user == person.user_key())
        .ok_or(Refusal::NotFound)?;
    session_response(desk, person, &entry).await
}

/// Answers with a session as the caller sees it.
pub(super) async fn session_response(
    desk: &ApiState,
    person: &AuthenticatedCaller,
    entry: &SessionEntry,
) -> Result<Response, Rejection> {
    let sight = view_context(desk, person).await?;
    Ok(response::data(&view::session(entry, &sight)))
}

async fn end_session(
    desk: &ApiState,
    person: &AuthenticatedCaller,
    id: SessionId,
) -> Result<Response, Rejection> {
    let by = Some(person.client.ip);
    let idle = person.settings().sessions.idle_timeout;
    desk.accounts
        .terminate(&person.user_key(), id, by, idle)
        .await?;
    Ok(response::no_content())
}

async fn view_context(
    desk: &ApiState,
    person: &AuthenticatedCaller,
) -> Result<ViewContext, Rejection> {
    Ok(ViewContext {
        idle: person.settings().sessions.idle_timeout,
        now: desk.sessions.now().await?,
        current: person.session_id(),
        count_open_streams: desk.count_open_streams.clone(),
    })
}
