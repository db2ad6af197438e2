//! Representations of users and sessions in responses.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::CountOpenStreams;
use crate::auth::session::{Millis, SessionId, SessionStatus};
use crate::identity::{AvatarInfo, SignedIn, User};
use crate::json;
use crate::store::{SessionEntry, SessionPage};

/// What the representation of a session depends on besides the session.
pub(super) struct ViewContext {
    pub(super) idle: Option<Duration>,
    pub(super) now: Millis,
    /// The session that sent the request.
    pub(super) current: Option<SessionId>,
    pub(super) count_open_streams: CountOpenStreams,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionView {
    /// Identifies the session; not a secret.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    id: SessionId,
    user_id: String,
    email: String,
    status: StatusView,
    is_active: bool,
    #[schema(format = "date-time")]
    created_at: String,
    #[schema(format = "date-time")]
    last_access: String,
    /// Expiry if the session is not used again.
    #[schema(format = "date-time")]
    expires_at: String,
    duration_seconds: u64,
    /// Client address at sign-in.
    #[schema(value_type = String)]
    ip_address: IpAddr,
    /// Client addresses, newest first.
    #[schema(value_type = Vec<String>)]
    ip_addresses: Vec<IpAddr>,
    user_agent: String,
    device: DeviceView,
    request_count: u64,
    live_connections: u64,
    /// Application data.
    #[schema(value_type = Object)]
    data: Value,
    /// Provider at which the user signed in; null for a password.
    provider: Option<String>,
    /// Time at which the user authenticated: `auth_time` if the provider gave it, else the sign-in.
    #[schema(format = "date-time")]
    authenticated_at: String,
    /// Authentication context of the provider.
    acr: Option<String>,
    /// Authentication methods of the provider.
    amr: Vec<String>,
    /// Whether this session sent the request.
    current: bool,
}

/// Status of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SessionStatus)]
#[serde(rename_all = "snake_case")]
enum StatusView {
    Active,
    Expired,
    Revoked,
}

/// The device that signed in, as declared by the client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Device)]
struct DeviceView {
    r#type: Option<String>,
    name: Option<String>,
}

/// A page of sessions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sessions)]
pub(super) struct SessionsView {
    sessions: Vec<SessionView>,
    /// Total number on all pages.
    count: usize,
    /// Value of `cursor` for the next page; null on the last page.
    next_cursor: Option<String>,
}

/// A user as seen by themselves.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct UserView {
    #[schema(format = "uuid")]
    id: String,
    email: String,
    username: Option<String>,
    name: Option<String>,
    roles: Vec<String>,
    scopes: Vec<String>,
}

/// A user's profile, as seen by themselves.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Profile)]
pub(super) struct ProfileView {
    #[serde(flatten)]
    user: UserView,
    #[schema(format = "date-time")]
    created_at: String,
    #[schema(format = "date-time")]
    updated_at: String,
    avatar: Option<AvatarView>,
}

/// Description of a user's picture; `GET profile/avatar` returns the picture.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Avatar)]
pub(super) struct AvatarView {
    r#type: String,
    #[schema(format = "date-time")]
    updated_at: String,
}

/// A user as seen by an operator.
#[derive(Debug, Serialize)]
pub(super) struct AdminUserView {
    #[serde(flatten)]
    user: UserView,
    disabled: bool,
    created_at: String,
    updated_at: String,
}

/// Result of a sign-in or refresh.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignedIn)]
pub(super) struct SignedInView {
    user: UserView,
    session: SessionView,
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// In seconds.
    expires_in: u64,
    refresh_token: String,
    /// Only on request, and never after a refresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<String>,
}

/// Number of ended sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Revoked {
    pub(super) revoked: usize,
}

/// A successful response.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Success<T> {
    success: bool,
    data: T,
}

impl<T> Success<T> {
    pub(super) fn of(data: T) -> Success<T> {
        Success {
            success: true,
            data,
        }
    }
}

/// Renders a session.
pub(super) fn session(entry: &SessionEntry, context: &ViewContext) -> SessionView {
    let (session, activity) = (&entry.session, &entry.activity);
    let status = session.status(activity.last_access, context.idle, context.now);
    let expires_at = session.idle_expiry(activity.last_access, context.idle);
    let until = match (status, session.ended) {
        (SessionStatus::Revoked, Some(ended)) => ended.at,
        (SessionStatus::Expired, _) => expires_at,
        _ => context.now,
    };
    // The sign-in address counts before the session is used.
    let mut addresses = activity.ip_addresses.clone();
    if !addresses.contains(&session.ip) {
        addresses.push(session.ip);
    }
    let sign_in = session.provider.as_deref();
    SessionView {
        id: session.id,
        user_id: session.user.clone(),
        email: session.email.clone(),
        status: match status {
            SessionStatus::Active => StatusView::Active,
            SessionStatus::Expired => StatusView::Expired,
            SessionStatus::Revoked => StatusView::Revoked,
        },
        is_active: status == SessionStatus::Active,
        created_at: rfc3339(session.created_at),
        last_access: rfc3339(activity.last_access.max(session.created_at)),
        expires_at: rfc3339(expires_at),
        duration_seconds: until.saturating_sub(session.created_at) / 1000,
        ip_address: session.ip,
        ip_addresses: addresses,
        user_agent: session.user_agent.to_string(),
        device: DeviceView {
            r#type: session.device.kind.as_deref().map(str::to_owned),
            name: session.device.name.as_deref().map(str::to_owned),
        },
        request_count: activity.request_count,
        live_connections: activity
            .live_connections
            .max((context.count_open_streams)(session.id)),
        // Invalid data written by other programs is shown as empty.
        data: Value::Object(json::parse(session.data.as_bytes()).unwrap_or_default()),
        provider: sign_in.map(|sign_in| sign_in.provider.to_string()),
        authenticated_at: rfc3339(session.authenticated_at()),
        acr: sign_in.and_then(|sign_in| sign_in.acr.as_deref().map(str::to_owned)),
        amr: sign_in.map_or_else(Vec::new, |sign_in| sign_in.amr.to_vec()),
        current: context.current == Some(session.id),
    }
}

/// Renders a page of sessions.
pub(super) fn sessions(page: &SessionPage, context: &ViewContext) -> SessionsView {
    let sessions = page.entries.iter().map(|entry| session(entry, context));
    SessionsView {
        sessions: sessions.collect(),
        count: page.total,
        next_cursor: page.next_cursor.clone(),
    }
}

/// Renders a user as seen by themselves.
pub(super) fn user(user: &User) -> UserView {
    UserView {
        id: user.id.clone(),
        email: user.email.clone(),
        username: user.username.clone(),
        name: user.name.clone(),
        roles: user.roles.clone(),
        scopes: user.scopes.clone(),
    }
}

/// Renders a user's profile.
pub(super) fn profile(user: &User, avatar: Option<&AvatarInfo>) -> ProfileView {
    ProfileView {
        user: self::user(user),
        created_at: rfc3339(user.created_at),
        updated_at: rfc3339(user.updated_at),
        avatar: avatar.map(self::avatar),
    }
}

/// Renders the description of a user's picture.
pub(super) fn avatar(about: &AvatarInfo) -> AvatarView {
    AvatarView {
        r#type: about.media_type.clone(),
        updated_at: rfc3339(about.updated_at),
    }
}

/// Renders a user as seen by an operator.
pub(super) fn admin_user(user: &User) -> AdminUserView {
    AdminUserView {
        user: self::user(user),
        disabled: user.disabled,
        created_at: rfc3339(user.created_at),
        updated_at: rfc3339(user.updated_at),
    }
}

/// Renders the result of a sign-in, including the session token if `with_token`.
pub(super) fn signed_in(
    signed_in: &SignedIn,
    context: &ViewContext,
    with_token: bool,
) -> SignedInView {
    let token = signed_in.session_token.as_ref().filter(|_| with_token);
    SignedInView {
        user: user(&signed_in.user),
        session: session(&signed_in.session, context),
        access_token: signed_in.access_token.clone(),
        token_type: "Bearer",
        expires_in: signed_in.expires_in.as_secs(),
        refresh_token: signed_in.refresh_token.clone(),
        session_token: token.map(|token| token.expose().to_owned()),
    }
}

/// Formats Unix milliseconds as RFC 3339 in UTC.
pub(super) fn rfc3339(time: Millis) -> String {
    // The formatter's range ends with the year 9999.
    const LATEST: Millis = 253_402_300_799_999;
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(time.min(LATEST));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests;
