//! Signing keys of every algorithm, and tokens that may be anything but right.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key pair with its ID and its algorithm: RS256, PS256, ES256, ES384, EdDSA.
pub struct SigningKey {
    pub id: String,
    pub algorithm: String,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    pub fn generate(algorithm: &str, id: &str) -> Arc<SigningKey> {
        let ecdsa = |algorithm| Pair::Ecdsa(EcdsaKeyPair::generate(algorithm).unwrap());
        let pair = match algorithm {
            "RS256" | "PS256" => Pair::Rsa(rsa::KeyPair::generate(KeySize::Rsa2048).unwrap()),
            "ES256" => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            "EdDSA" => Pair::Ed25519(Ed25519KeyPair::generate().unwrap()),
            other => panic!("no key signs with {other}"),
        };
        Arc::new(SigningKey {
            id: id.to_owned(),
            algorithm: algorithm.to_owned(),
            pair,
        })
    }

    /// Its public half.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let (modulus, exponent) = rsa_numbers(pair.public_key().as_ref());
                json!({ "kty": "RSA", "n": text(modulus), "e": text(exponent) })
            }
            Pair::Ecdsa(pair) => {
                // An uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref();
                let half = point.len() / 2;
                let curve = if half == 32 { "P-256" } else { "P-384" };
                let (x, y) = (text(&point[1..=half]), text(&point[half + 1..]));
                json!({ "kty": "EC", "crv": curve, "x": x, "y": y })
            }
            Pair::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) })
            }
        };
        jwk["kid"] = json!(self.id);
        jwk["alg"] = json!(self.algorithm);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The bytes of the public half, which a confused verifier takes for an HMAC secret.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding: &dyn aws_lc_rs::signature::RsaEncoding = match &*self.algorithm {
                    "PS256" => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                pair.sign(padding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Pair::Ecdsa(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// Modulus and exponent of a DER `RSAPublicKey` of 2048 bits.
fn rsa_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    // A sequence, then an integer of 257 bytes whose first is 0, then one of 3 bytes.
    assert_eq!(der[4..9], [2, 0x82, 1, 1, 0]);
    (&der[9..265], &der[267..])
}

/// A token to be signed. What a test changes of it is signed as it is.
pub struct Jwt {
    pub header: Value,
    pub claims: Value,
    /// Replaces the header's text: for duplicate members.
    pub header_text: Option<String>,
    /// Replaces the text of the claims: for duplicate members.
    pub claims_text: Option<String>,
    pub signature: Signature,
    /// Respells the finished token.
    pub respell: Option<fn(String) -> String>,
}

/// How a token is signed.
pub enum Signature {
    Key(Arc<SigningKey>),
    /// HMAC-SHA256.
    Secret(Vec<u8>),
    /// These bytes.
    Bytes(Vec<u8>),
}

impl Jwt {
    pub fn new(key: &Arc<SigningKey>, claims: Value) -> Jwt {
        Jwt {
            header: json!({ "alg": key.algorithm, "kid": key.id, "typ": "JWT" }),
            claims,
            header_text: None,
            claims_text: None,
            signature: Signature::Key(Arc::clone(key)),
            respell: None,
        }
    }

    /// Signs with another key, and says so in the header.
    pub fn sign_with(&mut self, key: &Arc<SigningKey>) {
        self.header["alg"] = json!(key.algorithm);
        self.header["kid"] = json!(key.id);
        self.signature = Signature::Key(Arc::clone(key));
    }

    /// Removes a claim.
    pub fn remove(&mut self, claim: &str) {
        self.claims.as_object_mut().unwrap().remove(claim);
    }

    /// Gives a claim a second time, before its true value.
    pub fn duplicate(&mut self, claim: &str, value: &Value) {
        let text = self.claims.to_string();
        self.claims_text = Some(format!("{{\"{claim}\":{value},{}", &text[1..]));
    }

    pub fn encode(&self) -> String {
        let text = |given: &Option<String>, value: &Value| {
            URL_SAFE_NO_PAD.encode(given.clone().unwrap_or_else(|| value.to_string()))
        };
        let header = text(&self.header_text, &self.header);
        let message = format!("{header}.{}", text(&self.claims_text, &self.claims));
        let signature = match &self.signature {
            Signature::Key(key) => key.sign(message.as_bytes()),
            Signature::Secret(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            Signature::Bytes(bytes) => bytes.clone(),
        };
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        match self.respell {
            Some(respell) => respell(token),
            None => token,
        }
    }
}
