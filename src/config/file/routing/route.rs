use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::config::file::identity::RouteIdentityHeaders;
use crate::config::units::{Size, Time};

/// Handling of the requests that match.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Route {
    /// Name in logs, metrics and `explain`.
    #[schemars(length(min = 1, max = 100))]
    pub(in crate::config) name: String,
    /// Conditions that a request must meet.
    #[serde(default, rename = "match")]
    pub(in crate::config) matches: Match,
    /// `required`: 401 without a credential. `optional`: a request without one is anonymous.
    /// `none`: credentials are ignored.
    #[serde(default)]
    pub(in crate::config) auth: Auth,
    /// Credentials that may decide: `session`, `token` and `api_key`. A request that presents one of
    /// another kind is treated as one without. `null`: all.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(in crate::config) accept: Option<Vec<String>>,
    /// Response to a browser that opens a page without being signed in. `refuse`: 401. `redirect`:
    /// a redirect to the gateway's sign-in page, which then returns to the page. A path or URL with
    /// `{return_to}` in its query: a redirect to this page, with the path or the URL to return to.
    /// Other requests always receive 401.
    #[serde(default)]
    pub(in crate::config) on_unauthenticated: OnUnauthenticated,
    /// What the user and their sign-in must have.
    #[serde(default)]
    pub(in crate::config) require: Require,
    /// Names of limits. All of them are decided together.
    #[serde(default)]
    pub(in crate::config) limits: Vec<String>,
    /// Name of the upstream. It may be omitted with `forward_auth`: the route is then for front proxies
    /// only, and a direct request to it is rejected with 404.
    #[serde(default)]
    pub(in crate::config) upstream: Option<String>,
    /// Whether `match.prefix` is removed from the path for the upstream and sent in
    /// `X-Forwarded-Prefix`.
    #[serde(default)]
    pub(in crate::config) strip_prefix: bool,
    /// Maximum size of a request body, or of each message of a gRPC call to an `h2` upstream. A
    /// larger one is rejected with 413. `null`: unlimited.
    #[serde(default = "ten_mebibytes")]
    pub(in crate::config) max_body: Option<Size>,
    /// Overrides of the upstream's timeouts.
    #[serde(default)]
    pub(in crate::config) timeouts: TimeoutOverrides,
    /// Whether the bearer token is passed to the upstream, as it always is with `auth: none`. The
    /// gateway's own cookie never is.
    #[serde(default)]
    pub(in crate::config) forward_credentials: bool,
    /// Whether the upstream receives a signed assertion of the user's identity in
    /// `X-Portcullis-Assertion`: a JWT that is valid for a minute, with the upstream's name as
    /// audience.
    #[serde(default)]
    pub(in crate::config) assertion: bool,
    /// Header in which the upstream receives a token of the provider at which the session signed in,
    /// if the provider has `tokens.keep: true`. A token with less than 10 seconds left is refreshed
    /// first. Requests of other sessions are forwarded without the header, and the client's own is
    /// removed. `null`: none.
    #[serde(default)]
    pub(in crate::config) provider_token: Option<ProviderToken>,
    /// Whether the route is a resource of OAuth clients (RFC 9728), such as an MCP server. Its 401
    /// responses name the metadata below `/.well-known/oauth-protected-resource`, by which clients
    /// find the authorization servers: the trusted issuers, and the introspection entries with an
    /// issuer.
    #[serde(default)]
    pub(in crate::config) oauth_resource: bool,
    /// Ambiguous path syntax that is allowed, although two programs could interpret it differently.
    #[serde(default)]
    pub(in crate::config) allow_in_path: Vec<PathAmbiguity>,
    /// Cross-origin requests. The gateway responds to preflights. `null`: left to the upstream.
    #[serde(default)]
    pub(in crate::config) cors: Option<Cors>,
    /// Overrides of `identity_headers`, key by key.
    #[serde(default)]
    pub(in crate::config) identity_headers: Option<RouteIdentityHeaders>,
    /// Edits of request headers, except those that the gateway vouches for.
    #[serde(default)]
    pub(in crate::config) request_headers: HeaderEdits,
    /// Edits of response headers.
    #[serde(default)]
    pub(in crate::config) response_headers: HeaderEdits,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ProviderToken {
    /// Name of the header. `Authorization` carries `Bearer` and the token, any other header the token
    /// alone.
    #[serde(default = "authorization")]
    pub(in crate::config) header: String,
    /// The access token or the ID token.
    #[serde(default)]
    pub(in crate::config) token: ProviderTokenKind,
}

fn authorization() -> String {
    "Authorization".to_owned()
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ProviderTokenKind {
    #[default]
    Access,
    Id,
}

fn ten_mebibytes() -> Option<Size> {
    Some(Size(10 << 20))
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Match {
    /// Host: `app.example.com` or `*.example.com`. `null`: any.
    pub(in crate::config) host: Option<String>,
    /// Exact path.
    pub(in crate::config) path: Option<String>,
    /// Leading segments of the path.
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum OnUnauthenticated {
    Word(OnUnauthenticatedWord),
    Page(SignInPage),
}

impl Default for OnUnauthenticated {
    fn default() -> OnUnauthenticated {
        OnUnauthenticated::Word(OnUnauthenticatedWord::Refuse)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum OnUnauthenticatedWord {
    Refuse,
    Redirect,
}

/// The address of a sign-in page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::config) struct SignInPage(pub(in crate::config) String);

impl JsonSchema for SignInPage {
    fn schema_name() -> Cow<'static, str> {
        "SignInPage".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(/|https?://)",
            "patternErrorMessage": "is not a path or URL with {return_to}",
            "examples": ["/login?next={return_to}"],
        })
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Require {
    /// Roles of which the user needs at least one. Without it, the response is 403.
    pub(in crate::config) roles: Vec<String>,
    /// Scopes of which the user needs all. Without them, the response is 403. A session has the scopes of its user
    /// (`portcullis users set-roles --scope`).
    pub(in crate::config) scopes: Vec<String>,
    /// Names of providers, at one of which the user must have signed in. Otherwise, the response is
    /// 403.
    pub(in crate::config) providers: Vec<String>,
    /// Authentication context class references (`acr`), one of which the sign-in at a provider must
    /// have. Otherwise, the response is 401 with the challenge of RFC 9470, or, with
    /// `on_unauthenticated: redirect`, another sign-in.
    pub(in crate::config) acr: Vec<String>,
    /// Maximum time since the user authenticated. After it, as for `acr`. `null`: any.
    pub(in crate::config) max_auth_age: Option<Time>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct TimeoutOverrides {
    /// Time limit to connect.
    pub(in crate::config) connect: Option<Time>,
    /// Maximum time between two reads of a response.
    pub(in crate::config) read: Option<Time>,
    /// Maximum time between two writes of a request.
    pub(in crate::config) write: Option<Time>,
    /// How long an idle connection is kept in the pool.
    pub(in crate::config) idle: Option<Time>,
    /// Idle timeout of an upgraded connection, an event stream or a gRPC stream.
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
    /// Allowed origins, such as `https://app.example.com`, or `*` for all.
    #[schemars(length(min = 1))]
    pub(in crate::config) origins: Vec<String>,
    /// Allowed methods.
    #[serde(default = "simple_methods")]
    pub(in crate::config) methods: Vec<String>,
    /// Request headers that scripts may send.
    #[serde(default)]
    pub(in crate::config) headers: Vec<String>,
    /// Response headers that scripts may read.
    #[serde(default)]
    pub(in crate::config) expose: Vec<String>,
    /// Whether requests may carry cookies. Not allowed with the origin `*`.
    #[serde(default)]
    pub(in crate::config) credentials: bool,
    /// How long browsers may cache a preflight response. `null`: the browser's default.
    #[serde(default)]
    pub(in crate::config) max_age: Option<Time>,
}

fn simple_methods() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(str::to_owned).to_vec()
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct HeaderEdits {
    /// Headers to set, replacing existing values.
    pub(in crate::config) set: BTreeMap<String, String>,
    /// Headers to remove.
    pub(in crate::config) remove: Vec<String>,
}
