//! Keys with which the tokens of providers are sealed.

use std::fmt;

use zeroize::Zeroizing;

/// Length of a key, in bytes.
pub const KEY_LENGTH: usize = 32;

/// The key that seals, and older keys that only open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    pub key: EncryptionKey,
    pub also: Vec<EncryptionKey>,
}

/// A key of AES-256-GCM. It is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionKey(Zeroizing<[u8; KEY_LENGTH]>);

impl EncryptionKey {
    /// Wraps a key.
    pub fn new(bytes: [u8; KEY_LENGTH]) -> EncryptionKey {
        EncryptionKey(Zeroizing::new(bytes))
    }

    /// Returns the key itself.
    pub fn expose(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_and_not_printed() {
        let key = EncryptionKey::new([7; KEY_LENGTH]);
        assert_eq!(format!("{key:?}"), "EncryptionKey(…)");
        assert_eq!(key, EncryptionKey::new([7; KEY_LENGTH]));
        assert_ne!(key, EncryptionKey::new([8; KEY_LENGTH]));
    }
}
