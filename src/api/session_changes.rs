//! What the caller may change of the current session.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Desk;
use super::answer::Refused;
use super::body::Fields;
use super::caller::Person;
use super::sessions::{answer_with, current, idle};
use super::view::{SessionView, Success};
use crate::refusal::Refusal;
use crate::store::{Amended, Amendment, DATA_MAX};

/// Members of a session that nobody changes from outside.
const FIXED: [&str; 15] = [
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
    State(desk): State<Desk>,
    person: Person,
    request: Request,
) -> Result<Response, Refused> {
    let id = current(&person)?;
    let (parts, body) = request.into_parts();
    let mut fields = Fields::read(&parts.headers, body).await?;
    let amendment = amendment(&mut fields);
    fields.check()?;
    let amended = desk
        .accounts
        .amend_session(id, &amendment, idle(&desk))
        .await?;
    match amended {
        Amended::Done(entry) => answer_with(&desk, &person, &entry).await,
        Amended::Gone => Err(Refusal::SessionRevoked.into()),
        Amended::DataTooLong => Err(Refused::field(
            "data",
            format!("must be at most {DATA_MAX} bytes altogether"),
        )),
    }
}

fn amendment(fields: &mut Fields) -> Amendment {
    for fixed in FIXED {
        if fields.is_given(fixed) {
            fields.problem(fixed, "cannot be changed");
        }
    }
    let device_name = fields.optional_object("device").and_then(|mut device| {
        if device.contains_key("type") {
            fields.problem("device.type", "cannot be changed");
        }
        let name = device.remove("name")?;
        match name.as_str().map(str::to_owned) {
            Some(name) if is_device_name(&name) => Some(name),
            _ => {
                let problem = format!("must be a text of 1 to {DEVICE_MAX} characters");
                fields.problem("device.name", problem);
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
pub(super) async fn extend(State(desk): State<Desk>, person: Person) -> Result<Response, Refused> {
    let id = current(&person)?;
    let entry = desk.accounts.touch(id, idle(&desk)).await?;
    let entry = entry.ok_or(Refusal::SessionRevoked)?;
    answer_with(&desk, &person, &entry).await
}
