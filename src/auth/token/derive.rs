//! Secrets that a fleet shares without configuration, derived from the signing key by purpose.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Key, Tokens};
use crate::auth::sealing::{KeyRing, SealingKey};

impl Tokens {
    /// Derives 32 secret bytes for a purpose; `None` without a signing key.
    ///
    /// They reveal nothing about the signing key or the secrets for other purposes.
    pub fn derive_secret(&self, purpose: &str) -> Option<[u8; 32]> {
        derive(self.signing.as_ref()?, purpose)
    }

    /// Derives the key that seals for a purpose, and those of earlier signing keys, which open what was
    /// sealed before a rotation; `None` without a signing key.
    pub fn derive_ring(&self, purpose: &str) -> Option<KeyRing> {
        let current = SealingKey::new(self.derive_secret(purpose)?);
        let keys = self.verifying.iter();
        let keys = keys.filter_map(|key| Some(SealingKey::new(derive(key, purpose)?)));
        Some(KeyRing {
            older: keys.filter(|key| *key != current).collect(),
            current,
        })
    }
}

/// `None` for a public key.
fn derive(key: &Key, purpose: &str) -> Option<[u8; 32]> {
    let secret = key.secret()?;
    // HMAC pads a short key with zeros to the block size of its hash (RFC 2104, section 2).
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(Sha256::digest(secret)) {
        *to = from;
    }
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(purpose.as_bytes());
    Some(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;
    use crate::auth::token::Key;

    fn tokens(secret: Option<&[u8; 32]>) -> Tokens {
        Tokens {
            issuer: "i".to_owned(),
            audience: "a".to_owned(),
            access_ttl: Duration::from_secs(900),
            refresh_ttl: Duration::from_secs(900),
            refresh_grace: Duration::from_secs(30),
            leeway: Duration::ZERO,
            signing: secret.map(|secret| Key::hmac(None, secret).unwrap()),
            verifying: Vec::new(),
            trusted: Vec::new(),
        }
    }

    #[test]
    fn derived_secret_depends_on_key_and_purpose() {
        let derived = |secret, purpose| tokens(Some(secret)).derive_secret(purpose).unwrap();
        let first = derived(&[1; 32], "a");
        assert_eq!(first, derived(&[1; 32], "a"));
        assert_ne!(first, derived(&[1; 32], "b"));
        assert_ne!(first, derived(&[2; 32], "a"));
        assert_eq!(tokens(None).derive_secret("a"), None);
    }

    #[test]
    fn derived_ring_has_the_keys_of_earlier_signing_keys() {
        let key = |byte| Key::hmac(None, &[byte; 32]).unwrap();
        let rotated = Tokens {
            verifying: vec![key(2), key(1)],
            ..tokens(Some(&[2; 32]))
        };
        let ring = rotated.derive_ring("a").unwrap();
        let before = tokens(Some(&[1; 32])).derive_ring("a").unwrap();
        assert_eq!(ring.older, std::slice::from_ref(&before.current));
        assert_ne!(ring.current, before.current);
        assert_ne!(before, tokens(Some(&[1; 32])).derive_ring("b").unwrap());
        assert_eq!(tokens(None).derive_ring("a"), None);
    }
}
