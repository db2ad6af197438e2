//! Users, as an operator manages them.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::super::body::Fields;
use super::super::query::Query;
use super::super::view::{self, UserForAdmin};
use super::super::{answer, caller};
use super::{Desk, Refused};
use crate::accounts::{NewUser, UserPatch};
use crate::auth::session::{Millis, Status};
use crate::directory::User;
use crate::store::{Entry, Wanted};

/// Somebody who was seen this recently is online.
const ONLINE: Millis = 5 * 60 * 1000;
const SESSIONS_LOOKED_AT: usize = 100;

/// `GET /admin/users?limit=&cursor=`: newest first.
pub(super) async fn list(State(desk): State<Desk>, uri: Uri) -> Result<Response, Refused> {
    let mut query = Query::read(&uri);
    let (limit, after) = (query.limit(), query.cursor(read_cursor));
    query.check()?;
    let roster = desk.accounts.list_users(limit, after).await?;
    let users: Vec<UserForAdmin> = roster.users.iter().map(view::user_for_admin).collect();
    Ok(answer::data(&json!({
        "users": users,
        "count": roster.total,
        "next_cursor": roster.next.map(|(time, id)| cursor(time, &id)),
    })))
}

fn cursor(time: Millis, id: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{time} {id}"))
}

fn read_cursor(text: &str) -> Option<(Millis, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (time, id) = text.split_once(' ')?;
    let time = time
        .parse()
        .ok()
        .filter(|time| i64::try_from(*time).is_ok())?;
    Some((time, id.to_owned())).filter(|_| Uuid::try_parse(id).is_ok())
}

/// `POST /admin/users`.
pub(super) async fn create(
    State(desk): State<Desk>,
    request: Request,
) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let mut fields = Fields::read(&parts.headers, body).await?;
    let new = NewUser {
        email: fields.text("email"),
        username: fields.optional_text("username"),
        name: fields.optional_text("name"),
        password: fields.text("password").into(),
        roles: fields.optional_texts("roles").unwrap_or_default(),
        scopes: fields.optional_texts("scopes").unwrap_or_default(),
        disabled: fields.optional_flag("disabled").unwrap_or_default(),
    };
    let rules = desk.live.load().identity.passwords;
    let new = fields.check_with(new.check(rules))?;
    let user = desk.accounts.create_user(new).await?;
    let shown = view::user_for_admin(&user);
    Ok(answer::data_with(StatusCode::CREATED, &shown))
}

/// `GET /admin/users/{id}`, with whether they are about.
pub(super) async fn show(
    State(desk): State<Desk>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let user = caller::user(&desk.accounts, &id).await?;
    Ok(answer::data(&with_presence(&desk, &user).await?))
}

async fn with_presence(desk: &Desk, user: &User) -> Result<WithPresence, Refused> {
    let idle = desk.live.load().sessions.idle_timeout;
    let now = desk.store.now().await?;
    let page = desk
        .store
        .sessions_of(
            &user.id,
            Wanted {
                status: Some(Status::Active),
                address: None,
                idle,
                limit: SESSIONS_LOOKED_AT,
                cursor: None,
            },
        )
        .await?;
    let open = |entry: &Entry| {
        let here = (desk.live_of)(entry.session.id);
        entry.activity.live_connections.max(here)
    };
    let connections: u64 = page.entries.iter().map(open).sum();
    let seen = page
        .entries
        .iter()
        .map(|entry| entry.activity.last_access.max(entry.session.created_at))
        .max();
    let recently = seen.is_some_and(|seen| now.saturating_sub(seen) < ONLINE);
    Ok(WithPresence {
        user: view::user_for_admin(user),
        online: connections > 0 || recently,
        live_connections: connections,
        active_sessions: page.total,
    })
}

/// A user, and whether they are about.
#[derive(Serialize)]
struct WithPresence {
    #[serde(flatten)]
    user: UserForAdmin,
    online: bool,
    live_connections: u64,
    active_sessions: usize,
}

/// `DELETE /admin/users/{id}`: ends all sessions first.
pub(super) async fn remove(
    State(desk): State<Desk>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let user = caller::user(&desk.accounts, &id).await?;
    desk.accounts.remove_user(&user.id).await?;
    Ok(answer::nothing())
}

/// `PATCH /admin/users/{id}` `{email, name, roles, scopes, disabled, password}`: what is left out
/// stays.
pub(super) async fn change(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refused> {
    let before = caller::user(&desk.accounts, &id).await?;
    let (parts, body) = request.into_parts();
    let mut fields = Fields::read(&parts.headers, body).await?;
    for fixed in ["id", "username", "created_at", "updated_at"] {
        if fields.has(fixed) {
            fields.problem(fixed, "cannot be changed");
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
    let rules = desk.live.load().identity.passwords;
    let patch = fields.check_with(patch.check(&before, rules))?;
    let user = desk.accounts.apply_change(&id, patch).await?;
    Ok(answer::data(&with_presence(&desk, &user).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_others_are_refused() {
        let id = Uuid::nil().to_string();
        assert_eq!(read_cursor(&cursor(5, &id)), Some((5, id.clone())));
        for bad in [
            "",
            "x",
            "%%%",
            &URL_SAFE_NO_PAD.encode("x y"),
            &cursor(5, "id"),
            &cursor(u64::MAX, &id),
        ] {
            assert_eq!(read_cursor(bad), None, "{bad}");
        }
    }
}
