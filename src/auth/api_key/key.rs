//! An API key as its owner and operators see it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ApiKeyId;
use crate::auth::reserved_prefixes::SERVICE_PREFIX;
use crate::auth::session::Millis;

/// Maximum length of a service's name.
const MAX_SERVICE: usize = 64;

/// On whose behalf a key acts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ApiKeyOwner {
    /// The ID of a user of the database.
    User(String),
    /// The name of a service, which has no row of its own.
    Service(String),
}

impl ApiKeyOwner {
    /// The service with a name of `[a-z0-9-]`, at most 64 characters.
    pub fn service(name: &str) -> Option<ApiKeyOwner> {
        let is_valid = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_name = (1..=MAX_SERVICE).contains(&name.len()) && name.bytes().all(is_valid);
        is_name.then(|| ApiKeyOwner::Service(name.to_owned()))
    }

    /// Parses the user: a user's ID, or `service:NAME`.
    pub fn parse(user: &str) -> Option<ApiKeyOwner> {
        match user.strip_prefix(SERVICE_PREFIX) {
            Some(name) => ApiKeyOwner::service(name),
            None => (!user.is_empty()).then(|| ApiKeyOwner::User(user.to_owned())),
        }
    }
}

impl std::fmt::Display for ApiKeyOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApiKeyOwner::User(id) => f.write_str(id),
            ApiKeyOwner::Service(name) => write!(f, "{SERVICE_PREFIX}{name}"),
        }
    }
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub owner: ApiKeyOwner,
    pub name: String,
    /// Its own, of which those count that its owner has.
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    /// Addresses from which it may be used; empty: all.
    pub allowed_ips: Vec<IpNet>,
    pub created_at: Millis,
    pub expires_at: Option<Millis>,
    pub revoked_at: Option<Millis>,
    /// This and what follows is at most a minute behind.
    pub last_used_at: Option<Millis>,
    pub last_used_ip: Option<IpAddr>,
    pub request_count: u64,
}

impl ApiKey {
    /// The state of the key itself; its owner may be disabled.
    pub fn status(&self, now: Millis) -> ApiKeyStatus {
        match self.expires_at {
            _ if self.revoked_at.is_some() => ApiKeyStatus::Revoked,
            Some(at) if at <= now => ApiKeyStatus::Expired,
            _ => ApiKeyStatus::Active,
        }
    }
}

/// State of a key at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyStatus {
    Active,
    Expired,
    Revoked,
}

impl ApiKeyStatus {
    pub const ALL: [ApiKeyStatus; 3] = [
        ApiKeyStatus::Active,
        ApiKeyStatus::Expired,
        ApiKeyStatus::Revoked,
    ];

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ApiKeyStatus::Active => "active",
            ApiKeyStatus::Expired => "expired",
            ApiKeyStatus::Revoked => "revoked",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<ApiKeyStatus> {
        ApiKeyStatus::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn owners_are_users_or_services() {
        let user = ApiKeyOwner::parse("0b7a2f9e").unwrap();
        assert_eq!(user, ApiKeyOwner::User("0b7a2f9e".to_owned()));
        let service = ApiKeyOwner::parse("service:billing-2").unwrap();
        assert_eq!(service, ApiKeyOwner::Service("billing-2".to_owned()));
        for owner in [user, service] {
            assert_eq!(ApiKeyOwner::parse(&owner.to_string()), Some(owner));
        }
        let long = format!("service:{}", "a".repeat(65));
        for bad in [
            "",
            "service:",
            "service:A",
            "service:a b",
            "service:é",
            &long,
        ] {
            assert_eq!(ApiKeyOwner::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn revocation_outlasts_expiry() {
        let key = ApiKey {
            id: ApiKeyId::parse("0123456789abcdef").unwrap(),
            owner: ApiKeyOwner::User("u".to_owned()),
            name: String::new(),
            roles: Vec::new(),
            scopes: Vec::new(),
            allowed_ips: Vec::new(),
            created_at: 1,
            expires_at: Some(10),
            revoked_at: None,
            last_used_at: None,
            last_used_ip: None,
            request_count: 0,
        };
        assert_eq!(key.status(9), ApiKeyStatus::Active);
        assert_eq!(key.status(10), ApiKeyStatus::Expired);
        let revoked = ApiKey {
            revoked_at: Some(5),
            ..key
        };
        assert_eq!(revoked.status(11), ApiKeyStatus::Revoked);
    }
}
