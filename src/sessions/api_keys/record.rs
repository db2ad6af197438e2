//! The record of a key, by which it is verified: that of a session, under an ID that no session has.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::auth::api_key::{ApiKeyGrant, ApiKeyState};
use crate::auth::session::{Device, Millis, Session, SessionId, no_data};
use crate::database::{StoredApiKey, User};

/// Expiry of a key that does not expire: the latest that a record can have.
const NEVER: Millis = (1 << 48) - 1;

/// What the owner of a key may do.
#[derive(Debug)]
pub(super) enum OwnerRights {
    /// The roles and scopes of a user, with those of their identities.
    User(Box<User>),
    /// A service has those of its keys.
    Service,
}

/// Builds the record of a key, with the roles and scopes that its owner has too. `rights` is `None` if the
/// owner is disabled or does not exist.
pub(super) fn record_of(stored: &StoredApiKey, rights: Option<&OwnerRights>) -> Session {
    let key = &stored.key;
    let user = match rights {
        Some(OwnerRights::User(user)) => Some(&**user),
        Some(OwnerRights::Service) | None => None,
    };
    let held = |own: &[String], owner: fn(&User) -> &[String]| -> Arc<[String]> {
        let is_held = |name: &&String| match (rights, user) {
            (None, _) => false,
            (Some(_), Some(user)) => owner(user).contains(name),
            (Some(_), None) => true,
        };
        own.iter().filter(is_held).cloned().collect()
    };
    let state = match rights {
        _ if key.revoked_at.is_some() => ApiKeyState::Revoked,
        None => ApiKeyState::OwnerGone,
        Some(_) => ApiKeyState::InForce,
    };
    Session {
        id: SessionId::of_api_key(key.id),
        user: key.owner.to_string(),
        email: user.map(|user| user.email.clone()).unwrap_or_default(),
        username: user.and_then(|user| user.username.clone().map(Into::into)),
        name: user.and_then(|user| user.name.clone()),
        roles: held(&key.roles, |user| &user.roles),
        scopes: held(&key.scopes, |user| &user.scopes),
        created_at: key.created_at,
        expires_at: key.expires_at.unwrap_or(NEVER).min(NEVER),
        ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        user_agent: Arc::default(),
        device: Device::default(),
        ended: None,
        data: no_data(),
        revision: 0,
        provider: None,
        api_key: Some(Arc::new(ApiKeyGrant {
            state,
            secrets: stored.secrets.clone(),
            allowed_ips: key.allowed_ips.clone(),
            expires_at: key.expires_at,
        })),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::auth::api_key::{ApiKey, ApiKeyId, ApiKeyOwner, ApiKeySecrets, SecretHash};

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn stored(owner: &str, revoked_at: Option<Millis>) -> StoredApiKey {
        StoredApiKey {
            key: ApiKey {
                id: ApiKeyId::random(),
                owner: ApiKeyOwner::parse(owner).unwrap(),
                name: "CI".to_owned(),
                roles: texts(&["admin", "editor"]),
                scopes: texts(&["read", "write"]),
                allowed_ips: Vec::new(),
                created_at: 1,
                expires_at: None,
                revoked_at,
                last_used_at: None,
                last_used_ip: None,
                request_count: 0,
            },
            secrets: ApiKeySecrets::new(SecretHash([1; 32])),
        }
    }

    fn user(roles: &[&str], scopes: &[&str]) -> OwnerRights {
        OwnerRights::User(Box::new(User {
            id: "u".to_owned(),
            email: "ann@example.com".to_owned(),
            username: None,
            name: None,
            password_hash: None,
            roles: texts(roles),
            scopes: texts(scopes),
            disabled: false,
            created_at: 1,
            updated_at: 1,
        }))
    }

    #[test]
    fn key_has_no_more_than_its_owner() {
        for (owner, rights, roles, scopes) in [
            (
                "u",
                Some(user(&["editor", "root"], &["write"])),
                vec!["editor"],
                vec!["write"],
            ),
            ("u", Some(user(&[], &[])), vec![], vec![]),
            ("u", None, vec![], vec![]),
            (
                "service:x",
                Some(OwnerRights::Service),
                vec!["admin", "editor"],
                vec!["read", "write"],
            ),
        ] {
            let record = record_of(&stored(owner, None), rights.as_ref());
            assert_eq!(*record.roles, *texts(&roles), "{rights:?}");
            assert_eq!(*record.scopes, *texts(&scopes), "{rights:?}");
            assert_eq!(record.user, owner);
        }
    }

    #[test]
    fn state_is_that_of_key_and_owner() {
        let service = Some(OwnerRights::Service);
        for (revoked_at, rights, expected) in [
            (None, &service, ApiKeyState::InForce),
            (None, &None, ApiKeyState::OwnerGone),
            (Some(2), &service, ApiKeyState::Revoked),
            (Some(2), &None, ApiKeyState::Revoked),
        ] {
            let record = record_of(&stored("service:x", revoked_at), rights.as_ref());
            assert_eq!(record.api_key.unwrap().state, expected);
        }
    }
}
