//! API keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::Time;

/// API keys of users and services.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ApiKeys {
    /// Beginning of every key, before `_`: at most 32 lowercase letters, digits and single `_`, with
    /// a letter first. Keys with another beginning are not accepted.
    pub(in crate::config) prefix: String,
    /// Request header in which a key may be sent besides `Authorization: Bearer`, such as
    /// `X-API-Key`. It never reaches an upstream. `null`: none.
    pub(in crate::config) header: Option<String>,
    /// Whether users in the database create keys of their own, by the endpoints `api-keys`.
    pub(in crate::config) self_service: bool,
    /// Maximum number of active keys of a user or a service.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) max_per_owner: u32,
    /// Maximum time until the expiry of a key, which is also the default. `null`: a key need not
    /// expire.
    pub(in crate::config) max_ttl: Option<Time>,
}

impl Default for ApiKeys {
    fn default() -> ApiKeys {
        ApiKeys {
            prefix: "pck".to_owned(),
            header: None,
            self_service: false,
            max_per_owner: 20,
            max_ttl: None,
        }
    }
}
