use std::time::Duration;

use http::HeaderName;

/// API keys of users and services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeys {
    /// Beginning of every key, before `_`.
    pub prefix: String,
    /// Request header in which a key may be sent besides `Authorization`.
    pub header: Option<HeaderName>,
    /// Whether users in the database create their own.
    pub self_service: bool,
    /// Maximum number of active keys.
    pub max_per_owner: u32,
    /// Maximum time until a key expires; `None`: a key need not expire.
    pub max_ttl: Option<Duration>,
}
