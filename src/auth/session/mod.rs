//! Sessions and their states, as pure rules that take `now`.

mod session_id;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
pub use session_id::SessionId;
use sha2::{Digest, Sha256};

use super::api_key::ApiKeyGrant;
use super::provider_sign_in::ProviderSignIn;

/// Secret of a session: 64 lower-case hex characters, 256 random bits.
///
/// It is never stored, logged or listed; only its [`SessionId`] is.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

impl SessionToken {
    /// Generates a random token.
    pub fn random() -> SessionToken {
        SessionToken(hex::encode(rand::random::<[u8; 32]>()))
    }

    /// Parses a token of exactly 64 lower-case hex characters.
    pub fn parse(text: &str) -> Option<SessionToken> {
        let is_well_formed =
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_well_formed.then(|| SessionToken(text.to_owned()))
    }

    /// Returns the ID of the session, the hash of the token.
    pub fn id(&self) -> SessionId {
        SessionId(Sha256::digest(self.0.as_bytes()).into())
    }

    /// Returns the secret, to send it to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

/// Milliseconds since the Unix epoch.
pub type Millis = u64;

/// Session record of the store. Immutable except for end, roles, scopes, email and `data`.
///
/// That of an API key has the same form, so that all that caches and verifies sessions does so for keys.
///
/// Values that many sessions have in common are shared between cached records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    /// The user's ID.
    pub user: String,
    pub email: String,
    /// As the user wrote it. It does not change during the session.
    #[serde(default)]
    pub username: Option<Box<str>>,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub roles: Arc<[String]>,
    #[serde(default)]
    pub scopes: Arc<[String]>,
    pub created_at: Millis,
    /// The absolute expiry.
    pub expires_at: Millis,
    pub ip: IpAddr,
    #[serde(default)]
    pub user_agent: Arc<str>,
    #[serde(default)]
    pub device: Device,
    #[serde(default)]
    pub ended: Option<SessionEnd>,
    /// Data of the application: a JSON object as text.
    #[serde(default = "no_data")]
    pub data: Arc<str>,
    /// Incremented by every change of identity, roles or scopes. An active record with the same
    /// revision is unchanged.
    #[serde(default)]
    pub revision: u64,
    /// How the user signed in at a provider; `None` for passwords and backends.
    #[serde(default)]
    pub provider: Option<Arc<ProviderSignIn>>,
    /// What decides about an API key; `None` for sessions.
    #[serde(default)]
    pub api_key: Option<Arc<ApiKeyGrant>>,
}

/// Returns the initial `data` of a session: an empty object, as text.
pub fn no_data() -> Arc<str> {
    "{}".into()
}

/// The device that signed in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    #[serde(default)]
    pub kind: Option<Arc<str>>,
    #[serde(default)]
    pub name: Option<Arc<str>>,
}

/// Sanitizes a `User-Agent`: at most 512 characters, without control characters.
pub fn sanitize_user_agent(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.chars().filter(|c| !c.is_control()).take(512).collect()
}

/// The premature end of a session, with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEnd {
    pub at: Millis,
    pub reason: EndReason,
}

/// Why a session ended; the label of `portcullis_sessions_ended_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    SignOut,
    SignOutEverywhere,
    Terminated,
    Admin,
    Evicted,
    Replaced,
    PasswordChanged,
    UserDisabled,
    RefreshReused,
    /// The provider no longer confirms the sign-in.
    Provider,
    /// Back-channel logout.
    Backchannel,
}

impl EndReason {
    pub const ALL: [EndReason; 11] = [
        EndReason::SignOut,
        EndReason::SignOutEverywhere,
        EndReason::Terminated,
        EndReason::Admin,
        EndReason::Evicted,
        EndReason::Replaced,
        EndReason::PasswordChanged,
        EndReason::UserDisabled,
        EndReason::RefreshReused,
        EndReason::Provider,
        EndReason::Backchannel,
    ];

    /// The name used in metrics, events and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::SignOut => "sign_out",
            EndReason::SignOutEverywhere => "sign_out_everywhere",
            EndReason::Terminated => "terminated",
            EndReason::Admin => "admin",
            EndReason::Evicted => "evicted",
            EndReason::Replaced => "replaced",
            EndReason::PasswordChanged => "password_changed",
            EndReason::UserDisabled => "user_disabled",
            EndReason::RefreshReused => "refresh_reused",
            EndReason::Provider => "provider",
            EndReason::Backchannel => "backchannel",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<EndReason> {
        EndReason::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
    }
}

/// Use of a session. Separate from the record, so that use does not invalidate cached records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    pub last_access: Millis,
    pub request_count: u64,
    /// The client addresses, newest first, at most ten.
    pub ip_addresses: Vec<IpAddr>,
    pub live_connections: u64,
}

/// State of a session at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    Active,
    Expired,
    Revoked,
}

impl Session {
    /// Time at which the user authenticated: for passwords and backends, that of the sign-in.
    pub fn authenticated_at(&self) -> Millis {
        let provider = self.provider.as_ref();
        provider.map_or(self.created_at, |sign_in| sign_in.authenticated_at)
    }

    /// Returns the state of the session. A revoked session stays revoked after its expiry.
    pub fn status(
        &self,
        last_access: Millis,
        idle: Option<Duration>,
        now: Millis,
    ) -> SessionStatus {
        if self.ended.is_some() {
            SessionStatus::Revoked
        } else if now >= self.idle_expiry(last_access, idle) {
            SessionStatus::Expired
        } else {
            SessionStatus::Active
        }
    }

    /// Returns the expiry without further use, which is never after `expires_at`.
    pub fn idle_expiry(&self, last_access: Millis, idle: Option<Duration>) -> Millis {
        let last_use = last_access.max(self.created_at);
        match idle {
            // Keys do not end by idleness.
            Some(idle) if self.api_key.is_none() => self
                .expires_at
                .min(last_use.saturating_add(idle.as_millis() as Millis)),
            _ => self.expires_at,
        }
    }
}

/// Configured rules for sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRules {
    pub ttl: Duration,
    pub idle_timeout: Option<Duration>,
    pub max_per_user: u32,
    pub on_limit: OnSessionLimit,
    /// Whether sessions are also kept in the database.
    pub durable: bool,
    pub cookie: CookieRules,
    pub bind_user_agent: ClientBinding,
    pub bind_ip: ClientBinding,
}

impl SessionRules {
    /// Compares a client with the one that signed in, and returns the differences with their
    /// handling.
    pub fn binding_mismatches(
        &self,
        session: &Session,
        ip: IpAddr,
        user_agent: impl FnOnce() -> String,
    ) -> Vec<(ClientBinding, &'static str)> {
        if self.bind_ip == ClientBinding::Off && self.bind_user_agent == ClientBinding::Off {
            return Vec::new();
        }
        let address_differs = session.ip.to_canonical() != ip.to_canonical();
        let agent_differs = *session.user_agent != *user_agent();
        [
            (self.bind_ip, address_differs, "address"),
            (self.bind_user_agent, agent_differs, "user agent"),
        ]
        .into_iter()
        .filter(|(binding, differs, _)| *differs && *binding != ClientBinding::Off)
        .map(|(binding, _, name)| (binding, name))
        .collect()
    }
}

/// Handling of a sign-in beyond `max_per_user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSessionLimit {
    EvictOldest,
    Reject,
}

/// Handling of a session that is used from another client than the one that signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientBinding {
    Off,
    Warn,
    Deny,
}

/// Attributes of the session cookie. It is always `HttpOnly`; `Max-Age` is that of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieRules {
    /// As configured, or `__Host-portcullis` if its rules are met (RFC 6265bis, section 4.1.3.2).
    pub name: String,
    pub secure: bool,
    pub same_site: SameSite,
    pub domain: Option<String>,
    pub path: String,
}

impl CookieRules {
    /// Whether a browser accepts the cookie from this host and sends it with this path (RFC 6265,
    /// sections 5.1.3 and 5.1.4). The host is in lower case and without port.
    pub fn is_sent_to(&self, host: &str, path: &str) -> bool {
        let is_of_host = self.domain.as_ref().is_none_or(|domain| {
            let domain = domain.trim_start_matches('.');
            let labels = host.strip_suffix(domain);
            labels.is_some_and(|labels| labels.is_empty() || labels.ends_with('.'))
        });
        let rest = path.strip_prefix(self.path.as_str());
        let is_below = rest.is_some_and(|rest| {
            rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/')
        });
        is_of_host && is_below
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}
