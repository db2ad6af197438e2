//! The caller's own sessions: list, show, end one, end the others.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use http::Uri;

use super::Desk;
use super::answer::{self, Refused};
use super::caller::Person;
use super::leaving::Leaver;
use super::query::Query;
use super::view::{self, Revoked, SessionView, SessionsView, Sight, Success};
use crate::auth::session::{EndReason, SessionId};
use crate::refusal::Refusal;
use crate::store::{Entry, Store, Wanted};

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
    State(desk): State<Desk>,
    person: Person,
    uri: Uri,
) -> Result<Response, Refused> {
    let mut query = Query::read(&uri);
    let (limit, status) = (query.limit() as usize, query.status());
    let cursor = query.cursor(Store::is_cursor_of_user);
    query.check()?;
    let sight = sight(&desk, &person).await?;
    let wanted = Wanted {
        status,
        address: None,
        idle: sight.idle,
        limit,
        cursor: cursor.as_deref(),
    };
    let page = desk.accounts.sessions_of(&person.key(), wanted).await?;
    Ok(answer::data(&view::sessions(&page, &sight)))
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
    State(desk): State<Desk>,
    person: Person,
) -> Result<Response, Refused> {
    let id = current(&person)?;
    shown(&desk, &person, id).await
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
    State(desk): State<Desk>,
    person: Person,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    shown(&desk, &person, id).await
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
    State(desk): State<Desk>,
    Leaver(person): Leaver,
) -> Result<Response, Refused> {
    let id = current(&person)?;
    ended(&desk, &person, id).await
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
    State(desk): State<Desk>,
    Leaver(person): Leaver,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    ended(&desk, &person, id).await
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
    State(desk): State<Desk>,
    Leaver(person): Leaver,
) -> Result<Response, Refused> {
    let by = Some(person.client.ip);
    let revoked = desk
        .accounts
        .end_sessions_of(
            &person.key(),
            person.session(),
            EndReason::Terminated,
            by,
            idle(&desk),
        )
        .await?;
    Ok(answer::data(&Revoked { revoked }))
}

/// The session of the credential.
pub(super) fn current(person: &Person) -> Result<SessionId, Refused> {
    person.session().ok_or(Refusal::NotFound.into())
}

async fn shown(desk: &Desk, person: &Person, id: SessionId) -> Result<Response, Refused> {
    let entry = desk
        .accounts
        .session(id)
        .await?
        .filter(|entry| entry.session.user == person.key())
        .ok_or(Refusal::NotFound)?;
    answer_with(desk, person, &entry).await
}

/// Answers with a session as the caller sees it.
pub(super) async fn answer_with(
    desk: &Desk,
    person: &Person,
    entry: &Entry,
) -> Result<Response, Refused> {
    let sight = sight(desk, person).await?;
    Ok(answer::data(&view::session(entry, &sight)))
}

async fn ended(desk: &Desk, person: &Person, id: SessionId) -> Result<Response, Refused> {
    let by = Some(person.client.ip);
    desk.accounts
        .terminate(&person.key(), id, by, idle(desk))
        .await?;
    Ok(answer::nothing())
}

/// The idle timeout.
pub(super) fn idle(desk: &Desk) -> Option<Duration> {
    desk.live.load().sessions.idle_timeout
}

async fn sight(desk: &Desk, person: &Person) -> Result<Sight, Refused> {
    Ok(Sight {
        idle: idle(desk),
        now: desk.accounts.now().await?,
        current: person.session(),
        live_of: desk.live_of.clone(),
    })
}
