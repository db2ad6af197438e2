//! How the user of a session signed in at a provider.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::session::Millis;

/// Sign-in at a provider, as the session keeps it. Sessions of passwords and backends have none.
///
/// It does not change during the session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderSignIn {
    /// Name of the provider in the configuration.
    pub provider: Arc<str>,
    /// The provider's `sub` of the user, without a prefix.
    pub subject: String,
    /// The provider's own session, as it named it: opaque, and only for its logout tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// `auth_time`, or the time of the sign-in where the provider gives none.
    pub authenticated_at: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    pub amr: Arc<[String]>,
}

fn is_empty(list: &Arc<[String]>) -> bool {
    list.is_empty()
}

impl ProviderSignIn {
    /// Bytes of its texts, for memory budgets.
    pub fn text_bytes(&self) -> usize {
        let amr = self
            .amr
            .iter()
            .map(|method| method.len() + size_of::<String>());
        self.provider.len()
            + self.subject.len()
            + self.sid.as_ref().map_or(0, String::len)
            + self.acr.as_ref().map_or(0, |acr| acr.len())
            + amr.sum::<usize>()
    }
}

/// Without `sid`, which names a session of the provider.
impl std::fmt::Debug for ProviderSignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderSignIn")
            .field("provider", &self.provider)
            .field("subject", &self.subject)
            .field("authenticated_at", &self.authenticated_at)
            .field("acr", &self.acr)
            .field("amr", &self.amr)
            .finish_non_exhaustive()
    }
}
