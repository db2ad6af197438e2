use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::config::file::storage::LimitsOnOutage;
use crate::config::units::Time;

/// One rate limit.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Limit {
    /// `sliding_window`: two weighted counters. `sliding_log`: every request, exactly.
    /// `token_bucket`: steady refill, with a `burst`.
    #[serde(default)]
    pub(in crate::config) algorithm: Algorithm,
    /// Maximum number of requests per window.
    #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
    pub(in crate::config) limit: u64,
    /// Length of the window.
    pub(in crate::config) window: Time,
    /// Capacity of the token bucket. `null`: the same as `limit`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
    pub(in crate::config) burst: Option<u64>,
    /// What requests are counted by: `ip`, `user`, `session`, `token`, `route` or `header:NAME`, or
    /// a list of these for one counter per combination.
    pub(in crate::config) key: Key,
    /// `exact`: the store makes every decision. `leased`: the gateway obtains units from the store
    /// in small batches and decides locally.
    #[serde(default)]
    pub(in crate::config) consistency: Consistency,
    /// Roles to which the limit applies. Empty: all users.
    #[serde(default)]
    pub(in crate::config) roles: Vec<String>,
    /// Roles that are exempt from the limit.
    #[serde(default)]
    pub(in crate::config) except_roles: Vec<String>,
    /// Behavior in degraded mode. `null`: as `store.on_outage.limits`.
    #[serde(default)]
    pub(in crate::config) on_outage: Option<LimitsOnOutage>,
    /// Whether the limit only counts and reports, and never rejects.
    #[serde(default)]
    pub(in crate::config) shadow: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Algorithm {
    #[default]
    SlidingWindow,
    SlidingLog,
    TokenBucket,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Consistency {
    #[default]
    Exact,
    Leased,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Key {
    One(KeyPart),
    Many(#[schemars(length(min = 1))] Vec<KeyPart>),
}

impl Key {
    /// The parts of the key.
    pub(in crate::config) fn parts(&self) -> &[KeyPart] {
        match self {
            Key::One(part) => std::slice::from_ref(part),
            Key::Many(parts) => parts,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::config) struct KeyPart(pub(in crate::config) String);

impl JsonSchema for KeyPart {
    fn schema_name() -> Cow<'static, str> {
        "KeyPart".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(ip|user|session|token|route|header:.+)$",
            "patternErrorMessage":
                "is not a key; use ip, user, session, token, route or header:NAME",
            "examples": ["ip", "user", "session", "token", "route", "header:X-Api-Key"],
        })
    }
}
