//! The identifier of one request, the same in responses, logs, events and toward upstreams.

use std::fmt;
use std::future::Future;

use http::{HeaderName, HeaderValue};

/// The header that carries it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    /// The request that the current task serves, for events that are recorded far from it.
    static CURRENT: RequestId;
}

/// An identifier of 1 to 128 characters of `[A-Za-z0-9._-]`; empty before the request's head was read.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl Default for RequestId {
    fn default() -> RequestId {
        RequestId(HeaderValue::from_static(""))
    }
}

impl RequestId {
    /// Makes a new identifier.
    pub fn generate() -> RequestId {
        let mut hex = [0; 32];
        let text = uuid::Uuid::new_v4().simple().encode_lower(&mut hex);
        // Hexadecimal digits fit into a header.
        HeaderValue::from_str(text).map_or_else(|_| RequestId::default(), RequestId)
    }

    /// Keeps the client's identifier where its form allows, and generates one otherwise.
    pub fn keep_or_generate(sent: Option<&HeaderValue>) -> RequestId {
        let valid = sent.filter(|value| is_valid(value.as_bytes()));
        // Copied: the value is a part of the whole head, which would stay in memory with it.
        valid
            .and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok())
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

    /// The identifier of the request that the current task serves, inside [`RequestId::scope`].
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
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn client_identifier_is_kept_only_if_valid() {
        let longest = "a".repeat(128);
        for sent in ["a", "A-z_0.9", &longest] {
            let kept = RequestId::keep_or_generate(Some(&sent.parse().unwrap()));
            assert_eq!(kept.as_str(), sent);
            assert_eq!(kept.header(), sent);
        }
        for sent in ["", "a b", "a/b", "ä", &format!("{longest}a")] {
            let value = HeaderValue::from_bytes(sent.as_bytes()).unwrap();
            let made = RequestId::keep_or_generate(Some(&value));
            assert_eq!(made.as_str().len(), 32, "{sent}");
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
