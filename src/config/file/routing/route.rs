use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::file::identity::RouteIdentityHeaders;
use crate::config::units::{Size, Time};

/// What is done with the requests that match.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Route {
    /// The name in logs, metrics and `explain`.
    #[schemars(length(min = 1, max = 100))]
    pub(in crate::config) name: String,
    /// What a request must look like.
    #[serde(default, rename = "match")]
    pub(in crate::config) matches: Match,
    /// `required`: 401 without a credential. `optional`: anonymous without one. `none`: credentials
    /// are ignored.
    #[serde(default)]
    pub(in crate::config) auth: Auth,
    /// What a browser gets that opens a page here and is not signed in: `refuse`: 401. `redirect`: the
    /// gateway's sign-in page, which brings it back. Programs and scripts always get 401.
    #[serde(default)]
    pub(in crate::config) on_unauthenticated: OnUnauthenticated,
    /// What the user must hold; without it 403.
    #[serde(default)]
    pub(in crate::config) require: Require,
    /// Names of limits. All of them are one decision.
    #[serde(default)]
    pub(in crate::config) limits: Vec<String>,
    /// The name of an upstream.
    pub(in crate::config) upstream: String,
    /// Take `match.prefix` off the path before it goes upstream, and say so in `X-Forwarded-Prefix`.
    #[serde(default)]
    pub(in crate::config) strip_prefix: bool,
    /// The size of a request body, or of each message of a gRPC call to an `h2` upstream; beyond it
    /// the response is 413. `null`: unlimited.
    #[serde(default = "ten_mebibytes")]
    pub(in crate::config) max_body: Option<Size>,
    /// Overrides of the upstream's timeouts.
    #[serde(default)]
    pub(in crate::config) timeouts: TimeoutOverrides,
    /// Let a bearer token go on to the upstream. The gateway's own cookie never does.
    #[serde(default)]
    pub(in crate::config) forward_credentials: bool,
    /// Give the upstream a signed assertion of who asks: `X-Portcullis-Assertion`, a JWT of a minute
    /// for the upstream's name as audience.
    #[serde(default)]
    pub(in crate::config) assertion: bool,
    /// Oddities of a path that are allowed here, although two readers could read them differently.
    #[serde(default)]
    pub(in crate::config) allow_in_path: Vec<PathAmbiguity>,
    /// Cross-origin calls; preflights are answered by the gateway. `null`: left to the upstream.
    #[serde(default)]
    pub(in crate::config) cors: Option<Cors>,
    /// Other identity headers than those of `identity_headers`, key by key.
    #[serde(default)]
    pub(in crate::config) identity_headers: Option<RouteIdentityHeaders>,
    /// Towards the upstream. Cannot touch what the gateway vouches for.
    #[serde(default)]
    pub(in crate::config) request_headers: HeaderEdits,
    /// Towards the client.
    #[serde(default)]
    pub(in crate::config) response_headers: HeaderEdits,
}

fn ten_mebibytes() -> Option<Size> {
    Some(Size(10 << 20))
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Match {
    /// `app.example.com` or `*.example.com`. `null`: any.
    pub(in crate::config) host: Option<String>,
    /// The whole path.
    pub(in crate::config) path: Option<String>,
    /// The first segments of the path.
    pub(in crate::config) prefix: Option<String>,
    /// Methods. Empty: any.
    pub(in crate::config) methods: Vec<String>,
    /// Headers with their exact values.
    pub(in crate::config) headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Auth {
    #[default]
    Required,
    Optional,
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum OnUnauthenticated {
    #[default]
    Refuse,
    Redirect,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Require {
    /// Any of these.
    pub(in crate::config) roles: Vec<String>,
    /// All of these. A session has the scopes of its user (`portcullis users set-roles --scope`).
    pub(in crate::config) scopes: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct TimeoutOverrides {
    /// To connect.
    pub(in crate::config) connect: Option<Time>,
    /// Between two pieces of an answer.
    pub(in crate::config) read: Option<Time>,
    /// Between two pieces of a request.
    pub(in crate::config) write: Option<Time>,
    /// In the pool.
    pub(in crate::config) idle: Option<Time>,
    /// Of an upgraded connection or an event stream.
    pub(in crate::config) stream_idle: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum PathAmbiguity {
    DoubleSlash,
    EncodedSlash,
    EncodedBackslash,
    EncodedSemicolon,
    EncodedPercent,
    EncodedQuestionMark,
    EncodedHash,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Cors {
    /// `https://app.example.com`, or `*` for all.
    #[schemars(length(min = 1))]
    pub(in crate::config) origins: Vec<String>,
    /// Methods that may be used.
    #[serde(default = "simple_methods")]
    pub(in crate::config) methods: Vec<String>,
    /// Request headers that may be sent.
    #[serde(default)]
    pub(in crate::config) headers: Vec<String>,
    /// Response headers that may be read.
    #[serde(default)]
    pub(in crate::config) expose: Vec<String>,
    /// Whether cookies are sent. Not with the origin `*`.
    #[serde(default)]
    pub(in crate::config) credentials: bool,
    /// How long a browser may remember the answer. `null`: as long as it likes.
    #[serde(default)]
    pub(in crate::config) max_age: Option<Time>,
}

fn simple_methods() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(str::to_owned).to_vec()
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct HeaderEdits {
    /// Headers with their values, in place of what was there.
    pub(in crate::config) set: BTreeMap<String, String>,
    /// Headers to take out.
    pub(in crate::config) remove: Vec<String>,
}
