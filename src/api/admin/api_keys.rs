//! API keys of all users and services.

use std::sync::Arc;

use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use http::{StatusCode, Uri};

use super::super::api_keys::fields::{self, KeyFields};
use super::super::api_keys::view::{ApiKeyView, ApiKeysView, NewSecretView};
use super::super::query::QueryParams;
use super::super::response;
use super::AdminState;
use super::revocation::{revocation_response, waits_for_fleet};
use crate::auth::api_key::{ApiKeyId, ApiKeyOwner};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::sessions::api_keys::ApiKeyQuery;
use crate::settings;

/// `GET /admin/api-keys?owner=&status=&limit=&cursor=`: keys of all owners or of one, newest first,
/// active by default.
pub(super) async fn list(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    uri: Uri,
) -> Result<Response, Rejection> {
    rules(&snapshot)?;
    let mut query = QueryParams::parse(&uri);
    let problem = "must be the ID of a user, or service:NAME";
    let wanted = ApiKeyQuery {
        owner: query.parse_param("owner", problem, ApiKeyOwner::parse),
        status: fields::read_status(&mut query),
        limit: query.limit(),
        after: fields::read_cursor(&mut query),
    };
    query.check()?;
    let page = state.sessions.api_keys().list(&wanted).await?;
    Ok(response::data(&ApiKeysView::of(&page)))
}

/// `POST /admin/api-keys` `{user|service, name, scopes?, roles?, expires_at?, allowed_ips?}`.
pub(super) async fn create(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    request: Request,
) -> Result<Response, Rejection> {
    let rules = rules(&snapshot)?;
    let mut fields = KeyFields::read(request).await?;
    let owner = fields.read_owner();
    let new = fields.into_new(owner)?;
    let created = state.sessions.api_keys().create(new, rules).await?;
    let shown = NewSecretView::of_creation(created)?;
    Ok(response::data_with_status(StatusCode::CREATED, &shown))
}

/// `GET /admin/api-keys/{id}`: one key, whatever its status.
pub(super) async fn show(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path(id): Path<String>,
) -> Result<Response, Rejection> {
    rules(&snapshot)?;
    let key = state.sessions.api_keys().get(parse_id(&id)?).await?;
    let key = key.ok_or(Refusal::NotFound)?;
    Ok(response::data(&ApiKeyView::of(&key)))
}

/// `PATCH /admin/api-keys/{id}` `{name, scopes, roles, expires_at, allowed_ips}`: absent members keep
/// their value.
pub(super) async fn change(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Rejection> {
    let rules = rules(&snapshot)?;
    let id = parse_id(&id)?;
    let change = KeyFields::read(request).await?.into_update()?;
    let changed = state.sessions.api_keys().update(id, change, rules).await?;
    Ok(response::data(&ApiKeyView::of_change(changed)?))
}

/// `POST /admin/api-keys/{id}/rotate` `{grace?}`.
pub(super) async fn rotate(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Rejection> {
    let rules = rules(&snapshot)?;
    let id = parse_id(&id)?;
    let grace = fields::read_grace(request).await?;
    let rotated = state.sessions.api_keys().rotate(id, grace, rules).await?;
    Ok(response::data(&NewSecretView::of_rotation(rotated)?))
}

/// `DELETE /admin/api-keys/{id}`.
pub(super) async fn revoke(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Rejection> {
    rules(&snapshot)?;
    let waits = waits_for_fleet(&uri)?;
    let revoked = state.sessions.api_keys().revoke(parse_id(&id)?).await?;
    let was_active = revoked.ok_or(Refusal::NotFound)?;
    revocation_response(&state, usize::from(was_active), waits).await
}

/// The rules of keys; without them, no key exists.
fn rules(snapshot: &Snapshot) -> Result<&settings::ApiKeys, Rejection> {
    let rules = snapshot.settings.api_keys.as_ref();
    rules.ok_or(Refusal::NotFound.into())
}

fn parse_id(id: &str) -> Result<ApiKeyId, Rejection> {
    ApiKeyId::parse(id).ok_or(Refusal::NotFound.into())
}
