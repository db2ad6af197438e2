//! API keys of all users and services.

use axum::extract::{Request, State};
use axum::response::Response;
use http::{StatusCode, Uri};

use super::super::api_keys::fields::{self, KeyFields};
use super::super::api_keys::named_key::{KeyRules, NamedKey};
use super::super::api_keys::view::{ApiKeyView, ApiKeysView, NewSecretView};
use super::super::response;
use super::AdminState;
use super::revocation::{revocation_response, waits_for_fleet};
use crate::auth::api_key::ApiKeyOwner;
use crate::rejection::{Refusal, Rejection};

/// `GET /admin/api-keys?owner=&status=&limit=&cursor=`: keys of all owners or of one, newest first,
/// active by default.
pub(super) async fn list(
    State(state): State<AdminState>,
    _: KeyRules,
    uri: Uri,
) -> Result<Response, Rejection> {
    let problem = "must be the ID of a user, or service:NAME";
    let wanted = fields::read_query(&uri, |query| {
        query.parse_param("owner", problem, ApiKeyOwner::parse)
    })?;
    let page = state.sessions.api_keys().list(&wanted).await?;
    Ok(response::data(&ApiKeysView::of(&page)))
}

/// `POST /admin/api-keys` `{user|service, name, scopes?, roles?, expires_at?, allowed_ips?}`.
pub(super) async fn create(
    State(state): State<AdminState>,
    KeyRules(rules): KeyRules,
    request: Request,
) -> Result<Response, Rejection> {
    let mut fields = KeyFields::read(request).await?;
    let owner = fields.read_owner();
    let new = fields.into_new(owner)?;
    let created = state.sessions.api_keys().create(new, &rules, None).await?;
    let shown = NewSecretView::of_creation(created)?;
    Ok(response::data_with_status(StatusCode::CREATED, &shown))
}

/// `GET /admin/api-keys/{id}`: one key, whatever its status.
pub(super) async fn show(
    State(state): State<AdminState>,
    _: KeyRules,
    NamedKey(id): NamedKey,
) -> Result<Response, Rejection> {
    let key = state.sessions.api_keys().get(id).await?;
    let key = key.ok_or(Refusal::NotFound)?;
    Ok(response::data(&ApiKeyView::of(&key)))
}

/// `PATCH /admin/api-keys/{id}` `{name, scopes, roles, expires_at, allowed_ips}`: absent members keep
/// their value.
pub(super) async fn change(
    State(state): State<AdminState>,
    KeyRules(rules): KeyRules,
    NamedKey(id): NamedKey,
    request: Request,
) -> Result<Response, Rejection> {
    let change = KeyFields::read(request).await?.into_update()?;
    let changed = state.sessions.api_keys().update(id, change, &rules).await?;
    Ok(response::data(&ApiKeyView::of_change(changed)?))
}

/// `POST /admin/api-keys/{id}/rotate` `{grace?}`.
pub(super) async fn rotate(
    State(state): State<AdminState>,
    KeyRules(rules): KeyRules,
    NamedKey(id): NamedKey,
    request: Request,
) -> Result<Response, Rejection> {
    let grace = fields::read_grace(request).await?;
    let keys = state.sessions.api_keys();
    let rotated = keys.rotate(id, grace, &rules, None).await?;
    Ok(response::data(&NewSecretView::of_rotation(rotated)?))
}

/// `DELETE /admin/api-keys/{id}`.
pub(super) async fn revoke(
    State(state): State<AdminState>,
    _: KeyRules,
    NamedKey(id): NamedKey,
    uri: Uri,
) -> Result<Response, Rejection> {
    let waits = waits_for_fleet(&uri)?;
    let revoked = state.sessions.api_keys().revoke(id, None).await?;
    let was_active = revoked.ok_or(Refusal::NotFound)?;
    revocation_response(&state, usize::from(was_active), waits).await
}
