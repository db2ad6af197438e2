//! Sign-in at an OpenID provider, or at an OAuth 2.0 server with a userinfo endpoint.
//!
//! Every type can be compared, so that a reload keeps the client of a provider whose settings are
//! unchanged. Secrets and keys are not printed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::UpstreamTls;
use crate::auth::token::{Algorithm, Key};

/// A provider at which users sign in.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// `[a-z0-9-]`, at most 32 characters; in paths, metrics, logs and sessions.
    pub name: Arc<str>,
    /// On the sign-in page.
    pub title: String,
    pub kind: ProviderKind,
    /// Always present for [`ProviderKind::Oidc`]. Without it, the parameter `iss` of a callback is
    /// not checked, and the name of the provider is the issuer of its users.
    pub issuer: Option<Issuer>,
    pub endpoints: Endpoints,
    pub client_id: String,
    pub client_auth: ClientAuthentication,
    pub scopes: Vec<String>,
    /// Further parameters of authorization requests, none of which is the protocol's own.
    pub authorization_params: Vec<(String, String)>,
    pub response_mode: ResponseMode,
    pub par: Par,
    /// Values that `aud` of an ID token may have beside the client ID.
    pub extra_audiences: Vec<String>,
    /// Of ID tokens, logout tokens and JARM responses. Never symmetric, never empty.
    pub algorithms: Vec<Algorithm>,
    pub claims: ProviderClaims,
    /// The gateway's roles by the provider's; a role that is not in it is dropped. `None`: roles as
    /// they come.
    pub roles_map: Option<BTreeMap<String, Vec<String>>>,
    pub userinfo: UserinfoUse,
    /// Whether an email counts as verified although the provider does not say so.
    pub trust_email: bool,
    pub allow: Allow,
    pub users: UserStorage,
    /// Absolute lifetime of its sessions, where shorter than that of all sessions.
    pub session_ttl: Option<Duration>,
    pub tokens: TokenKeeping,
    pub logout: LogoutRules,
    /// For one call of the provider.
    pub timeout: Duration,
    /// Of connections to the provider; the name to verify is the host of each address.
    pub tls: UpstreamTls,
}

impl Provider {
    /// Whether the provider issues ID tokens.
    pub fn has_id_tokens(&self) -> bool {
        self.kind == ProviderKind::Oidc
    }

    /// Origins of the provider's own pages, as far as the configuration names them.
    pub fn page_origins(&self) -> Vec<String> {
        let issuer = match &self.issuer {
            Some(Issuer::Exact(name)) => Url::parse(name).ok(),
            Some(Issuer::Tenants { template, .. }) => Url::parse(template).ok(),
            None => None,
        };
        let endpoints = [&self.endpoints.authorization, &self.endpoints.end_session];
        let urls = issuer.iter().chain(endpoints.into_iter().flatten());
        let mut origins: Vec<String> = urls.map(|url| url.origin().ascii_serialization()).collect();
        origins.dedup();
        origins
    }

    /// Whether an issuer is the provider's. Without a configured issuer any is.
    pub fn accepts_issuer(&self, text: &str) -> bool {
        match &self.issuer {
            None => true,
            Some(Issuer::Exact(name)) => text == name,
            Some(Issuer::Tenants { template, tenants }) => {
                let mut tenants = tenants.iter();
                tenants.any(|tenant| text == template.replace(TENANT_ID, tenant))
            }
        }
    }

    /// The issuers of its users: one for each tenant, and the provider's own name where it has none.
    pub fn issuers(&self) -> Vec<String> {
        match &self.issuer {
            None => vec![self.name.to_string()],
            Some(Issuer::Exact(name)) => vec![name.clone()],
            Some(Issuer::Tenants { template, tenants }) => {
                let tenants = tenants.iter();
                let issuers = tenants.map(|tenant| template.replace(TENANT_ID, tenant));
                issuers.collect()
            }
        }
    }

    /// Returns the issuer's exact name; `None` without one, and for an issuer of several tenants.
    pub fn exact_issuer(&self) -> Option<&str> {
        match &self.issuer {
            Some(Issuer::Exact(name)) => Some(name),
            Some(Issuer::Tenants { .. }) | None => None,
        }
    }
}

/// Protocol of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// OpenID Connect: an ID token identifies the user.
    Oidc,
    /// OAuth 2.0: the userinfo endpoint identifies the user.
    OAuth2,
    /// OAuth 2.0 with the API of GitHub, whose endpoints are filled in. Its claims are those of
    /// `GET /user`, with the primary verified email in `email` and `email_verified`, and with
    /// `groups`: `org:ACME` and `team:ACME/ops`.
    GitHub,
}

/// Issuer of a provider's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// The name, byte for byte.
    Exact(String),
    /// One issuer for each tenant.
    Tenants {
        /// With `{tenantid}` in place of the tenant, once.
        template: String,
        /// The accepted tenants, in lower case.
        tenants: Vec<String>,
    },
}

impl Issuer {
    /// The name, or the template of the names of all tenants.
    pub fn text(&self) -> &str {
        match self {
            Issuer::Exact(name) => name,
            Issuer::Tenants { template, .. } => template,
        }
    }
}

/// The placeholder in [`Issuer::Tenants`].
pub const TENANT_ID: &str = "{tenantid}";

/// Addresses that replace those of the discovery document. They are https, or http on loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Address of the document, if it is not below the issuer.
    pub discovery: Option<Url>,
    /// Always present without discovery, as `token` and `userinfo` are.
    pub authorization: Option<Url>,
    pub token: Option<Url>,
    /// For GitHub, the address of `/user`, beside which the API's other resources are.
    pub userinfo: Option<Url>,
    pub jwks: Option<Url>,
    pub end_session: Option<Url>,
    pub par: Option<Url>,
    pub revocation: Option<Url>,
}

/// How the gateway authenticates at a provider's endpoints.
#[derive(Debug, Clone)]
pub enum ClientAuthentication {
    /// `client_secret_basic`.
    SecretBasic(SecretString),
    /// `client_secret_post`.
    SecretPost(SecretString),
    /// `private_key_jwt`, with a private key.
    PrivateKey(Key),
    /// `none`: a public client.
    None,
}

impl ClientAuthentication {
    /// The name in the metadata of a provider (`token_endpoint_auth_methods_supported`).
    pub fn as_str(&self) -> &'static str {
        match self {
            ClientAuthentication::SecretBasic(_) => "client_secret_basic",
            ClientAuthentication::SecretPost(_) => "client_secret_post",
            ClientAuthentication::PrivateKey(_) => "private_key_jwt",
            ClientAuthentication::None => "none",
        }
    }
}

impl PartialEq for ClientAuthentication {
    fn eq(&self, other: &ClientAuthentication) -> bool {
        use ClientAuthentication::{None, PrivateKey, SecretBasic, SecretPost};
        match (self, other) {
            (SecretBasic(one), SecretBasic(other)) | (SecretPost(one), SecretPost(other)) => {
                one.expose_secret() == other.expose_secret()
            }
            (PrivateKey(one), PrivateKey(other)) => one.is_same_as(other),
            (None, None) => true,
            _ => false,
        }
    }
}

/// How a provider returns the result of an authorization request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseMode {
    /// In the query of the redirect.
    Query,
    /// As a form that the browser submits.
    FormPost,
    /// As a signed token (JARM).
    Jwt,
}

/// When authorization requests are pushed (RFC 9126).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Par {
    /// Where the provider's metadata requires it.
    Auto,
    Always,
    Never,
}

/// Where the attributes of a user are in the claims.
///
/// Each list is tried in order and the first claim that is present counts; an empty list stands for
/// an attribute that is not read. An entry that starts with a slash is a JSON pointer, any other the
/// exact name of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderClaims {
    /// Never empty.
    pub user: Vec<String>,
    pub email: Vec<String>,
    pub email_verified: Vec<String>,
    pub name: Vec<String>,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
}

/// When the userinfo endpoint is queried. Without ID tokens it always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserinfoUse {
    /// Where a mapped claim is not in the ID token.
    Auto,
    Always,
    Never,
}

/// Who may sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    Anyone,
    /// Users who satisfy every condition that is given. At least one is.
    Listed(AllowLists),
}

/// Conditions for a user; an empty list is no condition, except that `emails` and `domains` are one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowLists {
    /// In lower case.
    pub emails: Vec<String>,
    pub domains: Vec<EmailDomain>,
    /// Values of [`ProviderClaims::roles`], before [`Provider::roles_map`].
    pub groups: Vec<String>,
    /// User IDs without prefix.
    pub users: Vec<String>,
}

/// The part of an email after the `@`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmailDomain {
    Exact(String),
    /// Every subdomain of this name, and not the name itself.
    Subdomains(String),
}

/// Where the users of a provider are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserStorage {
    /// Nowhere: a user is the provider's, with this before the user ID.
    External { prefix: String },
    /// One row each in the database.
    Database {
        /// Whether an unknown identity creates a row.
        create: bool,
        /// Whether an unknown identity with a verified email joins the row that has it.
        link_by_email: bool,
    },
}

/// The provider's tokens after the sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenKeeping {
    /// Whether they are kept, sealed, with the session.
    pub keep: bool,
    /// How long a session is used before the provider must confirm it again. Requires `keep`.
    pub recheck: Option<Duration>,
    pub on_outage: RecheckOutage,
}

/// What becomes of a session that its provider cannot confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecheckOutage {
    Continue,
    /// It continues for this long; then requests are 503.
    For(Duration),
}

/// Sign-out at the provider, and by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutRules {
    /// Whether a sign-out on the page also ends the provider's session.
    pub at_provider: bool,
    /// Whether the provider may end sessions by back-channel logout.
    pub back_channel: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_compared_and_not_printed() {
        let basic = |secret: &str| ClientAuthentication::SecretBasic(secret.into());
        assert_eq!(basic("hunter2"), basic("hunter2"));
        assert_ne!(basic("hunter2"), basic("hunter3"));
        assert_ne!(
            basic("hunter2"),
            ClientAuthentication::SecretPost("hunter2".into())
        );
        assert!(!format!("{:?}", basic("hunter2")).contains("hunter2"));
    }
}
