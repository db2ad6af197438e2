//! User administration.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::super::body::BodyFields;
use super::super::query::{QueryParams, format_cursor, parse_cursor};
use super::super::response;
use super::super::view::{self, AdminUserView};
use super::AdminState;
use super::named_user::NamedUser;
use crate::auth::session::{Millis, SessionStatus};
use crate::identity::{NewUser, User, UserPatch};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::Rejection;
use crate::settings::Reloadable;
use crate::store::{SessionEntry, SessionListQuery};

/// A user seen within this time is online.
const ONLINE_WINDOW: Millis = 5 * 60 * 1000;
const MAX_SESSIONS_READ: usize = 100;

/// `GET /admin/users?limit=&cursor=`: users, newest first.
pub(super) async fn list(State(state): State<AdminState>, uri: Uri) -> Result<Response, Rejection> {
    let mut query = QueryParams::parse(&uri);
    let (limit, after) = (query.limit(), query.cursor(parse_user_cursor));
    query.check()?;
    let page = state.accounts.list_users(limit, after).await?;
    let users: Vec<AdminUserView> = page.users.iter().map(view::admin_user).collect();
    Ok(response::data(&json!({
        "users": users,
        "count": page.total,
        "next_cursor": page.next.map(|(time, id)| format_cursor(time, &id)),
    })))
}

fn parse_user_cursor(text: &str) -> Option<(Millis, String)> {
    parse_cursor(text).filter(|(_, id)| Uuid::try_parse(id).is_ok())
}

/// `POST /admin/users`.
pub(super) async fn create(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    request: Request,
) -> Result<Response, Rejection> {
    let (parts, body) = request.into_parts();
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    let new = NewUser {
        email: fields.text("email"),
        username: fields.optional_text("username"),
        name: fields.optional_text("name"),
        password: fields.text("password").into(),
        roles: fields.optional_texts("roles").unwrap_or_default(),
        scopes: fields.optional_texts("scopes").unwrap_or_default(),
        disabled: fields.optional_flag("disabled").unwrap_or_default(),
    };
    let rules = snapshot.settings.identity.passwords;
    let new = fields.check_with(new.check(rules))?;
    let user = state.accounts.create_user(new).await?;
    let shown = view::admin_user(&user);
    Ok(response::data_with_status(StatusCode::CREATED, &shown))
}

/// `GET /admin/users/{id}`: a user and their presence.
pub(super) async fn show(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    NamedUser(user): NamedUser,
) -> Result<Response, Rejection> {
    Ok(response::data(
        &load_presence(&state, &snapshot.settings, &user).await?,
    ))
}

async fn load_presence(
    state: &AdminState,
    settings: &Reloadable,
    user: &User,
) -> Result<UserPresence, Rejection> {
    let idle = settings.sessions.idle_timeout;
    let now = state.store.now().await?;
    let page = state
        .store
        .sessions_of(
            &user.id,
            SessionListQuery {
                status: Some(SessionStatus::Active),
                address: None,
                idle,
                limit: MAX_SESSIONS_READ,
                cursor: None,
            },
        )
        .await?;
    let open = |entry: &SessionEntry| {
        let here = (state.count_open_streams)(entry.session.id);
        entry.activity.live_connections.max(here)
    };
    let connections: u64 = page.entries.iter().map(open).sum();
    let seen = page
        .entries
        .iter()
        .map(|entry| entry.activity.last_access.max(entry.session.created_at))
        .max();
    let recently = seen.is_some_and(|seen| now.saturating_sub(seen) < ONLINE_WINDOW);
    Ok(UserPresence {
        user: view::admin_user(user),
        online: connections > 0 || recently,
        live_connections: connections,
        active_sessions: page.total,
    })
}

/// A user and their presence.
#[derive(Serialize)]
struct UserPresence {
    #[serde(flatten)]
    user: AdminUserView,
    online: bool,
    live_connections: u64,
    active_sessions: usize,
}

/// `DELETE /admin/users/{id}`: ends the user's sessions, then deletes the user.
pub(super) async fn remove(
    State(state): State<AdminState>,
    NamedUser(user): NamedUser,
) -> Result<Response, Rejection> {
    state.accounts.remove_user(&user.id).await?;
    Ok(response::no_content())
}

/// `PATCH /admin/users/{id}` `{email, name, roles, scopes, disabled, password}`: absent members
/// keep their value.
pub(super) async fn change(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    NamedUser(before): NamedUser,
    request: Request,
) -> Result<Response, Rejection> {
    let (parts, body) = request.into_parts();
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    for fixed in ["id", "username", "created_at", "updated_at"] {
        if fields.has(fixed) {
            fields.add_error(fixed, "cannot be changed");
        }
    }
    let patch = UserPatch {
        email: fields.has("email").then(|| fields.text("email")),
        name: fields
            .is_given("name")
            .then(|| fields.optional_text("name")),
        roles: fields.optional_texts("roles"),
        scopes: fields.optional_texts("scopes"),
        disabled: fields.optional_flag("disabled"),
        password: fields
            .has("password")
            .then(|| fields.text("password").into()),
    };
    let rules = snapshot.settings.identity.passwords;
    let patch = fields.check_with(patch.check(&before, rules))?;
    let user = state.accounts.apply_change(&before.id, patch).await?;
    Ok(response::data(
        &load_presence(&state, &snapshot.settings, &user).await?,
    ))
}
