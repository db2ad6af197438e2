//! Identifier of a request, used in responses, logs, events and upstream requests.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::random;
use crate::hex_digits;

/// The header that carries it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    /// The request that the current task serves, for events recorded without access to it.
    static CURRENT: RequestId;
}

/// Identifier of 1 to 128 characters of `[A-Za-z0-9._-]`; empty until the head is read.
#[derive(Debug, Clone)]
pub struct RequestId(Text);

#[derive(Debug, Clone)]
enum Text {
    Empty,
    Generated([u8; 32]),
    /// The client's.
    Received(Arc<str>),
}

impl RequestId {
    /// That of a request whose head is not read yet.
    pub const EMPTY: RequestId = RequestId(Text::Empty);

    /// Generates a new identifier: a UUID of version 4 (RFC 9562, section 5.4).
    pub fn generate() -> RequestId {
        let random = random::bits_128() & !(0xf << 76 | 0x3 << 62);
        let id = random | 0x4 << 76 | 0x2 << 62;
        RequestId(Text::Generated(hex_digits::encode(&id.to_be_bytes())))
    }

    /// Keeps the client's identifier if it is valid, and generates one otherwise.
    pub fn keep_or_generate(received: Option<&[u8]>) -> RequestId {
        let valid = received.filter(|value| is_valid(value));
        valid
            .and_then(|value| std::str::from_utf8(value).ok())
            .map_or_else(RequestId::generate, |text| {
                RequestId(Text::Received(text.into()))
            })
    }

    /// The digits of a generated identifier, which are also those of a valid trace.
    pub fn generated(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            Text::Generated(digits) => Some(digits),
            Text::Empty | Text::Received(_) => None,
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Empty => b"",
            Text::Generated(digits) => digits,
            Text::Received(text) => text.as_bytes(),
        }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The value of [`X_REQUEST_ID`].
    pub fn header(&self) -> HeaderValue {
        // Its characters are valid in a header.
        HeaderValue::from_bytes(self.as_bytes()).unwrap_or(HeaderValue::from_static(""))
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
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

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

    #[test]
    fn generated_identifiers_are_distinct_uuids() {
        let ids: Vec<String> = (0..1000)
            .map(|_| RequestId::generate().to_string())
            .collect();
        for id in &ids {
            let uuid = uuid::Uuid::try_parse(id).unwrap();
            assert_eq!(uuid.get_version(), Some(uuid::Version::Random), "{id}");
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122, "{id}");
            assert_eq!(uuid.simple().to_string(), *id);
        }
        let distinct: HashSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[tokio::test]
    async fn current_request_is_set_only_inside_its_scope() {
        assert!(RequestId::current().is_none());
        let inside = RequestId::generate().scope(async { RequestId::current() });
        assert!(inside.await.is_some());
        assert!(RequestId::current().is_none());
    }
}
