//! API keys that users create for themselves.

pub(super) mod fields;
pub(super) mod named_key;
pub(super) mod view;

use axum::extract::{Request, State};
use axum::response::Response;
use fields::{ApiKeyChangeBody, KeyFields, NewApiKeyBody, RotationBody};
use http::{StatusCode, Uri};
use named_key::{KeyRules, OwnKey};
use view::{ApiKeyView, ApiKeysView, NewSecretView};

use super::ApiState;
use super::caller::AuthenticatedCaller;
use super::response;
use super::view::Success;
use crate::auth::api_key::ApiKeyOwner;
use crate::auth::session::Session;
use crate::rejection::{Reason, Refusal, Rejection, RejectionDetails};

/// List API keys
///
/// The caller's keys, newest first, without their secrets.
#[utoipa::path(
    get,
    path = "/api-keys",
    tag = "api-keys",
    params(
        ("status" = Option<String>, Query, pattern = "^(active|expired|revoked|all)?$", description = "Keys with this status; `active` by default"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Page size; 20 by default"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the previous page"),
    ),
    responses(
        (status = 200, description = "A page of keys", body = Success<ApiKeysView>),
        (status = 403, description = "The credential has no session, or its user is not in the database"),
    ),
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    uri: Uri,
) -> Result<Response, Rejection> {
    let session = owner_session(&caller)?;
    let owner = ApiKeyOwner::User(session.user.clone());
    let wanted = fields::read_query(&uri, |_| Some(owner))?;
    let page = state.sessions.api_keys().list(&wanted).await?;
    Ok(response::data(&ApiKeysView::of(&page)))
}

/// Create an API key
///
/// The response has the key, this once. It acts on behalf of its owner, with its own roles and scopes
/// as far as the owner has them.
#[utoipa::path(
    post,
    path = "/api-keys",
    tag = "api-keys",
    request_body = NewApiKeyBody,
    responses(
        (status = 201, description = "The key is created", body = Success<NewSecretView>),
        (status = 403, description = "The credential has no session, or its user is not in the database or lacks a requested role or scope"),
        (status = 409, description = "The caller has as many active keys as are allowed"),
    ),
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    KeyRules(rules): KeyRules,
    request: Request,
) -> Result<Response, Rejection> {
    let session = owner_session(&caller)?;
    let fields = KeyFields::read(request).await?;
    let new = fields.into_new(Some(ApiKeyOwner::User(session.user.clone())))?;
    require_rights(session, &new.roles, &new.scopes)?;
    let by = Some(caller.client.ip);
    let created = state.sessions.api_keys().create(new, &rules, by).await?;
    let shown = NewSecretView::of_creation(created)?;
    Ok(response::data_with_status(StatusCode::CREATED, &shown))
}

/// Get an API key
#[utoipa::path(
    get,
    path = "/api-keys/{id}",
    tag = "api-keys",
    params(("id" = String, Path, pattern = "^[0-9a-z]{16}$", description = "ID of one of the caller's keys")),
    responses(
        (status = 200, description = "The key, without its secret", body = Success<ApiKeyView>),
        (status = 403, description = "The credential has no session, or its user is not in the database"),
        (status = 404, description = "The caller has no such key"),
    ),
)]
pub(super) async fn show(own: OwnKey) -> Response {
    response::data(&ApiKeyView::of(&own.key))
}

/// Change an API key
///
/// Absent members keep their value. A revoked key cannot be changed.
#[utoipa::path(
    patch,
    path = "/api-keys/{id}",
    tag = "api-keys",
    params(("id" = String, Path, pattern = "^[0-9a-z]{16}$", description = "ID of one of the caller's keys")),
    request_body = ApiKeyChangeBody,
    responses(
        (status = 200, description = "The changed key", body = Success<ApiKeyView>),
        (status = 403, description = "The credential has no session, or its user is not in the database or lacks a requested role or scope"),
        (status = 404, description = "The caller has no such key, or it is revoked"),
        (status = 409, description = "The key has expired, and the caller has as many active keys as are allowed"),
    ),
)]
pub(super) async fn change(
    State(state): State<ApiState>,
    OwnKey { key, caller }: OwnKey,
    KeyRules(rules): KeyRules,
    request: Request,
) -> Result<Response, Rejection> {
    let change = KeyFields::read(request).await?.into_update()?;
    let roles = change.roles.as_deref().unwrap_or_default();
    let scopes = change.scopes.as_deref().unwrap_or_default();
    require_rights(owner_session(&caller)?, roles, scopes)?;
    let keys = state.sessions.api_keys();
    let changed = keys.update(key.id, change, &rules).await?;
    Ok(response::data(&ApiKeyView::of_change(changed)?))
}

/// Replace the secret of an API key
///
/// The ID stays. The previous secret remains valid for `grace`.
#[utoipa::path(
    post,
    path = "/api-keys/{id}/rotate",
    tag = "api-keys",
    params(("id" = String, Path, pattern = "^[0-9a-z]{16}$", description = "ID of one of the caller's keys")),
    request_body(content = RotationBody),
    responses(
        (status = 200, description = "The key has a new secret", body = Success<NewSecretView>),
        (status = 403, description = "The credential has no session, or its user is not in the database"),
        (status = 404, description = "The caller has no such key, or it is expired or revoked"),
    ),
)]
pub(super) async fn rotate(
    State(state): State<ApiState>,
    OwnKey { key, caller }: OwnKey,
    KeyRules(rules): KeyRules,
    request: Request,
) -> Result<Response, Rejection> {
    let grace = fields::read_grace(request).await?;
    let (keys, by) = (state.sessions.api_keys(), Some(caller.client.ip));
    let rotated = keys.rotate(key.id, grace, &rules, by).await?;
    Ok(response::data(&NewSecretView::of_rotation(rotated)?))
}

/// Revoke an API key
///
/// Succeeds for a key that is already revoked.
#[utoipa::path(
    delete,
    path = "/api-keys/{id}",
    tag = "api-keys",
    params(("id" = String, Path, pattern = "^[0-9a-z]{16}$", description = "ID of one of the caller's keys")),
    responses(
        (status = 204, description = "The key is revoked"),
        (status = 403, description = "The credential has no session, or its user is not in the database"),
        (status = 404, description = "The caller has no such key"),
    ),
)]
pub(super) async fn revoke(
    State(state): State<ApiState>,
    OwnKey { key, caller }: OwnKey,
) -> Result<Response, Rejection> {
    let by = Some(caller.client.ip);
    state.sessions.api_keys().revoke(key.id, by).await?;
    Ok(response::no_content())
}

/// The session of the caller as the owner of keys: that of a user in the database. A key cannot create
/// others, nor can a token that outlives a sign-out.
fn owner_session(caller: &AuthenticatedCaller) -> Result<&Session, Rejection> {
    let session = caller.identity.session();
    let session = session.ok_or(Rejection::new(Refusal::Forbidden, Reason::SessionRequired))?;
    match caller.settings().identity.has_row(session) {
        true => Ok(session),
        false => Err(Rejection::new(
            Refusal::Forbidden,
            Reason::UserNotInDatabase,
        )),
    }
}

/// Rejects roles and scopes that the session does not have.
fn require_rights(session: &Session, roles: &[String], scopes: &[String]) -> Result<(), Rejection> {
    let lacking = |wanted: &[String], own: &[String]| {
        let lacking: Vec<&str> = wanted
            .iter()
            .filter(|one| !own.contains(one))
            .map(String::as_str)
            .collect();
        (!lacking.is_empty()).then(|| lacking.join(" "))
    };
    let (role, scope) = (
        lacking(roles, &session.roles),
        lacking(scopes, &session.scopes),
    );
    if role.is_none() && scope.is_none() {
        return Ok(());
    }
    Err(Rejection {
        details: Some(Box::new(RejectionDetails {
            role,
            scope,
            ..RejectionDetails::default()
        })),
        ..Rejection::new(Refusal::Forbidden, Reason::MoreThanOwn)
    })
}
