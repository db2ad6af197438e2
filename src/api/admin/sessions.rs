//! Sessions of all users.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Serialize;

use super::super::query::QueryParams;
use super::super::view::{self, SignedInView, ViewContext};
use super::super::{caller, response};
use super::AdminState;
use super::revocation::{revocation_response, waits_for_fleet};
use crate::auth::session::{Device, EndReason, SessionId};
use crate::events::{Event, EventKind};
use crate::identity::ClientInfo;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::Reloadable;
use crate::store::{SessionListQuery, Store};

/// `GET /admin/sessions?user=&ip=&status=&limit=&cursor=`: sessions of all users or of one, active
/// by default.
pub(super) async fn list(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    uri: Uri,
) -> Result<Response, Rejection> {
    let mut query = QueryParams::parse(&uri);
    let user = query.text("user");
    let address = query.parse_param("ip", "must be an IP address", |text| {
        text.parse()
            .ok()
            .map(|address: IpAddr| address.to_canonical())
    });
    let (limit, status) = (query.limit() as usize, query.status());
    let cursor = query.cursor(|text| match user {
        Some(_) => Store::parse_user_cursor(text),
        None => state.store.parse_cursor(text),
    });
    query.check()?;
    let context = view_context(&state, &snapshot.settings).await?;
    let wanted = SessionListQuery {
        status,
        address,
        idle: context.idle,
        limit,
        cursor: cursor.as_deref(),
    };
    let page = match &user {
        Some(user) => state.sessions.list(user, wanted).await?,
        None => state.sessions.list_all(wanted).await?,
    };
    Ok(response::data(&view::sessions(&page, &context)))
}

/// `GET /admin/sessions/{id}`: one session, whatever its status.
pub(super) async fn show(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path(id): Path<String>,
) -> Result<Response, Rejection> {
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    let entry = state.sessions.find(id).await?.ok_or(Refusal::NotFound)?;
    let context = view_context(&state, &snapshot.settings).await?;
    Ok(response::data(&view::session(&entry, &context)))
}

/// `DELETE /admin/sessions/{id}`.
pub(super) async fn end(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Rejection> {
    let waits = waits_for_fleet(&uri)?;
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    let entry = state.sessions.find(id).await?.ok_or(Refusal::NotFound)?;
    let idle = snapshot.settings.sessions.idle_timeout;
    let ended = state
        .accounts
        .end_session(&entry.session, EndReason::Admin, None, idle)
        .await?;
    revocation_response(&state, usize::from(ended), waits).await
}

/// `DELETE /admin/users/{id}/sessions`. The user need not exist in the gateway's database: users of
/// trusted issuers have sessions too.
pub(super) async fn end_all(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path(user): Path<String>,
    uri: Uri,
) -> Result<Response, Rejection> {
    let waits = waits_for_fleet(&uri)?;
    let idle = snapshot.settings.sessions.idle_timeout;
    let revoked = state
        .accounts
        .end_user_sessions(&user, None, EndReason::Admin, None, idle)
        .await?;
    revocation_response(&state, revoked, waits).await
}

/// `POST /admin/users/{id}/sessions`: signs a user in without a password, for testing (`portcullis
/// token issue`). The response is that of a login, including the session token.
pub(super) async fn open(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path(user): Path<String>,
) -> Result<Response, Rejection> {
    let user = caller::find_user(&state.accounts, &user).await?;
    if user.disabled {
        return Err(Refusal::NotFound.into());
    }
    let client_info = ClientInfo {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        user_agent: "portcullis token issue".to_owned(),
        device: Device::default(),
    };
    let signed_in = state
        .accounts
        .sign_in_without_password(&snapshot.settings, user, &client_info)
        .await?;
    let id = signed_in.session.session.id;
    let event = Event::new(EventKind::SignIn)
        .user(&signed_in.user.id)
        .session(id);
    state
        .events
        .record(event.detail("by an operator, without a password"));
    let shown = OpenedSession {
        signed_in: view::signed_in(
            &signed_in,
            &view_context(&state, &snapshot.settings).await?,
            true,
        ),
        session_id: id,
    };
    Ok(response::data_with_status(StatusCode::CREATED, &shown))
}

/// A sign-in response with the session's ID at the top level.
#[derive(Serialize)]
struct OpenedSession {
    #[serde(flatten)]
    signed_in: SignedInView,
    session_id: SessionId,
}

async fn view_context(state: &AdminState, settings: &Reloadable) -> Result<ViewContext, Rejection> {
    Ok(ViewContext {
        idle: settings.sessions.idle_timeout,
        now: state.sessions.now().await?,
        current: None,
        count_open_streams: state.count_open_streams.clone(),
    })
}
