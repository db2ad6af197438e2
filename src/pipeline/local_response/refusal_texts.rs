//! Parts of a response that depend on the refusal alone, rendered once.

use std::sync::LazyLock;

use http::HeaderValue;

use super::CHALLENGE;
use crate::rejection::Refusal;

static TEXTS: LazyLock<Vec<RefusalTexts>> =
    LazyLock::new(|| Refusal::ALL.map(RefusalTexts::new).into());

/// The texts of one refusal.
pub(super) struct RefusalTexts {
    /// The body in JSON, up to the request's identifier.
    pub(super) json: String,
    /// The same as problem details.
    pub(super) problem: String,
    /// The challenge that names the error of a bearer token.
    pub(super) token_error: HeaderValue,
}

impl RefusalTexts {
    pub(super) fn of(refusal: Refusal) -> Option<&'static RefusalTexts> {
        TEXTS.get(refusal as usize)
    }

    fn new(refusal: Refusal) -> RefusalTexts {
        let message = refusal.message();
        let token_error = format!(
            "Bearer realm=\"portcullis\", error=\"invalid_token\", error_description=\"{message}\""
        );
        RefusalTexts {
            json: json(refusal, message),
            problem: problem(refusal, message),
            token_error: HeaderValue::try_from(token_error).unwrap_or(CHALLENGE.clone()),
        }
    }
}

/// An error in JSON, up to the request's identifier.
pub(super) fn json(refusal: Refusal, message: &str) -> String {
    format!(
        "{{\"success\":false,\"error\":{{\"code\":{},\"message\":{},\"request_id\":\"",
        quote(refusal.code()),
        quote(message),
    )
}

/// Problem details (RFC 9457) up to the request's identifier, with the types of
/// draft-ietf-httpapi-ratelimit-headers-10.
pub(super) fn problem(refusal: Refusal, message: &str) -> String {
    let kind = match refusal {
        Refusal::RateLimited => "https://iana.org/assignments/http-problem-types#quota-exceeded",
        Refusal::StoreUnavailable | Refusal::Overloaded => {
            "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
        }
        _ => "about:blank",
    };
    let status = refusal.status();
    format!(
        "{{\"type\":{},\"title\":{},\"status\":{},\"detail\":{},\"code\":{},\"request_id\":\"",
        quote(kind),
        quote(status.canonical_reason().unwrap_or_default()),
        status.as_u16(),
        quote(message),
        quote(refusal.code()),
    )
}

/// A text as a string of JSON.
pub(super) fn quote(text: &str) -> String {
    // A text always fits into JSON.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_texts() {
        for refusal in Refusal::ALL {
            let texts = RefusalTexts::of(refusal).map(|texts| texts.json.as_str());
            let expected = json(refusal, refusal.message());
            assert_eq!(texts, Some(expected.as_str()), "{refusal:?}");
        }
    }
}
