//! What the caller may change of the current session.

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

/// Members of a session that nobody changes from outside.
const IMMUTABLE_MEMBERS: [&str; 15] = [
    "id",
    "user_id",
    "email",
    "status",
    "is_active",
    "created_at",
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
/// Characters of a device's name, as at a sign-in.
const DEVICE_MAX: usize = 128;

/// What may change of a session.
#[derive(ToSchema)]
#[schema(example = json!({"device": {"name": "Ann's phone"}, "data": {"theme": "dark", "draft": null}}))]
#[expect(
    dead_code,
    reason = "it describes what `amendment` reads member by member"
)]
struct SessionChange {
    device: Option<DeviceChange>,
    /// The application's own: merged into what is there, member by member; null removes one. At most
    /// 4 KiB altogether.
    #[schema(value_type = Option<Object>)]
    data: Option<Map<String, Value>>,
}

/// What may change of a session's device.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it describes what `amendment` reads member by member"
)]
struct DeviceChange {
    #[schema(nullable = false, min_length = 1, max_length = 128)]
    name: Option<String>,
}

/// Change the current one
///
/// What is left out stays. Members that cannot be changed are refused by name.
#[utoipa::path(
    patch,
    path = "/sessions/current",
    tag = "sessions",
    request_body = SessionChange,
    responses(
        (status = 200, description = "The session as it is now", body = Success<SessionView>),
        (status = 404, description = "The credential has no session"),
    ),
)]
pub(super) async fn change(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
    request: Request,
) -> Result<Response, Rejection> {
    let id = current_session_id(&person)?;
    let (parts, body) = request.into_parts();
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    let amendment = amendment(&mut fields);
    fields.check()?;
    let amended = desk
        .sessions
        .patch(id, &amendment, person.settings().sessions.idle_timeout)
        .await?;
    match amended {
        AmendOutcome::Amended(entry) => session_response(&desk, &person, &entry).await,
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

/// Extend the current one
///
/// Moves the moment at which it expires for not being used; never past its end.
#[utoipa::path(
    post,
    path = "/sessions/current/extend",
    tag = "sessions",
    responses(
        (status = 200, description = "The session as it is now", body = Success<SessionView>),
        (status = 404, description = "The credential has no session"),
    ),
)]
pub(super) async fn extend(
    State(desk): State<ApiState>,
    person: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let id = current_session_id(&person)?;
    let entry = desk
        .sessions
        .extend(id, person.settings().sessions.idle_timeout)
        .await?;
    let entry = entry.ok_or(Refusal::SessionRevoked)?;
    session_response(&desk, &person, &entry).await
}
