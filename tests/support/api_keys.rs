//! API keys as an operator manages them who has the configuration file: by the database and the store that
//! the gateways use.

use std::sync::Arc;
use std::time::Duration;

use portcullis::auth::api_key::{ApiKey, ApiKeyId, ApiKeyOwner};
use portcullis::database::Database;
use portcullis::sessions::Sessions;
use portcullis::sessions::api_keys::{ApiKeyCreation, ApiKeyRotation, NewApiKey};
use portcullis::settings;
use portcullis::store::Store;
use portcullis::telemetry::metrics::Metrics;
use tokio::runtime::Runtime;

use super::config::Config;

/// The operator of the gateways with a configuration.
pub struct KeyOperator {
    runtime: Runtime,
    sessions: Sessions,
    rules: settings::ApiKeys,
}

/// A key as it was shown once.
#[derive(Clone)]
pub struct ShownKey {
    pub key: String,
    pub id: ApiKeyId,
}

impl KeyOperator {
    /// The gateways have to have been started: they create the database.
    pub fn of(config: &Config) -> KeyOperator {
        let file = serde_json::to_string(&config.file).unwrap();
        let settings = portcullis::config::parse(&file, "portcullis.yaml".as_ref());
        let settings = settings.ok().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let sessions = runtime.block_on(async {
            let boot = &settings.boot;
            let database = Database::open(&boot.database).await.unwrap();
            let store = Store::open(&boot.store, Arc::clone(&metrics)).connect();
            store.wait_until_up(Duration::from_secs(5)).await;
            Sessions::new(store, &boot.store, database, metrics, false)
        });
        KeyOperator {
            runtime,
            sessions,
            rules: settings.reloadable.api_keys.unwrap(),
        }
    }

    /// Creates a key of a user's ID or of `service:NAME`.
    pub fn create(&self, owner: &str, vary: impl FnOnce(&mut NewApiKey)) -> ShownKey {
        let mut new = NewApiKey {
            owner: ApiKeyOwner::parse(owner).unwrap(),
            name: "test".to_owned(),
            roles: Vec::new(),
            scopes: Vec::new(),
            allowed_ips: Vec::new(),
            expires_at: None,
        };
        vary(&mut new);
        let created = self.sessions.api_keys().create(new, &self.rules, None);
        match self.runtime.block_on(created).unwrap() {
            ApiKeyCreation::Created(secret, key) => ShownKey {
                key: secret.expose().to_owned(),
                id: key.id,
            },
            other => panic!("{other:?}"),
        }
    }

    /// Gives a key another secret.
    pub fn rotate(&self, key: &ShownKey, grace: Duration) -> ShownKey {
        let keys = self.sessions.api_keys();
        let rotated = keys.rotate(key.id, grace, &self.rules, None);
        match self.runtime.block_on(rotated).unwrap() {
            ApiKeyRotation::Rotated(secret, key) => ShownKey {
                key: secret.expose().to_owned(),
                id: key.id,
            },
            other => panic!("{other:?}"),
        }
    }

    /// Revokes a key; returns whether that is in force.
    pub fn revoke(&self, key: &ShownKey) -> bool {
        let revoked = self.sessions.api_keys().revoke(key.id, None);
        self.runtime.block_on(revoked).is_ok()
    }

    pub fn get(&self, key: &ShownKey) -> ApiKey {
        let found = self.sessions.api_keys().get(key.id);
        self.runtime.block_on(found).unwrap().unwrap()
    }
}

/// A key with the right checksum, from all that comes before it.
pub fn with_checksum(body: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = crc32fast::hash(body.as_bytes());
    let mut checksum = String::new();
    for _ in 0..6 {
        checksum.insert(0, char::from(DIGITS[(number % 62) as usize]));
        number /= 62;
    }
    format!("{body}{checksum}")
}

/// The same key with another secret.
pub fn with_another_secret(key: &str) -> String {
    let (start, _) = key.split_at("pck_0123456789abcdef_".len());
    with_checksum(&format!("{start}{}", "7".repeat(43)))
}
