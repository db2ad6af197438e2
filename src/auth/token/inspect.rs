//! A token shown to an operator, with the reason why it is refused.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::check::VerifyError;
use super::claims::Payload;
use super::{Tokens, jws};
use crate::auth::session::Millis;
use crate::json;

/// What a token holds and what the gateway makes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// `None`: it is not readable.
    pub header: Option<Value>,
    /// `None`: they are not readable.
    pub claims: Option<Value>,
    /// `None`: the token is accepted, as far as keys, claims and time go. Whether it or its session
    /// was revoked is for the store to say.
    pub rejection_reason: Option<String>,
    /// The token is accepted only over TLS with the client certificate that its `cnf` claim names.
    pub is_bound: bool,
}

/// Takes a token apart as far as it can be read and says why it is refused at `now`. Keys that a
/// trusted issuer publishes under a URL are not fetched.
pub fn inspect(tokens: &Tokens, token: &str, now: Millis) -> Inspection {
    let mut parts = token.split('.').map(|part| jws::decode(part).ok());
    let header = parts.next().flatten();
    let claims = parts.next().flatten();
    let checked = tokens.verify(token, now, |_| std::sync::Arc::default());
    Inspection {
        header: header
            .and_then(|bytes| json::parse(&bytes).ok())
            .map(Value::from),
        claims: claims
            .and_then(|bytes| Payload::parse(&bytes).ok())
            .map(Payload::into_json),
        is_bound: checked
            .as_ref()
            .is_ok_and(|verified| verified.claims.certificate.is_some()),
        rejection_reason: checked.err().map(describe_error),
    }
}

fn describe_error(failure: VerifyError) -> String {
    match failure {
        VerifyError::Invalid(reason) => reason.to_owned(),
        VerifyError::Expired(claims) => {
            let at = UNIX_EPOCH + Duration::from_millis(claims.expires_at);
            format!("it expired at {}", humantime::format_rfc3339_seconds(at))
        }
        VerifyError::UnknownKey(_) => {
            "its signature was not checked: its issuer publishes its keys \
             under a URL, where only a running gateway fetches them"
                .to_owned()
        }
    }
}
