//! Changes to the caller's current session.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::ApiState;
use super::body::BodyFields;
use super::caller::AuthenticatedCaller;
use super::sessions::{current_session_id, session_response};
use super::view::{SessionView, Success};
use crate::rejection::{Refusal, Rejection};
use crate::store::{AmendOutcome, Amendment, MAX_DATA_BYTES};

/// Members of a session that clients cannot change.
const IMMUTABLE_MEMBERS: [&str; 19] = [
    "id",
    "user_id",
    "email",
    "status",
    "is_active",
    "created_at",
    "provider",
    "authenticated_at",
    "acr",
    "amr",
    "last_access",
    "expires_at",
    "duration_seconds",
    "ip_address",
    "ip_addresses",
    "user_agent",
    "request_count",
    "live_connections",
    "current",
];
/// Maximum length of a device name in characters, as at sign-in.
const DEVICE_MAX: usize = 128;

/// Changes to a session.
#[derive(ToSchema)]
#[schema(example = json!({"device": {"name": "Ann's phone"}, "data": {"theme": "dark", "draft": null}}))]
#[expect(
    dead_code,
    reason = "it describes what `amendment` reads member by member"
)]
struct SessionChange {
    device: Option<DeviceChange>,
    /// Application data, merged member by member into the existing data; null removes a member. At
    /// most 4 KiB in total.
    #[schema(value_type = Option<Object>)]
    data: Option<Map<String, Value>>,
}

/// Changes to a session's device.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it describes what `amendment` reads member by member"
)]
struct DeviceChange {
    #[schema(nullable = false, min_length = 1, max_length = 128)]
    name: Option<String>,
}

/// Change the current session
///
/// Absent members keep their value. Immutable members are rejected by name.
#[utoipa::path(
    patch,
    path = "/sessions/current",
    tag = "sessions",
    request_body = SessionChange,
    responses(
        (status = 200, description = "The changed session", body = Success<SessionView>),
        (status = 404, description = "The credential has no session"),
    ),
)]
pub(super) async fn change(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    request: Request,
) -> Result<Response, Rejection> {
    let id = current_session_id(&caller)?;
    let (parts, body) = request.into_parts();
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    let amendment = amendment(&mut fields);
    fields.check()?;
    let amended = state
        .sessions
        .patch(id, &amendment, caller.settings().sessions.idle_timeout)
        .await?;
    match amended {
        AmendOutcome::Amended(entry) => session_response(&state, &caller, &entry).await,
        AmendOutcome::Gone => Err(Refusal::SessionRevoked.into()),
        AmendOutcome::DataTooLong => Err(Rejection::invalid_field(
            "data",
            format!("must be at most {MAX_DATA_BYTES} bytes altogether"),
        )),
    }
}

fn amendment(fields: &mut BodyFields) -> Amendment {
    for fixed in IMMUTABLE_MEMBERS {
        if fields.is_given(fixed) {
            fields.add_error(fixed, "cannot be changed");
        }
    }
    let device_name = fields.optional_object("device").and_then(|mut device| {
        if device.contains_key("type") {
            fields.add_error("device.type", "cannot be changed");
        }
        let name = device.remove("name")?;
        match name.as_str().map(str::to_owned) {
            Some(name) if is_device_name(&name) => Some(name),
            _ => {
                let problem = format!("must be a text of 1 to {DEVICE_MAX} characters");
                fields.add_error("device.name", problem);
                None
            }
        }
    });
    Amendment {
        device_name,
        data: fields.optional_object("data"),
    }
}

fn is_device_name(name: &str) -> bool {
    (1..=DEVICE_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// Extend the current session
///
/// Restarts the idle timeout, never beyond the session's absolute expiry.
#[utoipa::path(
    post,
    path = "/sessions/current/extend",
    tag = "sessions",
    responses(
        (status = 200, description = "The changed session", body = Success<SessionView>),
        (status = 404, description = "The credential has no session"),
    ),
)]
pub(super) async fn extend(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let id = current_session_id(&caller)?;
    let entry = state
        .sessions
        .extend(id, caller.settings().sessions.idle_timeout)
        .await?;
    let entry = entry.ok_or(Refusal::SessionRevoked)?;
    session_response(&state, &caller, &entry).await
}
