//! A look at an endpoint before it is used: what it says of a made-up token.

use tokio::time::timeout;

use super::call::{self, CallError};
use super::endpoint::Endpoint;
use super::entry::build_client;
use crate::auth::token::IntrospectionVerdict;
use crate::clock;
use crate::settings::introspection::IntrospectionEntry;

/// What an endpoint says of a token that no server has issued.
#[derive(Debug)]
pub enum IntrospectionProbe {
    Inactive,
    /// It would accept any token.
    Active,
    Failed(CallError),
}

impl CallError {
    /// Whether the same may succeed later, without a change of the configuration.
    pub fn is_temporary(&self) -> bool {
        match self {
            CallError::Unreachable(_) | CallError::TimedOut | CallError::Discovery(_) => true,
            CallError::Status(status) => *status >= 500 || *status == 429,
            CallError::NoClient
            | CallError::Authentication(_)
            | CallError::ClientRefused(_)
            | CallError::NotJson
            | CallError::Unusable(_) => false,
        }
    }
}

/// Sends a made-up token.
pub async fn probe(settings: &IntrospectionEntry) -> IntrospectionProbe {
    let probing = timeout(settings.timeout, query(settings));
    match probing.await.unwrap_or(Err(CallError::TimedOut)) {
        Ok(IntrospectionVerdict::Inactive) => IntrospectionProbe::Inactive,
        Ok(IntrospectionVerdict::Active(_) | IntrospectionVerdict::Rejected(_)) => {
            IntrospectionProbe::Active
        }
        Err(error) => IntrospectionProbe::Failed(error),
    }
}

async fn query(settings: &IntrospectionEntry) -> Result<IntrospectionVerdict, CallError> {
    let client = build_client(settings).map_err(|_| CallError::NoClient)?;
    let url = Endpoint::new().url(settings, &client).await?;
    let prefix = settings.prefix.as_deref().unwrap_or_default();
    let token = format!("{prefix}{}", hex::encode(rand::random::<[u8; 16]>()));
    let body = call::send(settings, &client, url, &token).await?;
    let verdict = settings.rules.read(&body, "", 0, clock::unix_millis());
    verdict.map_err(CallError::Unusable)
}
