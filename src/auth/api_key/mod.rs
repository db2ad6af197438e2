//! API keys: long-lived secrets of a user or a service.
//!
//! A key reads `<prefix>_<id>_<secret>`. The ID is public and proves nothing. The secret is 256 random bits
//! in base62 and a checksum of everything before it, by which secret scanners recognize a key.

mod base62;
mod grant;
mod key;
mod masking;

pub use grant::{ApiKeyFault, ApiKeyGrant, ApiKeySecrets, ApiKeyState, ReplacedSecret};
pub use key::{ApiKey, ApiKeyOwner, ApiKeyStatus};
pub use masking::mask_secrets;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Length of an ID.
const ID_LENGTH: usize = 16;
const ID_ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Base62 digits that hold 256 bits, and those that hold the 32 bits of the checksum.
const SECRET_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;

/// Public identifier of an API key: 16 characters of `[0-9a-z]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKeyId([u8; ID_LENGTH]);

impl ApiKeyId {
    /// Generates a random ID.
    pub fn random() -> ApiKeyId {
        ApiKeyId(std::array::from_fn(|_| {
            let digit = rand::random_range(0..ID_ALPHABET.len());
            ID_ALPHABET.get(digit).copied().unwrap_or(b'0')
        }))
    }

    /// Parses the 16 characters of an ID.
    pub fn parse(text: &str) -> Option<ApiKeyId> {
        let id: [u8; ID_LENGTH] = text.as_bytes().try_into().ok()?;
        // By ranges, not by a search in the alphabet: this is done for every request.
        let is_valid = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z');
        let is_valid = id.iter().all(is_valid);
        is_valid.then_some(ApiKeyId(id))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub fn as_bytes(&self) -> &[u8; ID_LENGTH] {
        &self.0
    }
}

impl std::fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for ApiKeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeyId({self})")
    }
}

/// SHA-256 of a whole key, by which the gateway recognizes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    fn of(key: &str) -> SecretHash {
        SecretHash(Sha256::digest(key.as_bytes()).into())
    }

    /// Compares in a time that does not depend on the hashes.
    pub fn matches(&self, other: &SecretHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// A new key in clear, to show it once. It is never stored or logged.
pub struct ApiKeySecret(String);

impl ApiKeySecret {
    /// Generates a key with this ID.
    pub fn generate(prefix: &str, id: ApiKeyId) -> ApiKeySecret {
        let secret = base62::encode_bits(rand::random::<[u8; 32]>());
        let mut key = format!("{prefix}_{id}_{secret}");
        key.push_str(&checksum(&key));
        ApiKeySecret(key)
    }

    /// Returns the key, to send it to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }
}

impl std::fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKeySecret(…)")
    }
}

/// A key of valid form that a request presents: the ID that it claims, and the hash of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PresentedApiKey {
    pub id: ApiKeyId,
    pub hash: SecretHash,
}

impl PresentedApiKey {
    /// Parses a key; `None` unless its form and its checksum are right.
    pub fn parse(text: &str, prefix: &str) -> Option<PresentedApiKey> {
        let rest = text.strip_prefix(prefix)?.strip_prefix('_')?;
        let (id, rest) = rest.split_once('_')?;
        let id = ApiKeyId::parse(id)?;
        let is_base62 = rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_base62 || rest.len() != SECRET_LENGTH + CHECKSUM_LENGTH {
            return None;
        }
        let (body, given) = text.split_at_checked(text.len() - CHECKSUM_LENGTH)?;
        (checksum(body) == given).then(|| PresentedApiKey {
            id,
            hash: SecretHash::of(text),
        })
    }
}

fn checksum(body: &str) -> String {
    base62::encode_number(crc32fast::hash(body.as_bytes()))
}

#[cfg(test)]
mod tests;
