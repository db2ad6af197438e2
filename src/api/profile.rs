//! The caller's profile and password.

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
use crate::identity::{PasswordChange, User, UserPatch, user_from_session};
use crate::rejection::Rejection;
use crate::store::CachedProfile;

/// Lifetime of a cached profile. Every change invalidates it.
const CACHE_TTL: Duration = Duration::from_secs(30 * 60);

/// Get the profile
#[utoipa::path(
    get,
    path = "/profile",
    tag = "profile",
    responses(
        (status = 200, description = "The caller's profile", body = Success<ProfileView>),
        (status = 404, description = "The caller is not a user of this gateway"),
    ),
)]
pub(super) async fn show(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    if let Some(session) = caller.external_session() {
        let user = user_from_session(session);
        return Ok(response::data(&view::profile(&user, None)));
    }
    let key = caller.user_key();
    let lease = match state.store.profile(&key).await {
        Ok(CachedProfile::Hit(text)) => match RawValue::from_string(text) {
            Ok(profile) => return Ok(response::data(&profile)),
            Err(_) => None,
        },
        Ok(CachedProfile::Miss(lease)) => Some(lease),
        // The database is authoritative.
        Err(_) => None,
    };
    let user = caller.find_user(&state).await?;
    let profile = read_profile(&state, &user).await?;
    if let Some(lease) = lease
        && let Ok(text) = serde_json::to_string(&profile)
    {
        // A failed write only costs another read.
        let _ = state
            .store
            .put_profile(&key, &lease, &text, CACHE_TTL)
            .await;
    }
    Ok(response::data(&profile))
}

async fn read_profile(state: &ApiState, user: &User) -> Result<ProfileView, Rejection> {
    let avatar = state.accounts.avatar_info(&user.id).await?;
    Ok(view::profile(user, avatar.as_ref()))
}

/// Changes to a profile.
#[derive(ToSchema)]
#[schema(example = json!({"name": "Ann"}))]
#[expect(
    dead_code,
    reason = "it describes what `change` reads member by member"
)]
struct ProfileChange {
    /// Null removes the name; absent keeps it.
    #[schema(max_length = 200)]
    name: Option<String>,
}

/// Change the profile
///
/// Absent members keep their value. `id`, `email` and `username` may be sent unchanged; another
/// value is rejected. Unknown members are ignored.
#[utoipa::path(
    put,
    path = "/profile",
    tag = "profile",
    request_body = ProfileChange,
    responses(
        (status = 200, description = "The changed profile", body = Success<ProfileView>),
        (status = 403, description = "The caller is a user of a provider"),
        (status = 404, description = "The caller is not a user of this gateway"),
    ),
)]
pub(super) async fn change(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    request: Request,
) -> Result<Response, Rejection> {
    let before = caller.find_user_to_change(&state).await?;
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
    let rules = caller.settings().identity.passwords;
    let patch = fields.check_with(patch.check(&before, rules))?;
    let user = match nothing {
        true => before,
        false => state.accounts.apply_change(&before.id, patch).await?,
    };
    Ok(response::data(&read_profile(&state, &user).await?))
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

/// A password change.
#[derive(ToSchema)]
#[schema(example = json!({"current_password": "correct horse battery", "new_password": "staple the battery"}))]
struct NewPassword {
    #[schema(max_length = 1024)]
    current_password: String,
    /// At least `password_min_length` characters, and not a common password.
    #[schema(min_length = 8, max_length = 1024)]
    new_password: String,
}

/// Change the password
///
/// The current session and its tokens stay valid; all other sessions end. A wrong current password
/// counts as a failed sign-in.
#[utoipa::path(
    put,
    path = "/profile/password",
    tag = "profile",
    request_body = NewPassword,
    responses(
        (status = 204, description = "The password is changed"),
        (status = 403, description = "The caller is a user of a provider"),
        (status = 404, description = "The caller is not a user of this gateway"),
        (status = 429, description = "Too many failed attempts"),
    ),
)]
pub(super) async fn change_password(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    request: Request,
) -> Result<Response, Rejection> {
    let user = caller.find_user_to_change(&state).await?;
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
    let settings = caller.settings();
    fields.check_with(change.check(&user, settings.identity.passwords))?;
    let asking = (caller.session_id(), caller.client.ip);
    let mut limits = Vec::new();
    let changed = state
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
