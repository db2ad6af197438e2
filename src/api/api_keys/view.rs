//! Representations of API keys in responses.

use std::net::IpAddr;

use serde::Serialize;
use utoipa::ToSchema;

use super::super::query::format_cursor;
use super::super::view::rfc3339;
use crate::auth::api_key::{ApiKey, ApiKeySecret, ApiKeyStatus};
use crate::clock;
use crate::rejection::{Refusal, Rejection};
use crate::sessions::api_keys::{
    ApiKeyChange, ApiKeyCreation, ApiKeyPage, ApiKeyRotation, ExpiryFault,
};

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(in crate::api) struct ApiKeyView {
    /// Identifies the key; not a secret.
    #[schema(pattern = "^[0-9a-z]{16}$")]
    id: String,
    name: String,
    /// ID of a user, or `service:` and the name of a service.
    owner: String,
    scopes: Vec<String>,
    roles: Vec<String>,
    /// Networks from which it can be used; empty: any.
    allowed_ips: Vec<String>,
    status: StatusView,
    #[schema(format = "date-time")]
    created_at: String,
    /// Null: it does not expire.
    #[schema(format = "date-time")]
    expires_at: Option<String>,
    /// At most one minute behind, as are the next two.
    #[schema(format = "date-time")]
    last_used_at: Option<String>,
    #[schema(value_type = Option<String>)]
    last_used_ip: Option<IpAddr>,
    request_count: u64,
}

/// Status of an API key.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ApiKeyStatus)]
#[serde(rename_all = "snake_case")]
enum StatusView {
    Active,
    Expired,
    Revoked,
}

/// A page of API keys, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKeys)]
pub(in crate::api) struct ApiKeysView {
    api_keys: Vec<ApiKeyView>,
    /// Total number on all pages.
    count: u64,
    /// Value of `cursor` for the next page; null on the last page.
    next_cursor: Option<String>,
}

/// An API key with its new secret.
#[derive(Serialize, ToSchema)]
#[schema(as = NewApiKeySecret)]
pub(in crate::api) struct NewSecretView {
    /// The key, which cannot be shown again.
    key: String,
    api_key: ApiKeyView,
}

impl ApiKeyView {
    pub(in crate::api) fn of(key: &ApiKey) -> ApiKeyView {
        ApiKeyView {
            id: key.id.to_string(),
            name: key.name.clone(),
            owner: key.owner.to_string(),
            scopes: key.scopes.clone(),
            roles: key.roles.clone(),
            allowed_ips: key.allowed_ips.iter().map(ToString::to_string).collect(),
            status: match key.status(clock::unix_millis()) {
                ApiKeyStatus::Active => StatusView::Active,
                ApiKeyStatus::Expired => StatusView::Expired,
                ApiKeyStatus::Revoked => StatusView::Revoked,
            },
            created_at: rfc3339(key.created_at),
            expires_at: key.expires_at.map(rfc3339),
            last_used_at: key.last_used_at.map(rfc3339),
            last_used_ip: key.last_used_ip,
            request_count: key.request_count,
        }
    }

    /// Renders a changed key.
    pub(in crate::api) fn of_change(change: ApiKeyChange) -> Result<ApiKeyView, Rejection> {
        match change {
            ApiKeyChange::Changed(key) => Ok(ApiKeyView::of(&key)),
            ApiKeyChange::NotFound => Err(Refusal::NotFound.into()),
            ApiKeyChange::LimitReached => Err(Refusal::KeyLimitReached.into()),
            ApiKeyChange::ExpiryRefused(fault) => Err(invalid_expiry(fault)),
        }
    }
}

impl ApiKeysView {
    pub(in crate::api) fn of(page: &ApiKeyPage) -> ApiKeysView {
        let next = page.next.as_ref();
        ApiKeysView {
            api_keys: page.keys.iter().map(ApiKeyView::of).collect(),
            count: page.total,
            next_cursor: next.map(|(time, id)| format_cursor(*time, id)),
        }
    }
}

impl NewSecretView {
    fn of(secret: &ApiKeySecret, key: &ApiKey) -> NewSecretView {
        NewSecretView {
            key: secret.expose().to_owned(),
            api_key: ApiKeyView::of(key),
        }
    }

    /// Renders a new key.
    pub(in crate::api) fn of_creation(made: ApiKeyCreation) -> Result<NewSecretView, Rejection> {
        match made {
            ApiKeyCreation::Created(secret, key) => Ok(NewSecretView::of(&secret, &key)),
            ApiKeyCreation::NoOwner => Err(Rejection::invalid_field("user", "does not exist")),
            ApiKeyCreation::LimitReached => Err(Refusal::KeyLimitReached.into()),
            ApiKeyCreation::ExpiryRefused(fault) => Err(invalid_expiry(fault)),
        }
    }

    /// Renders a key after a rotation.
    pub(in crate::api) fn of_rotation(made: ApiKeyRotation) -> Result<NewSecretView, Rejection> {
        match made {
            ApiKeyRotation::Rotated(secret, key) => Ok(NewSecretView::of(&secret, &key)),
            ApiKeyRotation::NotFound => Err(Refusal::NotFound.into()),
        }
    }
}

fn invalid_expiry(fault: ExpiryFault) -> Rejection {
    let problem = match fault {
        ExpiryFault::Past => "must be in the future",
        ExpiryFault::TooFar => "is further ahead than the maximum lifetime of a key",
    };
    Rejection::invalid_field("expires_at", problem)
}
