//! Sign-in at providers.

mod client;

use std::collections::BTreeMap;

pub(in crate::config) use client::{ClientAuth, ClientKey, ClientKeyAlgorithm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::file::backend::BackendTls;
use crate::config::units::{Secret, Time};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Provider {
    /// `oidc`: OpenID Connect; the ID token identifies the user. `oauth2`: OAuth 2.0 without ID
    /// tokens; the userinfo endpoint identifies the user. `github`: OAuth 2.0 with GitHub's
    /// endpoints, whose claims are those of `GET /user`, with the primary verified address in
    /// `email` and with `groups`: `org:ACME` and `team:ACME/ops`.
    #[serde(default)]
    pub(in crate::config) kind: ProviderKind,
    /// Name on the sign-in page. `null`: the name of the provider.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100))]
    pub(in crate::config) title: Option<String>,
    /// Exact `iss` of the provider's tokens; its discovery document is below it. Required for
    /// `oidc`. With `{tenantid}` in it, each tenant has an issuer of its own, and `tenants` is
    /// required.
    #[serde(default)]
    pub(in crate::config) issuer: Option<String>,
    /// IDs (GUIDs) of the accepted tenants, for an issuer with `{tenantid}`. `iss` and `tid` of a
    /// token must be of the same one.
    #[serde(default)]
    pub(in crate::config) tenants: Vec<String>,
    /// Addresses that replace those of the discovery document: https, or http on loopback if the
    /// issuer is on loopback. `oauth2` requires `authorization`, `token` and `userinfo`.
    #[serde(default)]
    pub(in crate::config) endpoints: Endpoints,
    /// ID of the gateway at the provider.
    #[schemars(length(min = 1, max = 1000))]
    pub(in crate::config) client_id: String,
    /// How the gateway authenticates at the provider. `private_key_jwt` requires `client_key`,
    /// `none` takes nothing, and the others require `client_secret`.
    #[serde(default)]
    pub(in crate::config) client_auth: ClientAuth,
    /// Secret of the gateway at the provider.
    #[serde(default)]
    pub(in crate::config) client_secret: Option<Secret>,
    /// File with the secret; replaces `client_secret`.
    #[serde(default)]
    pub(in crate::config) client_secret_file: Option<String>,
    /// Private key for `private_key_jwt`. Its public half is at `auth/jwks/NAME` below
    /// `api.prefix`.
    #[serde(default)]
    pub(in crate::config) client_key: Option<ClientKey>,
    /// Requested scopes. The default of `github` is `[read:user, user:email, read:org]`.
    #[serde(default = "openid_scopes")]
    pub(in crate::config) scopes: Vec<String>,
    /// Further parameters of authorization requests, such as `prompt`, `acr_values`, `audience` or
    /// `domain_hint`. Those of the protocol itself cannot be set. Only `max_age` is enforced: users can
    /// change the others in their browser, unless the request is pushed (`par: true`).
    #[serde(default)]
    pub(in crate::config) authorization_params: BTreeMap<String, Parameter>,
    /// How the provider returns the result to the gateway. `form_post` requires
    /// `sessions.cookie.secure`. `jwt`: as a signed token (JARM).
    #[serde(default)]
    pub(in crate::config) response_mode: ResponseMode,
    /// Whether authorization requests are pushed (RFC 9126). `auto`: where the provider requires it.
    #[serde(default)]
    pub(in crate::config) par: Par,
    /// Values that `aud` of an ID token may have beside the client ID.
    #[serde(default)]
    pub(in crate::config) extra_audiences: Vec<String>,
    /// Algorithms of ID tokens, logout tokens and JARM responses.
    #[serde(default = "usual_algorithms")]
    #[schemars(length(min = 1))]
    pub(in crate::config) algorithms: Vec<ProviderAlgorithm>,
    /// Claims with the attributes of a user. Each is the exact name of a claim, a JSON pointer such
    /// as `/realm_access/roles`, or a list of them, of which the first that is present counts.
    /// `null`: the attribute is not read.
    #[serde(default)]
    pub(in crate::config) claims: ProviderClaims,
    /// Roles of the gateway by those of the provider. A role that is not in it is dropped. `null`:
    /// roles as they come.
    #[serde(default)]
    pub(in crate::config) roles_map: Option<BTreeMap<String, Names>>,
    /// When the userinfo endpoint is queried. `auto`: where a mapped claim is not in the ID token.
    /// `oauth2` and `github` always query it.
    #[serde(default)]
    pub(in crate::config) userinfo: Userinfo,
    /// Whether an email counts as verified although the provider does not say so.
    #[serde(default)]
    pub(in crate::config) trust_email: bool,
    /// Who may sign in: `anyone`, or users who satisfy every given condition.
    pub(in crate::config) allow: Allow,
    /// Where users are kept. `external`: nowhere; they are known by their issuer and user ID.
    /// `database`: in one row each.
    #[serde(default)]
    pub(in crate::config) users: Users,
    /// With `users: database`: whether an unknown identity creates a row. `false`: only identities
    /// that were linked before can sign in.
    #[serde(default = "yes")]
    pub(in crate::config) create: bool,
    /// With `users: database`: whether an unknown identity with a verified email joins the row that
    /// has this email.
    #[serde(default)]
    pub(in crate::config) link_by_email: bool,
    /// Prefix for the IDs of its users. `null`: the name of the provider and a colon. Not with
    /// `users: database`.
    #[serde(default)]
    pub(in crate::config) user_prefix: Option<String>,
    /// Absolute lifetime of its sessions, where shorter than `sessions.ttl`.
    #[serde(default)]
    pub(in crate::config) session_ttl: Option<Time>,
    /// The provider's tokens after the sign-in.
    #[serde(default)]
    pub(in crate::config) tokens: KeptTokens,
    /// Sign-out at the provider, and by it.
    #[serde(default)]
    pub(in crate::config) logout: Logout,
    /// Time limit for one call of the provider.
    #[serde(default = "five_seconds")]
    pub(in crate::config) timeout: Time,
    /// TLS to the provider.
    #[serde(default)]
    pub(in crate::config) tls: BackendTls,
}

fn openid_scopes() -> Vec<String> {
    ["openid", "email", "profile"].map(str::to_owned).to_vec()
}

fn usual_algorithms() -> Vec<ProviderAlgorithm> {
    vec![
        ProviderAlgorithm::RS256,
        ProviderAlgorithm::ES256,
        ProviderAlgorithm::EdDSA,
    ]
}

fn yes() -> bool {
    true
}

fn five_seconds() -> Time {
    Time::seconds(5)
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum ProviderKind {
    #[default]
    Oidc,
    OAuth2,
    GitHub,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Endpoints {
    /// Address of the discovery document, if it is not below the issuer.
    pub(in crate::config) discovery: Option<String>,
    /// Where a browser is sent to sign in.
    pub(in crate::config) authorization: Option<String>,
    /// Where a code is exchanged for tokens.
    pub(in crate::config) token: Option<String>,
    /// Where the claims of the user are. For GitHub Enterprise, the address of `/user` of its API.
    pub(in crate::config) userinfo: Option<String>,
    /// The key set.
    pub(in crate::config) jwks: Option<String>,
    /// Where a browser is sent to sign out.
    pub(in crate::config) end_session: Option<String>,
    /// Where authorization requests are pushed.
    pub(in crate::config) par: Option<String>,
    /// Where tokens are revoked.
    pub(in crate::config) revocation: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::config) enum ProviderAlgorithm {
    RS256,
    ES256,
    EdDSA,
    PS256,
    ES384,
}

/// The value of a parameter.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Parameter {
    Text(String),
    Number(u64),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ResponseMode {
    #[default]
    Query,
    FormPost,
    Jwt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Par {
    Auto(Auto),
    Fixed(bool),
}

impl Default for Par {
    fn default() -> Par {
        Par::Auto(Auto::Auto)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Auto {
    Auto,
}

/// A name, or a list of names.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Names {
    One(String),
    Several(Vec<String>),
}

impl Names {
    fn one(name: &str) -> Names {
        Names::One(name.to_owned())
    }

    /// Returns the names as a list.
    pub(in crate::config) fn as_slice(&self) -> &[String] {
        match self {
            Names::One(name) => std::slice::from_ref(name),
            Names::Several(names) => names,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ProviderClaims {
    /// The user's ID: a string, or, in a claim other than `sub`, an integer, which is used in
    /// decimal. The default of `github` is `id`.
    pub(in crate::config) user: Names,
    /// The email address.
    pub(in crate::config) email: Option<Names>,
    /// Whether the email is verified; only the value `true` counts.
    pub(in crate::config) email_verified: Option<Names>,
    /// The display name.
    pub(in crate::config) name: Option<Names>,
    /// The roles or groups. The default of `github` is `groups`.
    pub(in crate::config) roles: Option<Names>,
    /// The scopes.
    pub(in crate::config) scopes: Option<Names>,
}

impl Default for ProviderClaims {
    fn default() -> ProviderClaims {
        ProviderClaims {
            user: Names::one("sub"),
            email: Some(Names::one("email")),
            email_verified: Some(Names::one("email_verified")),
            name: Some(Names::one("name")),
            roles: None,
            scopes: None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Userinfo {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Allow {
    Everyone(Anyone),
    Listed(AllowLists),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Anyone {
    Anyone,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct AllowLists {
    /// Verified emails. A user needs one of these or of `domains`.
    pub(in crate::config) emails: Vec<String>,
    /// Domains of verified emails: `example.com`, or `*.example.com` for its subdomains.
    pub(in crate::config) domains: Vec<String>,
    /// Values of `claims.roles`, before `roles_map`. A user needs one of them.
    pub(in crate::config) groups: Vec<String>,
    /// User IDs without prefix. A user must be one of them.
    pub(in crate::config) users: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Users {
    #[default]
    External,
    Database,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct KeptTokens {
    /// Whether the provider's tokens are kept with the session, sealed with `encryption.key`.
    pub(in crate::config) keep: bool,
    /// How long a session is used before its provider must confirm it again, with the refresh
    /// token. Requires `keep`. `null`: never.
    pub(in crate::config) recheck: Option<Time>,
    /// What becomes of a session that its provider cannot confirm. `continue`: it continues. A
    /// duration: it continues for this long; then its requests are 503 until the provider responds.
    pub(in crate::config) on_outage: RecheckOutage,
}

impl Default for KeptTokens {
    fn default() -> KeptTokens {
        KeptTokens {
            keep: false,
            recheck: None,
            on_outage: RecheckOutage::Word(Continue::Continue),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum RecheckOutage {
    Word(Continue),
    For(Time),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Continue {
    Continue,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Logout {
    /// Whether a sign-out on the gateway's page also ends the session at the provider.
    pub(in crate::config) at_provider: bool,
    /// Whether the provider may end sessions by back-channel logout.
    pub(in crate::config) back_channel: bool,
}

impl Default for Logout {
    fn default() -> Logout {
        Logout {
            at_provider: true,
            back_channel: true,
        }
    }
}
