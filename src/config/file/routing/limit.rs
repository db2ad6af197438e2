use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::config::file::storage::LimitsOnOutage;
use crate::config::units::Time;

/// One rate limit.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Limit {
    /// `sliding_window`: two weighted counters. `sliding_log`: exact. `token_bucket`: refills
    /// evenly, with a `burst`.
    #[serde(default)]
    pub(in crate::config) algorithm: Algorithm,
    /// Requests in a window.
    #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
    pub(in crate::config) limit: u64,
    /// The window.
    pub(in crate::config) window: Time,
    /// The size of a token bucket. `null`: the same as `limit`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
    pub(in crate::config) burst: Option<u64>,
    /// Who is counted together: `ip`, `user`, `session`, `token`, `route`, `header:NAME`, or a
    /// list of them for one counter for each combination.
    pub(in crate::config) key: Key,
    /// `exact`: every decision by the store. `leased`: this gateway takes small batches from the
    /// store, and decides from them.
    #[serde(default)]
    pub(in crate::config) consistency: Consistency,
    /// Binds only those who hold one of these. Empty: everyone.
    #[serde(default)]
    pub(in crate::config) roles: Vec<String>,
    /// Does not bind those who hold one of these.
    #[serde(default)]
    pub(in crate::config) except_roles: Vec<String>,
    /// What holds while the store does not answer. `null`: what `store.on_outage.limits` says.
    #[serde(default)]
    pub(in crate::config) on_outage: Option<LimitsOnOutage>,
    /// Counts and reports, and never refuses.
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
    /// The parts, one or many.
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
                "is not a key; write ip, user, session, token, route or header:NAME",
            "examples": ["ip", "user", "session", "token", "route", "header:X-Api-Key"],
        })
    }
}
