//! The caller's own sessions: list, show, end one, end the others.

use std::time::Duration;

use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, Uri};
use serde_json::json;

use crate::admission::{Client, Identity};
use crate::credential::{self, Presented};
use crate::refusal::Refusal;
use crate::session::{EndReason, SessionId};
use crate::store::{Entry, Store, Wanted};

use super::answer::{self, Refused};
use super::auth;
use super::query::Query;
use super::view::{self, Sight};
use super::{Caller, Desk};

/// `GET sessions?status=&limit=&cursor=`: newest first, the active ones if not said.
pub(super) async fn list(
    State(desk): State<Desk>,
    caller: Option<Extension<Caller>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let identity = identify(&desk, caller, &headers)?;
    let mut query = Query::read(&uri);
    let (limit, status) = (query.limit() as usize, query.status());
    let cursor = query.cursor(Store::is_cursor_of_user);
    query.check()?;
    let sight = sight(&desk, &identity).await?;
    let wanted = Wanted {
        status,
        address: None,
        idle: sight.idle,
        limit,
        cursor: cursor.as_deref(),
    };
    let page = desk.store.sessions_of(&identity.user, wanted).await?;
    Ok(answer::data(&view::sessions(&page, &sight)))
}

/// `GET sessions/current` and `GET sessions/{id}`.
pub(super) async fn show(
    State(desk): State<Desk>,
    caller: Option<Extension<Caller>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let identity = identify(&desk, caller, &headers)?;
    let entry = own(&desk, &identity, &id).await?;
    let sight = sight(&desk, &identity).await?;
    Ok(answer::data(&view::session(&entry, &sight)))
}

/// `DELETE sessions/{id}`: 204, also for one that had ended.
pub(super) async fn end(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let identity = identify(&desk, caller, request.headers())?;
    auth::guard_change(&desk, &client, &identity, request.headers())?;
    let id = session_id(&identity, &id)?;
    desk.accounts
        .terminate(&identity.user, id, Some(client.ip), idle(&desk))
        .await?;
    Ok(answer::nothing())
}

/// `DELETE sessions`: ends all but the current one.
pub(super) async fn end_others(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Refused> {
    let identity = identify(&desk, caller, request.headers())?;
    auth::guard_change(&desk, &client, &identity, request.headers())?;
    let revoked = desk
        .accounts
        .end_sessions_of(
            &identity.user,
            current(&identity),
            EndReason::Terminated,
            Some(client.ip),
            idle(&desk),
        )
        .await?;
    Ok(answer::data(&json!({"revoked": revoked})))
}

fn idle(desk: &Desk) -> Option<Duration> {
    desk.live.load().sessions.idle_timeout
}

/// The caller, who has to be somebody.
fn identify(
    desk: &Desk,
    caller: Option<Extension<Caller>>,
    headers: &HeaderMap,
) -> Result<Identity, Refused> {
    match caller.map_or(Ok(None), |Extension(Caller(found))| found) {
        Ok(Some(identity)) => Ok(identity),
        Ok(None) => Err(Refusal::Unauthenticated.into()),
        Err(refusal) => {
            let cookie = &desk.live.load().sessions.cookie.name;
            let gone = matches!(
                refusal,
                Refusal::SessionNotFound | Refusal::SessionExpired | Refusal::SessionRevoked
            );
            let by_cookie = || matches!(credential::extract(headers, cookie), Presented::Cookie(_));
            Err(Refused {
                clear_cookie: (gone && by_cookie()) || refusal == Refusal::AmbiguousCredentials,
                ..Refused::from(refusal)
            })
        }
    }
}

/// One of the caller's own sessions; anything else does not exist.
async fn own(desk: &Desk, identity: &Identity, id: &str) -> Result<Entry, Refused> {
    let id = session_id(identity, id)?;
    desk.store
        .session(id)
        .await?
        .filter(|entry| entry.session.user == identity.user)
        .ok_or(Refusal::NotFound.into())
}

fn session_id(identity: &Identity, text: &str) -> Result<SessionId, Refused> {
    let id = match text {
        "current" => current(identity),
        text => SessionId::parse(text),
    };
    id.ok_or(Refusal::NotFound.into())
}

fn current(identity: &Identity) -> Option<SessionId> {
    identity.session.as_ref().map(|session| session.id)
}

async fn sight(desk: &Desk, identity: &Identity) -> Result<Sight, Refused> {
    Ok(Sight {
        idle: idle(desk),
        now: desk.store.now().await?,
        current: current(identity),
        live_of: desk.live_of.clone(),
    })
}
