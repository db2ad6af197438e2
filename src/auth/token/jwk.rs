//! JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Algorithm;
use super::key::{Key, KeyError, MAX_ID};
use crate::json;

/// The public half of a key.
pub(super) enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256 { x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: Vec<u8> },
}

/// The relevant members of a JWK. Others, such as private parts and certificates, are ignored.
#[derive(Deserialize)]
struct JwkMembers {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

/// The usable keys of a set, and the ignored ones.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    pub keys: Vec<Key>,
    pub ignored: Vec<IgnoredKey>,
}

impl From<Vec<Key>> for KeySet {
    fn from(keys: Vec<Key>) -> KeySet {
        KeySet {
            keys,
            ignored: Vec::new(),
        }
    }
}

/// A signature key that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredKey {
    /// The `kid`, if any.
    pub id: Option<String>,
    pub reason: KeyError,
}

/// Maximum number of ignored keys that are reported per set.
const MAX_REPORTED: usize = 16;

/// Parses a key set, and keeps the keys that verify signatures of the given algorithms.
///
/// Keys of other types and uses, and keys that are too weak, are ignored, as RFC 7517, section 5
/// recommends.
///
/// # Errors
///
/// The input is not a key set or has no usable key.
pub fn parse_jwks(bytes: &[u8], algorithms: &[Algorithm]) -> Result<KeySet, KeyError> {
    let set = json::parse(bytes).map_err(|error| KeyError::BadJwks(error.reason))?;
    let Some(members) = set.get("keys").and_then(serde_json::Value::as_array) else {
        return Err(KeyError::BadJwks("it has no array `keys`"));
    };
    let (mut keys, mut ignored) = (Vec::new(), Vec::new());
    let mut first_error = None;
    for jwk in members {
        let reason = match Key::from_jwk(jwk) {
            Ok(Some(key)) if algorithms.contains(&key.algorithm) => {
                keys.push(key);
                continue;
            }
            Ok(Some(key)) => KeyError::AlgorithmNotAllowed(key.algorithm),
            Ok(None) if is_for_other_use(jwk) => continue,
            Ok(None) => KeyError::Unsupported,
            Err(error) => {
                first_error.get_or_insert_with(|| error.clone());
                error
            }
        };
        if ignored.len() < MAX_REPORTED {
            let id = jwk.get("kid").and_then(serde_json::Value::as_str);
            let id = id.filter(|id| id.len() <= MAX_ID).map(str::to_owned);
            ignored.push(IgnoredKey { id, reason });
        }
    }
    match first_error {
        Some(error) if keys.is_empty() => Err(KeyError::NoneUsable(Box::new(error))),
        None if keys.is_empty() => Err(KeyError::NoUsableKey(members.len())),
        _ => Ok(KeySet { keys, ignored }),
    }
}

/// Whether a key is declared for another purpose than signatures, such as encryption.
fn is_for_other_use(jwk: &serde_json::Value) -> bool {
    JwkMembers::deserialize(jwk).is_ok_and(|members| !members.can_verify())
}

impl Key {
    /// Parses one JWK; `None` if it is for another use or its algorithm is not supported.
    ///
    /// Private members are ignored, so the key only verifies.
    pub fn from_jwk(jwk: &serde_json::Value) -> Result<Option<Key>, KeyError> {
        let jwk = JwkMembers::deserialize(jwk)
            .map_err(|_| KeyError::BadJwk("a member is missing or of the wrong type"))?;
        let Some(algorithm) = jwk.algorithm().filter(|_| jwk.can_verify()) else {
            return Ok(None);
        };
        let public = match algorithm {
            Algorithm::HS256 => {
                return Key::hmac(jwk.kid, &decode_base64url(jwk.k.as_deref())?).map(Some);
            }
            Algorithm::RS256 => PublicKey::Rsa {
                n: decode_integer(jwk.n.as_deref())?,
                e: decode_integer(jwk.e.as_deref())?,
            },
            Algorithm::ES256 => PublicKey::P256 {
                x: decode_coordinate(jwk.x.as_deref())?,
                y: decode_coordinate(jwk.y.as_deref())?,
            },
            Algorithm::EdDSA => PublicKey::Ed25519 {
                x: decode_coordinate(jwk.x.as_deref())?,
            },
        };
        Key::asymmetric(jwk.kid, algorithm, None, public).map(Some)
    }
}

impl JwkMembers {
    /// Whether the declared use allows verifying signatures.
    fn can_verify(&self) -> bool {
        let operations = self.key_ops.as_ref();
        self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && operations.is_none_or(|all| all.iter().any(|one| one == "verify"))
    }

    /// Returns the algorithm of the key type; `None` if `alg` differs.
    fn algorithm(&self) -> Option<Algorithm> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => Algorithm::HS256,
            ("RSA", _) => Algorithm::RS256,
            ("EC", Some("P-256")) => Algorithm::ES256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDSA,
            _ => return None,
        };
        let agrees = self
            .alg
            .as_deref()
            .is_none_or(|alg| Algorithm::parse(alg) == Some(algorithm));
        agrees.then_some(algorithm)
    }
}

fn decode_base64url(member: Option<&str>) -> Result<Vec<u8>, KeyError> {
    let text = member.ok_or(KeyError::BadJwk("a member of this key type is missing"))?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| KeyError::BadJwk("a member is not base64url"))
}

/// Decodes a big-endian integer, without the leading zeros that some issuers write.
fn decode_integer(member: Option<&str>) -> Result<Vec<u8>, KeyError> {
    let bytes = decode_base64url(member)?;
    Ok(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
}

fn decode_coordinate(member: Option<&str>) -> Result<Vec<u8>, KeyError> {
    let bytes = decode_base64url(member)?;
    if bytes.len() != 32 {
        return Err(KeyError::BadJwk("a coordinate does not have 32 bytes"));
    }
    Ok(bytes)
}

impl PublicKey {
    pub(super) fn decoding_key(&self) -> DecodingKey {
        match self {
            PublicKey::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            PublicKey::P256 { x, y } => {
                // What the library calls DER is the uncompressed point.
                DecodingKey::from_ec_der(&[&[4], x.as_slice(), y].concat())
            }
            PublicKey::Ed25519 { x } => DecodingKey::from_ed_der(x),
        }
    }

    /// Returns the members that RFC 7638 hashes: key type and public numbers, sorted by name.
    pub(super) fn members(&self) -> serde_json::Map<String, serde_json::Value> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let members = match self {
            PublicKey::Rsa { n, e } => vec![("e", text(e)), ("kty", "RSA".into()), ("n", text(n))],
            PublicKey::P256 { x, y } => vec![
                ("crv", "P-256".into()),
                ("kty", "EC".into()),
                ("x", text(x)),
                ("y", text(y)),
            ],
            PublicKey::Ed25519 { x } => vec![
                ("crv", "Ed25519".into()),
                ("kty", "OKP".into()),
                ("x", text(x)),
            ],
        };
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
    }

    /// Returns the SHA-256 thumbprint (RFC 7638) in base64url.
    pub(super) fn thumbprint(&self) -> String {
        let members = serde_json::Value::from(self.members()).to_string();
        URL_SAFE_NO_PAD.encode(Sha256::digest(members))
    }
}
