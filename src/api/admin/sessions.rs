//! Anybody's sessions.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Serialize;

use super::super::query::Query;
use super::super::view::{self, Sight, SignedInView};
use super::super::{answer, caller};
use super::{Desk, Refused};
use crate::accounts::Visitor;
use crate::auth::session::{Device, EndReason, SessionId};
use crate::events::{Event, Kind};
use crate::refusal::Refusal;
use crate::store::{Confirmed, Store, Wanted};

/// `GET /admin/sessions?user=&ip=&status=&limit=&cursor=`: everybody's sessions or one user's, the
/// active ones if not said.
pub(super) async fn list(State(desk): State<Desk>, uri: Uri) -> Result<Response, Refused> {
    let mut query = Query::read(&uri);
    let user = query.text("user");
    let address = query.read_as("ip", "must be an IP address", |text| {
        text.parse()
            .ok()
            .map(|address: IpAddr| address.to_canonical())
    });
    let (limit, status) = (query.limit() as usize, query.status());
    let cursor = query.cursor(|text| match user {
        Some(_) => Store::is_cursor_of_user(text),
        None => desk.store.is_cursor_of_all(text),
    });
    query.check()?;
    let sight = sight(&desk).await?;
    let wanted = Wanted {
        status,
        address,
        idle: sight.idle,
        limit,
        cursor: cursor.as_deref(),
    };
    let page = match &user {
        Some(user) => desk.accounts.sessions_of(user, wanted).await?,
        None => desk.store.all_sessions(wanted).await?,
    };
    Ok(answer::data(&view::sessions(&page, &sight)))
}

/// `GET /admin/sessions/{id}`: one of them, however it stands.
pub(super) async fn show(
    State(desk): State<Desk>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    let entry = desk.accounts.session(id).await?.ok_or(Refusal::NotFound)?;
    let sight = sight(&desk).await?;
    Ok(answer::data(&view::session(&entry, &sight)))
}

/// `DELETE /admin/sessions/{id}`.
pub(super) async fn end(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refused> {
    let waits = waits(&uri)?;
    let id = SessionId::parse(&id).ok_or(Refusal::NotFound)?;
    let entry = desk.accounts.session(id).await?.ok_or(Refusal::NotFound)?;
    let ended = desk
        .accounts
        .end_session(&entry.session, EndReason::Admin, None, idle(&desk))
        .await?;
    answered(&desk, usize::from(ended), waits).await
}

/// `DELETE /admin/users/{id}/sessions`. The user need not be in our directory: trusted issuers
/// have users too.
pub(super) async fn end_all(
    State(desk): State<Desk>,
    Path(user): Path<String>,
    uri: Uri,
) -> Result<Response, Refused> {
    let waits = waits(&uri)?;
    let revoked = desk
        .accounts
        .end_sessions_of(&user, None, EndReason::Admin, None, idle(&desk))
        .await?;
    answered(&desk, revoked, waits).await
}

/// `POST /admin/users/{id}/sessions`: signs a user in without a password, for testing
/// (`portcullis token issue`). The answer is a login's, with the session token.
pub(super) async fn open(
    State(desk): State<Desk>,
    Path(user): Path<String>,
) -> Result<Response, Refused> {
    let user = caller::user(&desk.accounts, &user).await?;
    if user.disabled {
        return Err(Refusal::NotFound.into());
    }
    let visitor = Visitor {
        ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        user_agent: "portcullis token issue".to_owned(),
        device: Device::default(),
    };
    let live = desk.live.load_full();
    let signed_in = desk.accounts.sign_in_unasked(&live, user, &visitor).await?;
    let id = signed_in.session.session.id;
    let event = Event::new(Kind::SignIn)
        .user(&signed_in.user.id)
        .session(id);
    desk.events
        .record(event.detail("by an operator, without a password"));
    let shown = Opened {
        signed_in: view::signed_in(&signed_in, &sight(&desk).await?, true),
        session_id: id,
    };
    Ok(answer::data_with(StatusCode::CREATED, &shown))
}

/// What a sign-in hands out, with the session's id once more.
#[derive(Serialize)]
struct Opened {
    #[serde(flatten)]
    signed_in: SignedInView,
    session_id: SessionId,
}

async fn sight(desk: &Desk) -> Result<Sight, Refused> {
    Ok(Sight {
        idle: idle(desk),
        now: desk.accounts.now().await?,
        current: None,
        live_of: desk.live_of.clone(),
    })
}

fn idle(desk: &Desk) -> Option<Duration> {
    desk.live.load().sessions.idle_timeout
}

/// Whether the caller waits until every gateway has heard of it.
fn waits(uri: &Uri) -> Result<bool, Refused> {
    let mut query = Query::read(uri);
    let waits = query.read_as("wait", "is \"fleet\" or not given", |value| {
        (value == "fleet").then_some(())
    });
    query.check()?;
    Ok(waits.is_some())
}

/// What the answer to a revocation says.
#[derive(Serialize)]
struct Revoked {
    revoked: usize,
    /// Which gateways have heard of it.
    #[serde(flatten)]
    fleet: Option<Confirmed>,
}

async fn answered(desk: &Desk, revoked: usize, waits: bool) -> Result<Response, Refused> {
    let fleet = match waits {
        true => Some(desk.store.confirmed().await?),
        false => None,
    };
    Ok(answer::data(&Revoked { revoked, fleet }))
}
