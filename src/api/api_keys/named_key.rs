//! The key that the path of a call names, and the rules of keys.

use std::sync::Arc;

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use super::super::ApiState;
use super::super::caller::AuthenticatedCaller;
use super::owner_session;
use crate::auth::api_key::{ApiKey, ApiKeyId, ApiKeyOwner};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings;

/// The rules of keys. Extracting them rejects calls where no key exists.
pub(in crate::api) struct KeyRules(pub(in crate::api) settings::ApiKeys);

impl<S: Sync> FromRequestParts<S> for KeyRules {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<KeyRules, Rejection> {
        let snapshot = parts.extensions.get::<Arc<Snapshot>>();
        let rules = snapshot.and_then(|snapshot| snapshot.settings.api_keys.clone());
        rules.map(KeyRules).ok_or(Refusal::NotFound.into())
    }
}

/// The ID in the path's `{id}`. Extracting it rejects what cannot be one.
pub(in crate::api) struct NamedKey(pub(in crate::api) ApiKeyId);

impl<S: Sync> FromRequestParts<S> for NamedKey {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<NamedKey, Rejection> {
        let named: Result<RawPathParams, _> = parts.extract().await;
        let params = named.map_err(|_| Refusal::NotFound)?;
        let id = params.iter().find(|(name, _)| *name == "id");
        let id = id.and_then(|(_, id)| ApiKeyId::parse(id));
        id.map(NamedKey).ok_or(Refusal::NotFound.into())
    }
}

/// The key whose ID is in the path, and its owner, who calls. Extracting it rejects keys of others.
pub(in crate::api) struct OwnKey {
    pub(in crate::api) key: ApiKey,
    pub(in crate::api) caller: AuthenticatedCaller,
}

impl FromRequestParts<ApiState> for OwnKey {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<OwnKey, Rejection> {
        let caller = AuthenticatedCaller::from_request_parts(parts, state).await?;
        let session = owner_session(&caller)?;
        let NamedKey(id) = NamedKey::from_request_parts(parts, state).await?;
        let key = state.sessions.api_keys().get(id).await?;
        let is_own =
            |key: &ApiKey| matches!(&key.owner, ApiKeyOwner::User(owner) if *owner == session.user);
        let key = key.filter(is_own).ok_or(Refusal::NotFound)?;
        Ok(OwnKey { key, caller })
    }
}
