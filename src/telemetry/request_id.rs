//! Identifier of a request, used in responses, logs, events and upstream requests.

use std::fmt;
use std::future::Future;

use http::{HeaderName, HeaderValue};

/// The header that carries it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    /// The request that the current task serves, for events recorded without access to it.
    static CURRENT: RequestId;
}

/// Identifier of 1 to 128 characters of `[A-Za-z0-9._-]`; empty until the head is read.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl Default for RequestId {
    fn default() -> RequestId {
        RequestId(HeaderValue::from_static(""))
    }
}

impl RequestId {
    /// Generates a new identifier.
    pub fn generate() -> RequestId {
        let mut hex = [0; 32];
        let text = uuid::Uuid::new_v4().simple().encode_lower(&mut hex);
        // Hexadecimal digits are valid in a header.
        HeaderValue::from_str(text).map_or_else(|_| RequestId::default(), RequestId)
    }

    /// Keeps the client's identifier if it is valid, and generates one otherwise.
    pub fn keep_or_generate(sent: Option<&[u8]>) -> RequestId {
        let valid = sent.filter(|value| is_valid(value));
        valid
            .and_then(|value| HeaderValue::from_bytes(value).ok())
            .map_or_else(RequestId::generate, RequestId)
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The value of [`X_REQUEST_ID`].
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// Runs `work` as part of this request: the events that it records carry the identifier.
    pub async fn scope<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// Returns the identifier of the current task's request, inside [`RequestId::scope`].
    pub fn current() -> Option<RequestId> {
        CURRENT.try_with(Clone::clone).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_valid(value: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=128).contains(&value.len()) && value.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_identifier_is_kept_only_if_valid() {
        let longest = "a".repeat(128);
        for sent in ["a", "A-z_0.9", &longest] {
            let kept = RequestId::keep_or_generate(Some(sent.as_bytes()));
            assert_eq!(kept.as_str(), sent);
            assert_eq!(kept.header(), sent);
        }
        for sent in ["", "a b", "a/b", "ä", &format!("{longest}a")] {
            let generated = RequestId::keep_or_generate(Some(sent.as_bytes()));
            assert_eq!(generated.as_str().len(), 32, "{sent}");
        }
        assert_eq!(RequestId::keep_or_generate(None).as_str().len(), 32);
    }

    #[tokio::test]
    async fn current_request_is_set_only_inside_its_scope() {
        assert!(RequestId::current().is_none());
        let inside = RequestId::generate().scope(async { RequestId::current() });
        assert!(inside.await.is_some());
        assert!(RequestId::current().is_none());
    }
}
