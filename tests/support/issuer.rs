//! A trusted issuer, whose tokens have no session.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use super::config::Config;
use super::tokens;

pub struct Issuer {
    key: EncodingKey,
    keys: String,
}

impl Issuer {
    pub fn new() -> Issuer {
        let (key, jwk) = tokens::es256("first");
        let keys = json!({ "keys": [jwk] }).to_string();
        Issuer { key, keys }
    }

    pub fn trusted_in(&self, config: Config) -> Config {
        let file = config.write_beside("keys.json", &self.keys);
        let issuer = json!({ "issuer": "https://id.example", "audience": "shop",
            "jwks_file": file, "algorithms": ["ES256"] });
        config.set("/tokens/trusted_issuers", json!([issuer]))
    }

    /// A token that was issued a minute ago; `id` tells those of one person apart.
    pub fn bearer(&self, user: &str, id: &str) -> String {
        self.bearer_issued_at(user, id, -60)
    }

    /// The same, issued this many seconds from now.
    pub fn bearer_issued_at(&self, user: &str, id: &str, from_now: i64) -> String {
        let claims = json!({ "iss": "https://id.example", "aud": "shop", "sub": user, "jti": id,
            "iat": tokens::now() + from_now, "exp": tokens::now() + 600 });
        let header = r#"{"alg":"ES256","kid":"first"}"#;
        let token = tokens::sign_with_key(header, &claims.to_string(), &self.key, Algorithm::ES256);
        format!("Bearer {token}")
    }
}
