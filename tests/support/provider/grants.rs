//! What the provider remembers: pushed requests, codes, tokens, and who they are for.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A user of the provider.
#[derive(Debug, Clone)]
pub struct User {
    pub sub: String,
    /// In the ID token and from userinfo.
    pub claims: Value,
    /// From userinfo alone.
    pub userinfo: Value,
}

impl User {
    /// A user with a name and a verified email.
    pub fn new(sub: &str) -> User {
        User {
            sub: sub.to_owned(),
            claims: json!({
                "email": format!("{sub}@example.com"), "email_verified": true, "name": sub,
            }),
            userinfo: json!({}),
        }
    }

    /// Sets a claim; null removes it.
    pub fn claim(mut self, name: &str, value: Value) -> User {
        let claims = self.claims.as_object_mut().unwrap();
        match value {
            Value::Null => drop(claims.remove(name)),
            value => drop(claims.insert(name.to_owned(), value)),
        }
        self
    }

    /// Sets a claim that only userinfo has.
    pub fn userinfo_claim(mut self, name: &str, value: Value) -> User {
        self.userinfo[name] = value;
        self
    }
}

/// One authorization.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) user: User,
    pub(super) request: HashMap<String, String>,
    pub(super) sid: Option<String>,
    pub(super) authenticated_at: i64,
}

impl Grant {
    pub(super) fn requested(&self, name: &str) -> Option<&str> {
        self.request.get(name).map(String::as_str)
    }

    /// Whether the verifier is the one of the request.
    pub(super) fn is_verified_by(&self, verifier: &str) -> bool {
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        self.requested("code_challenge") == Some(&hash)
    }
}

#[derive(Default)]
pub(super) struct Grants {
    /// Pushed requests by `request_uri`.
    pub(super) pushed: HashMap<String, HashMap<String, String>>,
    pub(super) codes: HashMap<String, Grant>,
    pub(super) access_tokens: HashMap<String, Grant>,
    pub(super) refresh_tokens: HashMap<String, Grant>,
    /// Of client assertions.
    pub(super) used_ids: HashSet<String>,
    /// Everything that must be in no log, store or row of the gateway.
    pub(super) secrets: Vec<String>,
}

impl Grants {
    /// A secret of 256 random bits.
    pub(super) fn secret(&mut self) -> String {
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        self.secrets.push(secret.clone());
        secret
    }
}
