//! Responses to challenges of certificate authorities, which any gateway of the fleet gives.
//!
//! A response proves control over a domain and is public.

use std::time::Duration;

use super::{Engine, Store, StoreError};
use crate::telemetry::metrics::StoreOperation;

/// Retention of a response: longer than an order takes.
pub(super) const RESPONSE_TTL: Duration = Duration::from_secs(600);

/// A challenge of a certificate authority, by what the authority's request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// `http-01`: its token.
    Http(String),
    /// `tls-alpn-01`: the domain.
    Tls(String),
}

impl AcmeChallenge {
    /// The name of its entry.
    fn name(&self) -> String {
        match self {
            AcmeChallenge::Http(token) => format!("http:{token}"),
            AcmeChallenge::Tls(domain) => format!("tls:{domain}"),
        }
    }
}

impl Store {
    /// Reads the key authorization with which a challenge is responded to.
    pub async fn acme_response(
        &self,
        challenge: &AcmeChallenge,
    ) -> Result<Option<String>, StoreError> {
        let name = challenge.name();
        self.measured(StoreOperation::AcmeChallenge, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.acme_response(&name)),
                Engine::Redis(redis) => redis.acme_response(&name).await,
            }
        })
        .await
    }

    /// Writes the key authorization of a challenge; `None` removes it.
    pub async fn put_acme_response(
        &self,
        challenge: &AcmeChallenge,
        key_authorization: Option<&str>,
    ) -> Result<(), StoreError> {
        let name = challenge.name();
        self.measured(StoreOperation::PutAcmeChallenge, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.put_acme_response(&name, key_authorization);
                    Ok(())
                }
                Engine::Redis(redis) => redis.put_acme_response(&name, key_authorization).await,
            }
        })
        .await
    }
}
