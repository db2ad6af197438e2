//! Inspection of a token for operators, with the reason why it is rejected.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::check::VerifyError;
use super::claims::Payload;
use super::{Tokens, jws};
use crate::auth::session::Millis;
use crate::json;

/// The contents of a token and the result of its verification.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// `None` if it cannot be parsed.
    pub header: Option<Value>,
    /// `None` if they cannot be parsed.
    pub claims: Option<Value>,
    /// `None` if the token is accepted by keys, claims and time. Whether it or its session was
    /// revoked is not checked.
    pub rejection_reason: Option<String>,
    /// Whether the token is accepted only over TLS with the client certificate in its `cnf` claim.
    pub is_bound: bool,
}

/// Parses a token as far as possible, and determines why it is rejected at `now`. The keys of
/// trusted issuers with a `jwks_url` are not fetched.
pub fn inspect(tokens: &Tokens, token: &str, now: Millis) -> Inspection {
    let mut parts = token.split('.').map(|part| jws::decode(part).ok());
    let header = parts.next().flatten();
    let claims = parts.next().flatten();
    let result = tokens.verify(token, now, |_| std::sync::Arc::default());
    Inspection {
        header: header
            .and_then(|bytes| json::parse(&bytes).ok())
            .map(Value::from),
        claims: claims
            .and_then(|bytes| Payload::parse(&bytes).ok())
            .map(|claims| claims.into_members().into()),
        is_bound: result
            .as_ref()
            .is_ok_and(|verified| verified.claims.certificate.is_some()),
        rejection_reason: result.err().map(describe_error),
    }
}

fn describe_error(error: VerifyError) -> String {
    match error {
        VerifyError::Invalid(reason) => reason.to_owned(),
        VerifyError::Expired(claims) => {
            let at = UNIX_EPOCH + Duration::from_millis(claims.expires_at);
            format!("expired at {}", humantime::format_rfc3339_seconds(at))
        }
        VerifyError::UnknownKey(_) => {
            "the signature was not checked, because only a running gateway fetches the keys of \
             its issuer from a URL"
                .to_owned()
        }
    }
}
