//! Sessions, identities and the gateway's own endpoints.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::backend::BackendIdentity;
use crate::config::units::{Size, Time};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Sessions {
    /// The absolute life of a session.
    pub(in crate::config) ttl: Time,
    /// How long a session may go unused. Each request moves it, and so does data that a client sends
    /// on an open stream; never past `ttl`. `null`: off.
    pub(in crate::config) idle_timeout: Option<Time>,
    /// How many sessions a user may have.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) max_per_user: u32,
    /// What happens to a sign-in beyond that.
    pub(in crate::config) on_limit: OnLimit,
    /// Also keep sessions in the database, and go on by it where the store has lost them or does not
    /// answer.
    pub(in crate::config) durable: bool,
    /// The session cookie. It is always `HttpOnly`, and lives as long as its session.
    pub(in crate::config) cookie: Cookie,
    /// What happens when a session is used or refreshed from elsewhere than it was signed in from.
    /// `warn`: an event. `deny`: 401.
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
    /// `null`: `__Host-portcullis` where its rules hold (secure, no domain, path `/`), else
    /// `portcullis`.
    pub(in crate::config) name: Option<String>,
    /// Only over https. Browsers treat `localhost` as secure too.
    pub(in crate::config) secure: bool,
    /// Whether other sites' requests carry the cookie. `none` needs `secure`.
    pub(in crate::config) same_site: SameSite,
    /// `null`: the host that set it, and no other.
    pub(in crate::config) domain: Option<String>,
    /// The path that it is sent for.
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
    /// Compares the `User-Agent`.
    pub(in crate::config) user_agent: Binding,
    /// Compares the client's address.
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
    /// Users kept in the database.
    pub(in crate::config) builtin: Builtin,
    /// Users kept by a backend that checks their credentials, instead of `builtin`.
    pub(in crate::config) upstream: Option<BackendIdentity>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Builtin {
    /// Whether anybody may register.
    pub(in crate::config) registration: Registration,
    /// Characters.
    #[schemars(range(min = 8, max = 128))]
    pub(in crate::config) password_min_length: u32,
    /// What a password's hash (Argon2id) costs. Where it rises, a password is hashed anew when its
    /// owner signs in.
    pub(in crate::config) password_hash: PasswordHash,
    /// What bounds guessing.
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
    /// For each hash; as many are made at a time as there are cores.
    pub(in crate::config) memory: Size,
    /// Passes over that memory.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::config) iterations: u32,
    /// Lanes. They make a hash no faster here.
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
    /// Sign-ins and registrations from one address, successful or not.
    pub(in crate::config) attempts_per_address: Rate,
    /// Failures, counted by account and address. Over ten times as many from everywhere, only
    /// addresses where the account never signed in are refused.
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
    /// How many.
    #[schemars(range(min = 1, max = 9_007_199_254_740_992_u64))]
    pub(in crate::config) limit: u64,
    /// In what time.
    pub(in crate::config) window: Time,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Api {
    /// What the endpoints' paths begin with. Any other path under it is routed as usual.
    pub(in crate::config) prefix: String,
    /// Further origins (`https://app.example.com`) that may call the API with cookies.
    pub(in crate::config) allowed_origins: Vec<String>,
}

impl Api {
    /// Whether it says nothing but the defaults, as if it were not written.
    pub(in crate::config) fn is_default(&self) -> bool {
        let default = Api::default();
        self.prefix == default.prefix && self.allowed_origins.is_empty()
    }
}

impl Default for Api {
    fn default() -> Api {
        Api {
            prefix: "/api/v1".to_owned(),
            allowed_origins: Vec::new(),
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

/// Each is a name, a list of names, or `null`: the upstream does not learn it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct IdentityHeaders {
    /// The user's ID.
    pub(in crate::config) user: Option<HeaderNames>,
    /// The email address.
    pub(in crate::config) email: Option<HeaderNames>,
    /// The username, of users who have one.
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

/// What differs on a route. A key that is left out is as in `identity_headers`; `null` turns it off.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RouteIdentityHeaders {
    /// The user's ID.
    #[serde(deserialize_with = "given")]
    pub(in crate::config) user: Option<Option<HeaderNames>>,
    /// The email address.
    #[serde(deserialize_with = "given")]
    pub(in crate::config) email: Option<Option<HeaderNames>>,
    /// The username, of users who have one.
    #[serde(deserialize_with = "given")]
    pub(in crate::config) username: Option<Option<HeaderNames>>,
    /// The display name.
    #[serde(deserialize_with = "given")]
    pub(in crate::config) name: Option<Option<HeaderNames>>,
    /// The roles, separated by commas.
    #[serde(deserialize_with = "given")]
    pub(in crate::config) roles: Option<Option<HeaderNames>>,
    /// The scopes, separated by commas.
    #[serde(deserialize_with = "given")]
    pub(in crate::config) scopes: Option<Option<HeaderNames>>,
    /// The session's ID.
    #[serde(deserialize_with = "given")]
    pub(in crate::config) session: Option<Option<HeaderNames>>,
}

/// Reads a key that is there, so that `null` differs from a key that is left out.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
