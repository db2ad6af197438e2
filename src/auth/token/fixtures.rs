//! Keys, settings and tokens for tests.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Algorithm, ClaimNames, IntrospectionRules, Key, KeySource, Tokens, TrustedIssuer};
use crate::auth::reserved_prefixes::ReservedPrefixes;
use crate::auth::session::Millis;

/// An arbitrary time: 2027-01-15.
pub(crate) const NOW: Millis = 1_800_000_000_000;
pub(crate) const SID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

pub(crate) fn secret(byte: u8) -> Key {
    Key::hmac(None, &[byte; 32]).unwrap()
}

/// Returns a fixed private key of the algorithm with the given ID.
pub(crate) fn private(algorithm: Algorithm, id: &str) -> Key {
    let pem: &[u8] = match algorithm {
        Algorithm::HS256 => return Key::hmac(Some(id.to_owned()), &[7; 32]).unwrap(),
        Algorithm::RS256 | Algorithm::PS256 => include_bytes!("testdata/rsa.pem"),
        Algorithm::ES256 => include_bytes!("testdata/ec.pem"),
        Algorithm::ES384 => include_bytes!("testdata/ec-384.pem"),
        Algorithm::EdDSA => include_bytes!("testdata/ed.pem"),
    };
    Key::from_pem(Some(id.to_owned()), algorithm, pem).unwrap()
}

/// Creates settings with own tokens, signed with [`secret`] 1, and trusted issuers.
pub(crate) fn tokens(trusted: Vec<TrustedIssuer>) -> Tokens {
    Tokens {
        issuer: "portcullis".to_owned(),
        audience: "portcullis".to_owned(),
        access_ttl: Duration::from_secs(900),
        refresh_ttl: Duration::from_secs(1),
        refresh_grace: Duration::from_secs(1),
        leeway: Duration::from_secs(5),
        signing: Some(secret(1)),
        verifying: vec![secret(1), secret(2)],
        trusted: trusted.into_iter().map(Arc::new).collect(),
    }
}

pub(crate) fn trusted(keys: KeySource) -> TrustedIssuer {
    TrustedIssuer {
        issuer: "https://idp.example".to_owned(),
        keys,
        audience: "shop".to_owned(),
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        claims: ClaimNames {
            user: "sub".to_owned(),
            email: "email".to_owned(),
            roles: "roles".to_owned(),
            scopes: "scope".to_owned(),
        },
        user_prefix: "idp:".to_owned(),
        reserved_prefixes: ReservedPrefixes::default(),
        require_session: false,
        introspection: None,
    }
}

/// Rules of an introspection entry, whose users have its name and a colon as prefix.
pub(crate) fn introspection_rules(name: &str) -> IntrospectionRules {
    IntrospectionRules {
        name: name.into(),
        issuer: None,
        audience: None,
        claims: ClaimNames {
            user: "sub".to_owned(),
            email: "email".to_owned(),
            roles: "roles".to_owned(),
            scopes: "scope".to_owned(),
        },
        user_prefix: format!("{name}:"),
        reserved_prefixes: ReservedPrefixes::default(),
    }
}

/// Returns the claims of a valid token of the gateway.
pub(crate) fn our_claims() -> Value {
    json!({
        "iss": "portcullis", "aud": "portcullis", "sub": "u1", "sid": SID, "jti": "t1",
        "iat": NOW / 1000, "exp": NOW / 1000 + 60,
    })
}

/// Returns the claims of a valid token of [`trusted`].
pub(crate) fn foreign_claims() -> Value {
    json!({
        "iss": "https://idp.example", "aud": ["shop", "other"], "sub": "u1",
        "exp": NOW / 1000 + 60,
    })
}

/// Replaces one member of `value`; null removes it.
pub(crate) fn with_member(mut value: Value, name: &str, member: Value) -> Value {
    let members = value.as_object_mut().unwrap();
    if member.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), member);
    }
    value
}

/// Signs claims with a usual header.
pub(crate) fn sign(key: &Key, claims: &Value) -> String {
    let header = json!({"alg": key.algorithm.as_str(), "typ": "at+jwt"});
    let header = with_member(header, "kid", json!(key.id));
    sign_text(key, &header.to_string(), &claims.to_string())
}

/// Signs an arbitrary header and claims.
pub(crate) fn sign_text(key: &Key, header: &str, claims: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = key.sign(message.as_bytes()).unwrap();
    format!("{message}.{signature}")
}
