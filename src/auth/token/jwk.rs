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
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    Ec {
        curve: Curve,
        x: Vec<u8>,
        y: Vec<u8>,
    },
    Ed25519 {
        x: Vec<u8>,
    },
}

/// Curve of an ECDSA key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// The only curve of an ECDSA algorithm (RFC 7518, section 3.4).
    pub(super) fn of(algorithm: Algorithm) -> Option<Curve> {
        match algorithm {
            Algorithm::ES256 => Some(Curve::P256),
            Algorithm::ES384 => Some(Curve::P384),
            Algorithm::HS256 | Algorithm::RS256 | Algorithm::PS256 | Algorithm::EdDSA => None,
        }
    }

    /// The `crv` of a JWK.
    fn as_str(self) -> &'static str {
        match self {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
        }
    }

    /// The size of `x` and `y`, in bytes.
    pub(super) fn coordinate_size(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }
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
        let reason = match parse_jwk(jwk, algorithms) {
            Ok(parsed) => {
                keys.extend(parsed);
                continue;
            }
            Err(reason @ (KeyError::AlgorithmNotAllowed(_) | KeyError::Unsupported)) => reason,
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

/// Parses one JWK for those of its algorithms that are allowed; none if it is for another use.
///
/// The key type may have several algorithms where `alg` does not select one. Each makes a key of
/// its own. Private members are ignored, so the keys only verify.
pub(super) fn parse_jwk(
    jwk: &serde_json::Value,
    allowed: &[Algorithm],
) -> Result<Vec<Key>, KeyError> {
    let jwk = JwkMembers::deserialize(jwk)
        .map_err(|_| KeyError::BadJwk("a member is missing or of the wrong type"))?;
    if !jwk.can_verify() {
        return Ok(Vec::new());
    }
    let algorithms = jwk.algorithms();
    let first = *algorithms.first().ok_or(KeyError::Unsupported)?;
    let is_allowed = |algorithm: &Algorithm| allowed.contains(algorithm);
    let algorithms: Vec<_> = algorithms.into_iter().filter(is_allowed).collect();
    if algorithms.is_empty() {
        return Err(KeyError::AlgorithmNotAllowed(first));
    }
    let keys = algorithms.into_iter().map(|algorithm| jwk.key(algorithm));
    keys.collect()
}

impl JwkMembers {
    fn key(&self, algorithm: Algorithm) -> Result<Key, KeyError> {
        let id = self.kid.clone();
        let public = match algorithm {
            Algorithm::HS256 => return Key::hmac(id, &decode_base64url(self.k.as_deref())?),
            Algorithm::RS256 | Algorithm::PS256 => PublicKey::Rsa {
                n: decode_integer(self.n.as_deref())?,
                e: decode_integer(self.e.as_deref())?,
            },
            Algorithm::ES256 => self.point(Curve::P256)?,
            Algorithm::ES384 => self.point(Curve::P384)?,
            Algorithm::EdDSA => PublicKey::Ed25519 {
                x: decode_coordinate(self.x.as_deref(), 32)?,
            },
        };
        Key::asymmetric(id, algorithm, None, public)
    }

    fn point(&self, curve: Curve) -> Result<PublicKey, KeyError> {
        let size = curve.coordinate_size();
        Ok(PublicKey::Ec {
            curve,
            x: decode_coordinate(self.x.as_deref(), size)?,
            y: decode_coordinate(self.y.as_deref(), size)?,
        })
    }

    /// Whether the declared use allows verifying signatures.
    fn can_verify(&self) -> bool {
        let operations = self.key_ops.as_ref();
        self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && operations.is_none_or(|all| all.iter().any(|one| one == "verify"))
    }

    /// Returns the algorithms of the key type, of which `alg` selects one if it is present.
    fn algorithms(&self) -> Vec<Algorithm> {
        let of_type: &[Algorithm] = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => &[Algorithm::HS256],
            ("RSA", _) => &[Algorithm::RS256, Algorithm::PS256],
            ("EC", Some("P-256")) => &[Algorithm::ES256],
            ("EC", Some("P-384")) => &[Algorithm::ES384],
            ("OKP", Some("Ed25519")) => &[Algorithm::EdDSA],
            _ => &[],
        };
        let is_selected = |algorithm: &&Algorithm| {
            let alg = self.alg.as_deref();
            alg.is_none_or(|alg| Algorithm::parse(alg) == Some(**algorithm))
        };
        of_type.iter().filter(is_selected).copied().collect()
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

fn decode_coordinate(member: Option<&str>, size: usize) -> Result<Vec<u8>, KeyError> {
    let bytes = decode_base64url(member)?;
    if bytes.len() != size {
        return Err(KeyError::BadJwk(
            "a coordinate has not the size of its curve",
        ));
    }
    Ok(bytes)
}

impl PublicKey {
    pub(super) fn decoding_key(&self) -> DecodingKey {
        match self {
            PublicKey::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            PublicKey::Ec { x, y, .. } => {
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
            PublicKey::Ec { curve, x, y } => vec![
                ("crv", curve.as_str().into()),
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
