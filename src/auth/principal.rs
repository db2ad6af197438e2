//! Who a request was found to be from.

use std::sync::Arc;

use crate::auth::api_key::{ApiKeyId, PresentedApiKey};
use crate::auth::session::Session;
use crate::auth::token::Claims;

/// The user or service on whose behalf a request is made.
#[derive(Debug, Clone)]
pub enum Principal {
    /// The user of a session.
    Session(Arc<Session>),
    /// Issuer and subject of a token without a session.
    Token(Arc<Claims>),
    /// The owner of an API key.
    ApiKey(Arc<UsedApiKey>),
}

/// A key that was presented and accepted.
#[derive(Debug)]
pub struct UsedApiKey {
    /// The key's record, with the roles and scopes that its owner has too.
    pub record: Arc<Session>,
    pub presented: PresentedApiKey,
}

impl Principal {
    /// The user's id; for a foreign token with its issuer's prefix.
    pub fn user(&self) -> &str {
        match self {
            Principal::Session(session) => &session.user,
            Principal::Token(claims) => &claims.user,
            Principal::ApiKey(used) => &used.record.user,
        }
    }

    pub fn session(&self) -> Option<&Arc<Session>> {
        match self {
            Principal::Session(session) => Some(session),
            Principal::Token(_) | Principal::ApiKey(_) => None,
        }
    }

    pub fn api_key(&self) -> Option<&PresentedApiKey> {
        match self {
            Principal::ApiKey(used) => Some(&used.presented),
            Principal::Session(_) | Principal::Token(_) => None,
        }
    }

    pub fn api_key_id(&self) -> Option<ApiKeyId> {
        Some(self.api_key()?.id)
    }
}
