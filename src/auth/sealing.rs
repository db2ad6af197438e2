//! Sealing of secrets that leave the process: AES-256-GCM (RFC 5116) with a key ring.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
/// First byte of a sealed text, which names its format.
const FORMAT: u8 = 1;
/// Length of the authentication tag, in bytes.
const TAG_BYTES: usize = 16;
/// Standard base64, of which the padding is optional.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key that seals and opens.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey(Zeroizing<[u8; KEY_BYTES]>);

/// Reason why a text is not a key. It contains nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealingKeyError {
    #[error("not base64")]
    NotBase64,
    #[error("a key has {KEY_BYTES} bytes, but this one has {0}")]
    Length(usize),
}

/// The key that seals, and older ones that only open.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing {
    pub current: SealingKey,
    pub older: Vec<SealingKey>,
}

/// An opened text.
pub struct Opened {
    pub plain: Zeroizing<Vec<u8>>,
    /// Whether an older key sealed it, so that it should be sealed anew.
    pub is_outdated: bool,
}

impl SealingKey {
    pub fn new(bytes: [u8; KEY_BYTES]) -> SealingKey {
        SealingKey(Zeroizing::new(bytes))
    }

    /// Parses a key in base64.
    pub fn from_base64(text: &str) -> Result<SealingKey, SealingKeyError> {
        let decoded = BASE64
            .decode(text)
            .map_err(|_| SealingKeyError::NotBase64)?;
        let decoded = Zeroizing::new(decoded);
        let bytes = <[u8; KEY_BYTES]>::try_from(decoded.as_slice())
            .map_err(|_| SealingKeyError::Length(decoded.len()))?;
        Ok(SealingKey::new(bytes))
    }

    /// Seals a text with a random nonce. It opens only with the same associated data, which is not
    /// part of the result.
    ///
    /// `None` if the library fails.
    pub fn seal(&self, associated: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let nonce = rand::random::<[u8; NONCE_LEN]>();
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + TAG_BYTES);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        let mut text = Zeroizing::new(plain.to_vec());
        let tag = self
            .library()?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated),
                &mut text,
            )
            .ok()?;
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }

    /// Opens a sealed text; `None` if another key or other associated data sealed it, or if it was
    /// altered.
    fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (format, rest) = sealed.split_first()?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN)?;
        if *format != FORMAT {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let plain = self
            .library()?
            .open_in_place(nonce, Aad::from(associated), &mut text)
            .ok()?;
        let length = plain.len();
        text.truncate(length);
        Some(text)
    }

    fn library(&self) -> Option<LessSafeKey> {
        let key = UnboundKey::new(&AES_256_GCM, self.0.as_slice()).ok()?;
        Some(LessSafeKey::new(key))
    }
}

impl KeyRing {
    /// Seals a text with the current key.
    pub fn seal(&self, associated: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        self.current.seal(associated, plain)
    }

    /// Opens a text that a key of the ring sealed with the same associated data.
    pub fn open(&self, associated: &[u8], sealed: &[u8]) -> Option<Opened> {
        let keys = std::iter::once(&self.current).chain(&self.older);
        let mut opened = keys.enumerate().filter_map(|(index, key)| {
            let plain = key.open(associated, sealed)?;
            Some(Opened {
                plain,
                is_outdated: index > 0,
            })
        });
        opened.next()
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyRing({} older)", self.older.len())
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened(is_outdated: {})", self.is_outdated)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::new([byte; KEY_BYTES])
    }

    fn ring(current: u8, older: &[u8]) -> KeyRing {
        KeyRing {
            current: key(current),
            older: older.iter().copied().map(key).collect(),
        }
    }

    #[test]
    fn sealed_text_opens_with_its_key_and_data() {
        let ring = ring(1, &[]);
        for plain in [b"".as_slice(), b"a", &[7; 100_000]] {
            let sealed = ring.seal(b"session", plain).unwrap();
            assert_eq!(sealed.len(), 1 + 12 + plain.len() + 16);
            let opened = ring.open(b"session", &sealed).unwrap();
            assert_eq!(opened.plain.as_slice(), plain);
            assert!(!opened.is_outdated);
            assert_ne!(
                ring.seal(b"session", plain).unwrap(),
                sealed,
                "random nonce"
            );
        }
    }

    #[test]
    fn altered_text_does_not_open() {
        let ring = ring(1, &[2]);
        let sealed = ring.seal(b"session", b"secret").unwrap();
        for index in 0..sealed.len() {
            for bit in 0..8 {
                let mut altered = sealed.clone();
                altered[index] ^= 1 << bit;
                assert!(ring.open(b"session", &altered).is_none(), "{index} {bit}");
            }
        }
        for length in 0..sealed.len() {
            assert!(
                ring.open(b"session", &sealed[..length]).is_none(),
                "{length}"
            );
        }
        let longer = [sealed.as_slice(), b"x"].concat();
        assert!(ring.open(b"session", &longer).is_none());
    }

    #[test]
    fn other_data_or_key_does_not_open() {
        let sealed = ring(1, &[]).seal(b"session", b"secret").unwrap();
        for associated in [b"".as_slice(), b"sessioo", b"session1"] {
            assert!(ring(1, &[]).open(associated, &sealed).is_none());
        }
        assert!(ring(2, &[]).open(b"session", &sealed).is_none());
        assert!(ring(2, &[3]).open(b"session", &sealed).is_none());
    }

    #[test]
    fn older_key_opens_and_is_reported() {
        let sealed = ring(1, &[]).seal(b"session", b"secret").unwrap();
        let rotated = ring(2, &[3, 1]);
        let opened = rotated.open(b"session", &sealed).unwrap();
        assert_eq!(opened.plain.as_slice(), b"secret");
        assert!(opened.is_outdated);
        let again = rotated.seal(b"session", &opened.plain).unwrap();
        assert!(!rotated.open(b"session", &again).unwrap().is_outdated);
        assert!(ring(1, &[]).open(b"session", &again).is_none());
    }

    #[test]
    fn key_is_32_bytes_in_base64() {
        let check = |text: &str, expected: Result<SealingKey, SealingKeyError>| {
            assert_eq!(SealingKey::from_base64(text), expected, "{text}");
        };
        let text = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        check(text, Ok(key(7)));
        check(text.trim_end_matches('='), Ok(key(7)));
        check("BwcH", Err(SealingKeyError::Length(3)));
        check(&format!("Bwc{text}"), Err(SealingKeyError::NotBase64));
        check(&"BwcH".repeat(11), Err(SealingKeyError::Length(33)));
        check("", Err(SealingKeyError::Length(0)));
        check(&text.replace('=', "\n"), Err(SealingKeyError::NotBase64));
        check(&"07".repeat(32), Err(SealingKeyError::Length(48)));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let ring = ring(7, &[8]);
        let sealed = ring.seal(b"", b"secret").unwrap();
        let opened = ring.open(b"", &sealed).unwrap();
        assert_eq!(
            format!("{ring:?} {:?} {opened:?}", ring.current),
            "KeyRing(1 older) SealingKey(…) Opened(is_outdated: false)"
        );
        let errors = [SealingKeyError::NotBase64, SealingKeyError::Length(3)];
        let text = errors.map(|error| error.to_string()).join(" ");
        assert_eq!(text, "not base64 a key has 32 bytes, but this one has 3");
    }
}
