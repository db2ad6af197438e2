//! Assertions: short-lived JWTs that identify the user of a request to one upstream.

use serde::Serialize;

use super::Tokens;
use super::mint::{Header, SignError, encode};
use crate::auth::session::{Millis, SessionId};

/// `typ` of an assertion. Access tokens have another one, so an assertion is never accepted as one.
const TYPE: &str = "assertion+jwt";
/// Seconds from `iat` to `exp`.
const LIFETIME: u64 = 60;

/// The user of an assertion, and the upstream that it is for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AssertionClaims<'a> {
    /// The upstream's name.
    #[serde(rename = "aud")]
    pub upstream: &'a str,
    #[serde(rename = "sub")]
    pub user: &'a str,
    #[serde(rename = "sid", skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<&'a str>,
    pub roles: &'a [String],
    pub scopes: &'a [String],
}

#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    #[serde(flatten)]
    claims: AssertionClaims<'a>,
    /// In seconds, like `exp`.
    iat: u64,
    exp: u64,
}

impl Tokens {
    /// Signs an assertion that is valid for a minute from `now`.
    ///
    /// # Errors
    ///
    /// There is no signing key, or signing fails.
    pub fn sign_assertion(
        &self,
        claims: AssertionClaims<'_>,
        now: Millis,
    ) -> Result<String, SignError> {
        let key = self.signing.as_ref().ok_or(SignError::NoSigningKey)?;
        let header = Header {
            typ: TYPE,
            alg: key.algorithm.as_str(),
            kid: key.id.as_deref(),
        };
        let iat = now / 1000;
        let payload = Payload {
            iss: &self.issuer,
            claims,
            iat,
            exp: iat + LIFETIME,
        };
        let message = format!("{}.{}", encode(&header)?, encode(&payload)?);
        let signature = key.sign(message.as_bytes()).ok_or(SignError::Signing)?;
        Ok(format!("{message}.{signature}"))
    }
}
