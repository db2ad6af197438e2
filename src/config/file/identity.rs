//! Sessions, identities and the gateway's own endpoints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::backend::BackendIdentity;
use super::provider::Provider;
use crate::config::units::{Size, Time};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Sessions {
    /// Absolute lifetime of a session.
    pub(in crate::config) ttl: Time,
    /// Time after which an unused session ends. Requests extend it, as does data that a client
    /// sends on an open stream, but never past `ttl`. `null`: off.
    pub(in crate::config) idle_timeout: Option<Time>,
    /// Maximum number of sessions per user.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) max_per_user: u32,
    /// Handling of a sign-in beyond `max_per_user`. `evict_oldest`: end the oldest session.
    /// `reject`: decline the sign-in.
    pub(in crate::config) on_limit: OnLimit,
    /// Whether sessions are also kept in the database, which is used when the store has lost them
    /// or does not respond.
    pub(in crate::config) durable: bool,
    /// The session cookie. It is always `HttpOnly` and expires with its session.
    pub(in crate::config) cookie: Cookie,
    /// Handling of a session that is used or refreshed from another client than the one that signed
    /// in. `warn`: record an event. `deny`: respond with 401.
    pub(in crate::config) bind: Bind,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            ttl: Time::seconds(30 * 86_400),
            idle_timeout: Some(Time::seconds(86_400)),
            max_per_user: 5,
            on_limit: OnLimit::EvictOldest,
            durable: false,
            cookie: Cookie::default(),
            bind: Bind::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum OnLimit {
    EvictOldest,
    Reject,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Cookie {
    /// Cookie name. `null`: `__Host-portcullis` if the cookie meets the rules of that prefix
    /// (secure, no domain, path `/`), `portcullis` otherwise.
    pub(in crate::config) name: Option<String>,
    /// Whether browsers send the cookie over https only. Browsers also treat `localhost` as secure.
    pub(in crate::config) secure: bool,
    /// Whether requests from other sites carry the cookie. `none` requires `secure`.
    pub(in crate::config) same_site: SameSite,
    /// Domain of the cookie. `null`: only the host that set it.
    pub(in crate::config) domain: Option<String>,
    /// Path for which the cookie is sent.
    pub(in crate::config) path: String,
}

impl Default for Cookie {
    fn default() -> Cookie {
        Cookie {
            name: None,
            secure: true,
            same_site: SameSite::Lax,
            domain: None,
            path: "/".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum SameSite {
    Strict,
    Lax,
    None,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Bind {
    /// Binding to the `User-Agent`.
    pub(in crate::config) user_agent: Binding,
    /// Binding to the client address.
    pub(in crate::config) ip: Binding,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Binding {
    #[default]
    Off,
    Warn,
    Deny,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Identity {
    /// Users in the gateway's database, with passwords. Beside `providers`, they exist only if this
    /// key is in the file.
    pub(in crate::config) builtin: Builtin,
    /// Users of a backend that checks their credentials; replaces `builtin`.
    pub(in crate::config) upstream: Option<BackendIdentity>,
    /// Providers at which users sign in, by name (`[a-z0-9-]`, at most 32 characters, not `password`
    /// or `upstream`), in the order of the sign-in page.
    pub(in crate::config) providers: BTreeMap<String, Provider>,
    /// Limits on sign-in attempts, at providers too. `null`: those of `builtin` or `upstream`.
    pub(in crate::config) sign_in_limits: Option<SignInLimits>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Builtin {
    /// Whether users can register themselves. `open`: yes. `closed`: no.
    pub(in crate::config) registration: Registration,
    /// Minimum length of a password, in characters.
    #[schemars(range(min = 8, max = 128))]
    pub(in crate::config) password_min_length: u32,
    /// Cost of password hashes (Argon2id). When it is raised, a password is rehashed at the user's
    /// next sign-in.
    pub(in crate::config) password_hash: PasswordHash,
    /// Limits on sign-in attempts.
    pub(in crate::config) sign_in_limits: SignInLimits,
}

impl Default for Builtin {
    fn default() -> Builtin {
        Builtin {
            registration: Registration::Closed,
            password_min_length: 12,
            password_hash: PasswordHash::default(),
            sign_in_limits: SignInLimits::default(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct PasswordHash {
    /// Memory per hash. At most one hash per core is computed at a time.
    pub(in crate::config) memory: Size,
    /// Number of passes over the memory.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::config) iterations: u32,
    /// Number of lanes. More lanes do not make a hash faster.
    #[schemars(range(min = 1, max = 16))]
    pub(in crate::config) parallelism: u32,
}

impl Default for PasswordHash {
    fn default() -> PasswordHash {
        PasswordHash {
            memory: Size(19 << 20),
            iterations: 2,
            parallelism: 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Registration {
    Open,
    Closed,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct SignInLimits {
    /// Limit on sign-ins and registrations from one address, successful or not.
    pub(in crate::config) attempts_per_address: Rate,
    /// Limit on failures, counted by account and address. Above ten times this limit over all
    /// addresses, only addresses from which the account has never signed in are refused.
    pub(in crate::config) failures_per_account: Rate,
}

impl Default for SignInLimits {
    fn default() -> SignInLimits {
        SignInLimits {
            attempts_per_address: Rate {
                limit: 120,
                window: Time::seconds(60),
            },
            failures_per_account: Rate {
                limit: 10,
                window: Time::seconds(600),
            },
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rate {
    /// Maximum number per window.
    #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
    pub(in crate::config) limit: u64,
    /// Length of the window.
    pub(in crate::config) window: Time,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Api {
    /// Path prefix of the endpoints. Other paths under it are routed as usual.
    pub(in crate::config) prefix: String,
    /// Additional origins (`https://app.example.com`) that may call the API with cookies.
    pub(in crate::config) allowed_origins: Vec<String>,
    /// Origin of the gateway as browsers see it (`https://app.example.com`), in redirect URIs of
    /// providers and in links. `null`: that of the request.
    pub(in crate::config) public_url: Option<String>,
    /// Further hosts to which a sign-in may return: `app.example.com`, or `*.example.com` for its
    /// subdomains. `sessions.cookie.domain` must cover them.
    pub(in crate::config) return_hosts: Vec<String>,
}

impl Api {
    /// Whether all values are the defaults, as if the section were absent.
    pub(in crate::config) fn is_default(&self) -> bool {
        let default = Api::default();
        self.prefix == default.prefix
            && self.allowed_origins.is_empty()
            && self.public_url.is_none()
            && self.return_hosts.is_empty()
    }
}

impl Default for Api {
    fn default() -> Api {
        Api {
            prefix: "/api/v1".to_owned(),
            allowed_origins: Vec::new(),
            public_url: None,
            return_hosts: Vec::new(),
        }
    }
}

/// The name of a header, or a list of names.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum HeaderNames {
    One(String),
    Several(Vec<String>),
}

impl HeaderNames {
    fn one(name: &str) -> Option<HeaderNames> {
        Some(HeaderNames::One(name.to_owned()))
    }
}

/// Header names for each attribute: a name, a list of names, or `null` to send none.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct IdentityHeaders {
    /// The user's ID.
    pub(in crate::config) user: Option<HeaderNames>,
    /// The email address.
    pub(in crate::config) email: Option<HeaderNames>,
    /// The username, if the user has one.
    pub(in crate::config) username: Option<HeaderNames>,
    /// The display name.
    pub(in crate::config) name: Option<HeaderNames>,
    /// The roles, separated by commas.
    pub(in crate::config) roles: Option<HeaderNames>,
    /// The scopes, separated by commas.
    pub(in crate::config) scopes: Option<HeaderNames>,
    /// The session's ID.
    pub(in crate::config) session: Option<HeaderNames>,
}

impl Default for IdentityHeaders {
    fn default() -> IdentityHeaders {
        IdentityHeaders {
            user: HeaderNames::one("X-User-Id"),
            email: HeaderNames::one("X-User-Email"),
            username: None,
            name: None,
            roles: HeaderNames::one("X-User-Roles"),
            scopes: None,
            session: HeaderNames::one("X-Session-ID"),
        }
    }
}

/// Overrides of a route. An absent key is as in `identity_headers`; `null` turns it off.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RouteIdentityHeaders {
    /// The user's ID.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(in crate::config) user: Option<Option<HeaderNames>>,
    /// The email address.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(in crate::config) email: Option<Option<HeaderNames>>,
    /// The username, if the user has one.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(in crate::config) username: Option<Option<HeaderNames>>,
    /// The display name.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(in crate::config) name: Option<Option<HeaderNames>>,
    /// The roles, separated by commas.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(in crate::config) roles: Option<Option<HeaderNames>>,
    /// The scopes, separated by commas.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(in crate::config) scopes: Option<Option<HeaderNames>>,
    /// The session's ID.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(in crate::config) session: Option<Option<HeaderNames>>,
}

/// Deserializes a key that is present, so that `null` differs from an absent key.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
