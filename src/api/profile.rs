//! The caller's own profile and password.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::ApiState;
use super::body::BodyFields;
use super::caller::AuthenticatedCaller;
use super::response::{self, ResponseInfo};
use super::view::{self, ProfileView, Success};
use crate::database::User;
use crate::identity::{PasswordChange, UserPatch};
use crate::rejection::Rejection;
use crate::store::CachedProfile;

/// How long the store keeps what the database said of somebody. Every change takes it away.
const CACHE_TTL: Duration = Duration::from_secs(30 * 60);

/// Show
#[utoipa::path(
    get,
    path = "/profile",
    tag = "profile",
    responses(
        (status = 200, description = "The caller's profile", body = Success<ProfileView>),
        (status = 404, description = "The caller is no user of this gateway's"),
    ),
)]
pub(super) async fn show(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let key = person.user_key();
    let lease = match desk.store.profile(&key).await {
        Ok(CachedProfile::Hit(text)) => match RawValue::from_string(text) {
            Ok(profile) => return Ok(response::data(&profile)),
            Err(_) => None,
        },
        Ok(CachedProfile::Miss(lease)) => Some(lease),
        // The database knows as well.
        Err(_) => None,
    };
    let user = person.find_user(&desk).await?;
    let profile = read_profile(&desk, &user).await?;
    if let Some(lease) = lease
        && let Ok(text) = serde_json::to_string(&profile)
    {
        // What is not kept is read again.
        let _ = desk.store.put_profile(&key, &lease, &text, CACHE_TTL).await;
    }
    Ok(response::data(&profile))
}

async fn read_profile(desk: &ApiState, user: &User) -> Result<ProfileView, Rejection> {
    let avatar = desk.accounts.database().avatar_info(&user.id).await?;
    Ok(view::profile(user, avatar.as_ref()))
}

/// What may change of a profile.
#[derive(ToSchema)]
#[schema(example = json!({"name": "Ann"}))]
#[expect(
    dead_code,
    reason = "it describes what `change` reads member by member"
)]
struct ProfileChange {
    /// Null takes it away; left out it stays.
    #[schema(max_length = 200)]
    name: Option<String>,
}

/// Change
///
/// What is left out stays. `id`, `email` and `username` may be sent along as they are; another value
/// is refused. Everything else is ignored.
#[utoipa::path(
    put,
    path = "/profile",
    tag = "profile",
    request_body = ProfileChange,
    responses(
        (status = 200, description = "The profile as it is now", body = Success<ProfileView>),
        (status = 404, description = "The caller is no user of this gateway's"),
    ),
)]
pub(super) async fn change(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
    request: Request,
) -> Result<Response, Rejection> {
    let before = person.find_user(&desk).await?;
    let (parts, body) = request.into_parts();
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    reject_changed_names(&mut fields, &before);
    let patch = UserPatch {
        name: fields
            .is_given("name")
            .then(|| fields.optional_text("name")),
        ..UserPatch::default()
    };
    let nothing = patch.name.is_none();
    let rules = person.settings().identity.passwords;
    let patch = fields.check_with(patch.check(&before, rules))?;
    let user = match nothing {
        true => before,
        false => desk.accounts.apply_change(&before.id, patch).await?,
    };
    Ok(response::data(&read_profile(&desk, &user).await?))
}

fn reject_changed_names(fields: &mut BodyFields, user: &User) {
    let fixed = [
        ("id", Some(user.id.as_str())),
        ("email", Some(user.email.as_str())),
        ("username", user.username.as_deref()),
    ];
    for (name, value) in fixed {
        if fields.is_given(name) && fields.optional_text(name).as_deref() != value {
            fields.add_error(name, "cannot be changed");
        }
    }
}

/// What a change of password takes.
#[derive(ToSchema)]
#[schema(example = json!({"current_password": "correct horse battery", "new_password": "staple the battery"}))]
struct NewPassword {
    #[schema(max_length = 1024)]
    current_password: String,
    /// As long as `password_min_length` says at least; none that everybody tries first.
    #[schema(min_length = 8, max_length = 1024)]
    new_password: String,
}

/// Change the password
///
/// The session that asks stays, with its tokens; all others end. A wrong current password counts as
/// a failed sign-in.
#[utoipa::path(
    put,
    path = "/profile/password",
    tag = "profile",
    request_body = NewPassword,
    responses(
        (status = 204, description = "The new password is in force"),
        (status = 404, description = "The caller is no user of this gateway's"),
        (status = 429, description = "Too many failures"),
    ),
)]
pub(super) async fn change_password(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
    request: Request,
) -> Result<Response, Rejection> {
    let user = person.find_user(&desk).await?;
    let (parts, body) = request.into_parts();
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    let typed = NewPassword {
        current_password: fields.text("current_password"),
        new_password: fields.text("new_password"),
    };
    let change = PasswordChange {
        current: typed.current_password.into(),
        new: typed.new_password.into(),
    };
    let settings = person.settings();
    fields.check_with(change.check(&user, settings.identity.passwords))?;
    let asking = (person.session_id(), person.client.ip);
    let mut limits = Vec::new();
    let changed = desk
        .accounts
        .change_password(settings, user, &change, asking, &mut limits)
        .await;
    if let Err(failure) = changed {
        return Err(Rejection::from(failure).with_decisions(limits));
    }
    let mut response = response::no_content();
    response.extensions_mut().insert(ResponseInfo {
        limits,
        ..ResponseInfo::default()
    });
    Ok(response)
}
