//! A session and its life: active, idle-expired, expired, revoked. Pure rules that take `now`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Names a session and proves nothing: the SHA-256 of its token's 64 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 32]);

impl SessionId {
    /// Reads the 64 lower-case hex characters of an id.
    pub fn parse(text: &str) -> Option<SessionId> {
        if text.len() != 64 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(SessionId(bytes))
    }
}

impl SessionId {
    /// Writes the 64 characters into a buffer of the caller's.
    pub fn write_hex<'b>(&self, buffer: &'b mut [u8; 64]) -> &'b str {
        // The length fits and hex is ASCII; neither can fail.
        let _ = hex::encode_to_slice(self.0, buffer);
        std::str::from_utf8(buffer).unwrap_or_default()
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.write_hex(&mut [0; 64]))
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        SessionId::parse(&text).ok_or_else(|| serde::de::Error::custom("not a session id"))
    }
}

/// The secret that a browser holds: 64 lower-case hex characters, 256 random bits. It is never
/// stored, logged or listed; only its [`SessionId`] is.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

impl SessionToken {
    /// Draws a new token from the operating system's generator.
    pub fn random() -> SessionToken {
        SessionToken(hex::encode(rand::random::<[u8; 32]>()))
    }

    /// Accepts 64 lower-case hex characters and nothing else.
    pub fn parse(text: &str) -> Option<SessionToken> {
        let well_formed =
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        well_formed.then(|| SessionToken(text.to_owned()))
    }

    /// Hashes the token to the id it belongs to.
    pub fn id(&self) -> SessionId {
        SessionId(Sha256::digest(self.0.as_bytes()).into())
    }

    /// Shows the secret, for the one place that hands it to its owner.
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

/// What the store keeps of a session: immutable but for its end, its roles and its `data`. What many have
/// alike is shared among those that are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    /// The user's id; with `issuer` it names a person.
    pub user: String,
    pub email: String,
    /// As its owner wrote it. It does not change while the session lives.
    #[serde(default)]
    pub username: Option<Box<str>>,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub roles: Arc<[String]>,
    #[serde(default)]
    pub scopes: Arc<[String]>,
    pub created_at: Millis,
    /// The absolute end of its life.
    pub expires_at: Millis,
    pub ip: IpAddr,
    #[serde(default)]
    pub user_agent: Arc<str>,
    #[serde(default)]
    pub device: Device,
    #[serde(default)]
    pub ended: Option<SessionEnd>,
    /// The application's own: a JSON object as text.
    #[serde(default = "no_data")]
    pub data: Arc<str>,
    /// Counts the changes of who the session is from and what it may do. A record of the same
    /// revision that is still active is the same record.
    #[serde(default)]
    pub revision: u64,
}

/// The text of an object without members: what a session's `data` begins as.
pub fn no_data() -> Arc<str> {
    "{}".into()
}

/// What the person signed in with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    #[serde(default)]
    pub kind: Option<Arc<str>>,
    #[serde(default)]
    pub name: Option<Arc<str>>,
}

/// What is kept of a `User-Agent`: at most 512 characters, none of them a control character.
pub fn sanitize_user_agent(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.chars().filter(|c| !c.is_control()).take(512).collect()
}

/// That a session was ended before its time, and by what.
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
}

impl EndReason {
    pub const ALL: [EndReason; 9] = [
        EndReason::SignOut,
        EndReason::SignOutEverywhere,
        EndReason::Terminated,
        EndReason::Admin,
        EndReason::Evicted,
        EndReason::Replaced,
        EndReason::PasswordChanged,
        EndReason::UserDisabled,
        EndReason::RefreshReused,
    ];

    /// The word used in metrics, events and the store.
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
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<EndReason> {
        EndReason::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
    }
}

/// How a session is used; kept apart from the record so that use never touches what is cached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    pub last_access: Millis,
    pub request_count: u64,
    /// The addresses it was seen from, newest first, at most ten.
    pub ip_addresses: Vec<IpAddr>,
    pub live_connections: u64,
}

/// Where a session stands at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    Active,
    Expired,
    Revoked,
}

impl Session {
    /// Tells where the session stands. A revoked one stays revoked even past its time.
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

    /// The moment at which it expires if it is not used again: never past `expires_at`.
    pub fn idle_expiry(&self, last_access: Millis, idle: Option<Duration>) -> Millis {
        let used = last_access.max(self.created_at);
        match idle {
            Some(idle) => self
                .expires_at
                .min(used.saturating_add(idle.as_millis() as Millis)),
            None => self.expires_at,
        }
    }
}

/// The operator's rules for sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRules {
    pub ttl: Duration,
    pub idle_timeout: Option<Duration>,
    pub max_per_user: u32,
    pub on_limit: OnSessionLimit,
    /// They are also kept in the database, and go on by it.
    pub durable: bool,
    pub cookie: CookieRules,
    pub bind_user_agent: ClientBinding,
    pub bind_ip: ClientBinding,
}

impl SessionRules {
    /// What differs of a client from the one that signed in, with what is to be done about it.
    pub fn binding_mismatches(
        &self,
        session: &Session,
        ip: IpAddr,
        user_agent: impl FnOnce() -> String,
    ) -> Vec<(ClientBinding, &'static str)> {
        if self.bind_ip == ClientBinding::Off && self.bind_user_agent == ClientBinding::Off {
            return Vec::new();
        }
        let address = session.ip.to_canonical() != ip.to_canonical();
        let agent = *session.user_agent != *user_agent();
        [
            (self.bind_ip, address, "address"),
            (self.bind_user_agent, agent, "user agent"),
        ]
        .into_iter()
        .filter(|(binding, differs, _)| *differs && *binding != ClientBinding::Off)
        .map(|(binding, _, what)| (binding, what))
        .collect()
    }
}

/// What happens to a sign-in beyond `max_per_user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSessionLimit {
    EvictOldest,
    Reject,
}

/// What happens when a session is used from elsewhere than it was signed in from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientBinding {
    Off,
    Warn,
    Deny,
}

/// How the session cookie is written. `HttpOnly` always; `Max-Age` is the session's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieRules {
    /// `__Host-portcullis` where its rules hold (RFC 6265bis, section 4.1.3.2), else as configured.
    pub name: String,
    pub secure: bool,
    pub same_site: SameSite,
    pub domain: Option<String>,
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Strict,
    Lax,
    None,
}
