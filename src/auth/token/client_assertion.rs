//! Client assertions: JWTs by which the gateway authenticates at a provider (`private_key_jwt`, RFC
//! 7523, section 2.2).

use serde::Serialize;

use super::Key;
use super::mint::{Header, SignError, encode};
use crate::auth::session::Millis;

/// Seconds from `iat` to `exp`.
const LIFETIME: u64 = 60;

#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    sub: &'a str,
    /// The issuer alone: other receivers cannot use the assertion (RFC 9700, section 2.5).
    aud: &'a str,
    jti: &'a str,
    /// In seconds, like `exp`.
    iat: u64,
    exp: u64,
}

impl Key {
    /// Signs an assertion of a client for one issuer, valid for a minute from `now`.
    ///
    /// # Errors
    ///
    /// The key is public, or signing fails.
    pub fn sign_client_assertion(
        &self,
        client_id: &str,
        issuer: &str,
        now: Millis,
    ) -> Result<String, SignError> {
        let header = Header {
            typ: "JWT",
            alg: self.algorithm.as_str(),
            kid: self.id.as_deref(),
        };
        let iat = now / 1000;
        let payload = Payload {
            iss: client_id,
            sub: client_id,
            aud: issuer,
            jti: &hex::encode(rand::random::<[u8; 16]>()),
            iat,
            exp: iat + LIFETIME,
        };
        let message = format!("{}.{}", encode(&header)?, encode(&payload)?);
        let signature = self.sign(message.as_bytes()).ok_or(SignError::Signing)?;
        Ok(format!("{message}.{signature}"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;
    use crate::auth::token::fixtures::{NOW, private, secret};
    use crate::auth::token::jws::{Jws, SignatureStatus, TokenUse};
    use crate::auth::token::{Algorithm, parse_jwks};
    use crate::json;

    #[test]
    fn assertion_names_the_issuer_alone_and_lives_a_minute() {
        for algorithm in [
            Algorithm::ES256,
            Algorithm::RS256,
            Algorithm::PS256,
            Algorithm::EdDSA,
        ] {
            let key = private(algorithm, "client");
            let assert = || key.sign_client_assertion("me", "https://id.example", NOW + 999);
            let token = assert().unwrap();
            let published = key.public_jwks().to_string();
            let keys = parse_jwks(published.as_bytes(), &[algorithm]).unwrap().keys;
            let jws = Jws::parse(&token, TokenUse::Id).unwrap();
            assert_eq!(jws.verify(&keys), SignatureStatus::Valid, "{algorithm}");
            assert_eq!(jws.key_id.as_deref(), Some("client"));
            let mut claims = json::parse(&jws.payload).unwrap();
            assert_eq!(claims.remove("jti").unwrap().as_str().unwrap().len(), 32);
            let expected = json!({
                "iss": "me", "sub": "me", "aud": "https://id.example",
                "iat": NOW / 1000, "exp": NOW / 1000 + 60,
            });
            assert_eq!(serde_json::Value::from(claims), expected);
            // The `jti` is unique.
            assert_ne!(token, assert().unwrap());
        }
    }

    #[test]
    fn key_without_private_half_does_not_sign() {
        let public = private(Algorithm::ES256, "client")
            .public_jwks()
            .to_string();
        let keys = parse_jwks(public.as_bytes(), &Algorithm::ALL).unwrap().keys;
        let result = keys.first().unwrap().sign_client_assertion("me", "i", NOW);
        assert_eq!(result, Err(SignError::Signing));
    }

    #[test]
    fn published_keys_have_no_private_half() {
        let published = private(Algorithm::PS256, "client").public_jwks();
        let text = published.to_string();
        assert!(text.contains(r#""alg":"PS256""#), "{text}");
        for member in ["\"d\"", "\"p\"", "\"q\"", "\"k\""] {
            assert!(!text.contains(member), "{member}");
        }
        assert_eq!(secret(1).public_jwks(), json!({ "keys": [] }));
    }
}
