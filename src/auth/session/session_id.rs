//! Identifiers of sessions, and of the records of API keys.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::auth::api_key::ApiKeyId;
use crate::hex_digits;

/// Public identifier of a session: the SHA-256 of its token's 64 characters. It proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 32]);

/// A part is sufficient: an ID is a hash itself. That of an API key is chosen by clients.
impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
        let [.., i, j, k, l, m, n, o, p] = *self.api_key_part();
        if self.is_of_api_key() {
            state.write_u64(u64::from_ne_bytes([i, j, k, l, m, n, o, p]));
        }
    }
}

impl SessionId {
    /// Parses the 64 lower-case hex characters of an ID.
    pub fn parse(text: &str) -> Option<SessionId> {
        if text.len() != 64 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        let id = SessionId(bytes);
        id.api_key().is_none().then_some(id)
    }

    /// Returns the ID of an API key's record, which no session has: the hash of a token does not end with
    /// 16 zeros.
    pub fn of_api_key(key: ApiKeyId) -> SessionId {
        let mut id = [0; 32];
        for (to, from) in id.iter_mut().zip(key.as_bytes()) {
            *to = *from;
        }
        SessionId(id)
    }

    /// Returns the API key whose record has this ID.
    pub fn api_key(&self) -> Option<ApiKeyId> {
        // Most IDs end here.
        if !self.is_of_api_key() {
            return None;
        }
        ApiKeyId::parse(std::str::from_utf8(self.api_key_part()).ok()?)
    }

    fn is_of_api_key(&self) -> bool {
        self.0.last_chunk() == Some(&[0; 16])
    }

    fn api_key_part(&self) -> &[u8; 16] {
        self.0.first_chunk().unwrap_or(&[0; 16])
    }

    /// Returns the 64 hex characters.
    pub fn hex(&self) -> [u8; 64] {
        hex_digits::encode(&self.0)
    }

    /// Writes the 64 hex characters to the caller's buffer.
    pub fn write_hex<'b>(&self, buffer: &'b mut [u8; 64]) -> &'b str {
        *buffer = self.hex();
        std::str::from_utf8(buffer).unwrap_or_default()
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.write_hex(&mut [0; 64]))
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        SessionId::parse(&text).ok_or_else(|| serde::de::Error::custom("not a session id"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn record_of_an_api_key_is_no_session() {
        let key = ApiKeyId::random();
        let id = SessionId::of_api_key(key);
        assert_eq!(id.api_key(), Some(key));
        assert_eq!(SessionId::parse(&id.to_string()), None);
        let session = SessionId([7; 32]);
        assert_eq!(session.api_key(), None);
        assert_eq!(SessionId::parse(&session.to_string()), Some(session));
    }

    #[test]
    fn keys_that_begin_alike_have_different_hashes() {
        let hasher = foldhash::fast::RandomState::default();
        let hash = |id: &str| {
            let key = ApiKeyId::parse(id).unwrap();
            hasher.hash_one(SessionId::of_api_key(key))
        };
        assert_ne!(hash("aaaaaaaaaaaaaaaa"), hash("aaaaaaaaaaaaaaab"));
    }
}
