//! Keys, each bound to one algorithm, so that a token cannot choose how it is verified (RFC 8725,
//! section 3.1).

use std::sync::Arc;

use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::EllipticCurve;
use jsonwebtoken::{DecodingKey, EncodingKey};

use super::Algorithm;
use super::jwk::{Curve, PublicKey};

/// Minimum length of a secret, in bytes (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;
/// Sizes of an RSA key, in bits: the minimum of RFC 7518, section 3.3, to the maximum of the
/// library.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Maximum length of a `kid`, in bytes.
pub(super) const MAX_ID: usize = 256;

/// A key with its only algorithm.
#[derive(Clone)]
pub struct Key {
    pub id: Option<String>,
    pub algorithm: Algorithm,
    material: Arc<KeyMaterial>,
}

struct KeyMaterial {
    verifying: DecodingKey,
    /// `None` for a public key.
    signing: Option<EncodingKey>,
    /// `None` for a secret.
    public: Option<PublicKey>,
}

/// Reason why a key cannot be used. It never contains any of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("an HS256 secret needs at least {MIN_SECRET} bytes, but has {0}")]
    ShortSecret(usize),
    #[error("HS256 takes a secret, not a key file")]
    SecretRequired,
    #[error("a key ID must have 1 to {MAX_ID} characters")]
    BadId,
    #[error("not a PEM file with {}", key_type(*.0))]
    BadPem(Algorithm),
    #[error("the key is encrypted; use a key without a passphrase")]
    Encrypted,
    #[error("an EC key must be in PKCS #8; convert it with `openssl pkcs8 -topk8 -nocrypt`")]
    Sec1,
    #[error("an RSA key needs 2048 to 8192 bits, but has {0}")]
    RsaSize(usize),
    #[error("the RSA exponent is not an odd number above 1")]
    RsaExponent,
    #[error("{0} is not in the issuer's `algorithms`, or requires `jwks_file`")]
    AlgorithmNotAllowed(Algorithm),
    #[error("the key type, curve or algorithm is not supported")]
    Unsupported,
    #[error("not a JSON Web Key: {0}")]
    BadJwk(&'static str),
    #[error("not a JSON Web Key Set: {0}")]
    BadJwks(&'static str),
    #[error("none of the {0} keys in the set can verify signatures of the given algorithms")]
    NoUsableKey(usize),
    #[error("none of the keys in the set is usable")]
    NoneUsable(#[source] Box<KeyError>),
}

impl Key {
    /// Creates an HS256 key from a secret of at least 32 bytes.
    pub fn hmac(id: Option<String>, secret: &[u8]) -> Result<Key, KeyError> {
        if secret.len() < MIN_SECRET {
            return Err(KeyError::ShortSecret(secret.len()));
        }
        Key::with_material(
            id,
            Algorithm::HS256,
            KeyMaterial {
                verifying: DecodingKey::from_secret(secret),
                signing: Some(EncodingKey::from_secret(secret)),
                public: None,
            },
        )
    }

    /// Parses a PEM key: a private key (PKCS #8, or PKCS #1 for RSA), which signs and verifies, or
    /// a public key, which only verifies.
    ///
    /// Without an `id`, the ID is the thumbprint (RFC 7638).
    pub fn from_pem(id: Option<String>, algorithm: Algorithm, pem: &[u8]) -> Result<Key, KeyError> {
        let bad_pem = KeyError::BadPem(algorithm);
        let text = std::str::from_utf8(pem).map_err(|_| bad_pem.clone())?;
        let label = text
            .split_once("-----BEGIN ")
            .and_then(|(_, rest)| rest.split_once("-----"))
            .map(|(label, _)| label);
        match (algorithm, label) {
            (Algorithm::HS256, _) => Err(KeyError::SecretRequired),
            (_, Some("ENCRYPTED PRIVATE KEY")) => Err(KeyError::Encrypted),
            (_, Some("RSA PRIVATE KEY")) if text.contains("ENCRYPTED") => Err(KeyError::Encrypted),
            (_, Some("EC PRIVATE KEY" | "EC PARAMETERS")) => Err(KeyError::Sec1),
            (_, Some("PRIVATE KEY" | "RSA PRIVATE KEY")) => {
                let (signing, public) = parse_private_pem(algorithm, pem).ok_or(bad_pem)?;
                Key::asymmetric(id, algorithm, Some(signing), public)
            }
            (_, Some("PUBLIC KEY" | "RSA PUBLIC KEY")) => {
                let public = parse_public_pem(algorithm, pem).ok_or(bad_pem)?;
                Key::asymmetric(id, algorithm, None, public)
            }
            _ => Err(bad_pem),
        }
    }

    pub(super) fn asymmetric(
        id: Option<String>,
        algorithm: Algorithm,
        signing: Option<EncodingKey>,
        public: PublicKey,
    ) -> Result<Key, KeyError> {
        if let PublicKey::Rsa { n, e } = &public {
            check_rsa(n, e)?;
        }
        let material = KeyMaterial {
            verifying: public.decoding_key(),
            signing,
            public: Some(public),
        };
        let id = id.or_else(|| material.public.as_ref().map(PublicKey::thumbprint));
        Key::with_material(id, algorithm, material)
    }

    fn with_material(
        id: Option<String>,
        algorithm: Algorithm,
        material: KeyMaterial,
    ) -> Result<Key, KeyError> {
        if id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.len() > MAX_ID)
        {
            return Err(KeyError::BadId);
        }
        Ok(Key {
            id,
            algorithm,
            material: Arc::new(material),
        })
    }

    /// Whether another key has the same ID, algorithm and material.
    pub fn is_same_as(&self, other: &Key) -> bool {
        let is_same_material = match (self.secret(), other.secret()) {
            (Some(one), Some(other)) => one == other,
            (None, None) => self.public_jwk() == other.public_jwk(),
            _ => false,
        };
        self.id == other.id && self.algorithm == other.algorithm && is_same_material
    }

    /// Whether the key can sign, not only verify.
    pub fn can_sign(&self) -> bool {
        self.material.signing.is_some()
    }

    /// Returns the secret or the private key in the library's format; `None` for a public key.
    pub(super) fn secret(&self) -> Option<&[u8]> {
        self.material.signing.as_ref().map(EncodingKey::as_bytes)
    }

    /// Signs a message; `None` if the key is public or the library fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<String> {
        let signing = self.material.signing.as_ref()?;
        jsonwebtoken::crypto::sign(message, signing, self.algorithm.library()).ok()
    }

    /// Whether `signature` (base64url) is a signature of `message` by this key.
    pub(super) fn verify(&self, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(
            signature,
            message,
            &self.material.verifying,
            self.algorithm.library(),
        )
        .unwrap_or(false)
    }

    /// Returns the public key as a key set (RFC 7517), which is empty for a secret.
    pub fn public_jwks(&self) -> serde_json::Value {
        let keys: Vec<_> = self.public_jwk().into_iter().collect();
        serde_json::json!({ "keys": keys })
    }

    /// Returns the public key as JWK (RFC 7517); `None` for a secret.
    pub fn public_jwk(&self) -> Option<serde_json::Value> {
        let mut jwk = self.material.public.as_ref()?.members();
        jwk.insert("use".to_owned(), "sig".into());
        jwk.insert("alg".to_owned(), self.algorithm.as_str().into());
        if let Some(id) = &self.id {
            jwk.insert("kid".to_owned(), id.as_str().into());
        }
        Some(jwk.into())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.algorithm)
    }
}

/// Describes the type of key that an algorithm requires.
fn key_type(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HS256 => "a secret",
        Algorithm::RS256 | Algorithm::PS256 => "an RSA key of 2048 to 8192 bits",
        Algorithm::ES256 => "an EC key of the curve P-256",
        Algorithm::ES384 => "an EC key of the curve P-384",
        Algorithm::EdDSA => "an Ed25519 key",
    }
}

/// Parses a private PEM key and derives its public half.
fn parse_private_pem(algorithm: Algorithm, pem: &[u8]) -> Option<(EncodingKey, PublicKey)> {
    let derive = &DEFAULT_PROVIDER.key_utils;
    match algorithm {
        Algorithm::HS256 => None,
        Algorithm::RS256 | Algorithm::PS256 => {
            let key = EncodingKey::from_rsa_pem(pem).ok()?;
            let (n, e) = (derive.rsa_pub_components_from_private_key)(key.as_bytes()).ok()?;
            Some((key, PublicKey::Rsa { n, e }))
        }
        Algorithm::ES256 | Algorithm::ES384 => {
            let key = EncodingKey::from_ec_pem(pem).ok()?;
            let (_, x, y) =
                (derive.ec_pub_components_from_private_key)(key.as_bytes(), algorithm.library())
                    .ok()?;
            let curve = Curve::of(algorithm)?;
            Some((key, PublicKey::Ec { curve, x, y }))
        }
        Algorithm::EdDSA => {
            let key = EncodingKey::from_ed_pem(pem).ok()?;
            let x = (derive.ed_pub_components_from_private_key)(
                key.as_bytes(),
                &EllipticCurve::Ed25519,
            )
            .ok()?;
            Some((key, PublicKey::Ed25519 { x }))
        }
    }
}

/// Parses a public PEM key.
fn parse_public_pem(algorithm: Algorithm, pem: &[u8]) -> Option<PublicKey> {
    match algorithm {
        Algorithm::HS256 => None,
        Algorithm::RS256 | Algorithm::PS256 => {
            let key = DecodingKey::from_rsa_pem(pem).ok()?;
            let derive = DEFAULT_PROVIDER
                .key_utils
                .rsa_pub_components_from_public_key;
            let (n, e) = derive(key.try_get_as_bytes().ok()?).ok()?;
            Some(PublicKey::Rsa { n, e })
        }
        Algorithm::ES256 | Algorithm::ES384 => {
            let key = DecodingKey::from_ec_pem(pem).ok()?;
            // An uncompressed point (SEC 1, section 2.3.3): 4, then x and y.
            let point = key.try_get_as_bytes().ok()?.strip_prefix(&[4])?;
            let curve = Curve::of(algorithm)?;
            let size = curve.coordinate_size();
            let (x, y) = (point.len() == 2 * size).then(|| point.split_at(size))?;
            Some(PublicKey::Ec {
                curve,
                x: x.to_vec(),
                y: y.to_vec(),
            })
        }
        Algorithm::EdDSA => {
            let key = DecodingKey::from_ed_pem(pem).ok()?;
            let x = key.try_get_as_bytes().ok()?;
            (x.len() == 32).then(|| PublicKey::Ed25519 { x: x.to_vec() })
        }
    }
}

/// Checks an RSA key. `n` and `e` are big-endian, without leading zeros.
fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), KeyError> {
    let bits = n
        .first()
        .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(KeyError::RsaSize(bits));
    }
    if e == [1] || e.last().is_none_or(|last| last % 2 == 0) {
        return Err(KeyError::RsaExponent);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
