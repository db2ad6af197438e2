//! API keys: calls about them, and their form.

use serde_json::{Value, json};

use super::client::{Request, Response};
use super::config::Config;
use super::gateway::{Gateway, SignedIn};

pub const KEYS: &str = "/api/v1/api-keys";
pub const ADMIN_KEYS: &str = "/admin/api-keys";

/// Keys, which users create for themselves.
pub fn self_service(config: Config) -> Config {
    config.set("/api_keys", json!({ "self_service": true }))
}

/// A call by the session of a user.
pub fn call(gateway: &Gateway, user: &SignedIn, request: Request) -> Response {
    let scheme = format!("Session {}", user.session_token);
    gateway.request(&request.header("Authorization", &scheme))
}

/// Creates a key by the session of a user.
#[track_caller]
pub fn create(gateway: &Gateway, user: &SignedIn, body: &Value) -> NewKey {
    NewKey::of(&call(gateway, user, Request::post(KEYS).json(body)), 201)
}

/// Creates a key by the admin listener.
#[track_caller]
pub fn admin_create(gateway: &Gateway, body: &Value) -> NewKey {
    NewKey::of(&gateway.admin(Request::post(ADMIN_KEYS).json(body)), 201)
}

/// A key as it is shown once.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub secret: String,
    pub id: String,
    /// As the API describes it.
    pub described: Value,
}

impl NewKey {
    /// Reads a response, whose key must have the form of one.
    #[track_caller]
    pub fn of(response: &Response, status: u16) -> NewKey {
        assert_eq!(response.status, status, "{}", response.text());
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let data = response.data();
        let secret = data["key"].as_str().unwrap().to_owned();
        let id = data["api_key"]["id"].as_str().unwrap().to_owned();
        assert!(is_key(&secret, &id), "{secret}");
        NewKey {
            secret,
            id,
            described: data["api_key"].clone(),
        }
    }

    /// Its path below this one.
    pub fn path(&self, keys: &str) -> String {
        format!("{keys}/{}", self.id)
    }
}

/// Whether a text is a key with this ID: `^pck_[0-9a-z]{16}_[0-9A-Za-z]{49}$`.
pub fn is_key(text: &str, id: &str) -> bool {
    let secret = text.strip_prefix("pck_");
    let secret = secret.and_then(|rest| rest.strip_prefix(id)?.strip_prefix('_'));
    id.len() == 16
        && id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
        && secret.is_some_and(|secret| {
            secret.len() == 49 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// The IDs of the keys of a list.
pub fn ids(list: &Value) -> Vec<&str> {
    let keys = list["api_keys"].as_array().unwrap().iter();
    keys.map(|key| key["id"].as_str().unwrap()).collect()
}
