//! A configuration to vary. It is written as JSON, which is YAML.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::clock::{Clock, Environment};
use super::{ports, postgres};

pub const SECRET: &str = "an-hmac-secret-for-tests-only-0123456789";
pub const ADMIN_TOKEN: &str = "an-admin-token-for-tests-only";

/// Longer than the default, so that a busy machine does not turn a response into a 503. Tests of what a
/// timeout leads to set a shorter one.
const STORE_TIMEOUT: &str = "2s";

/// The file of one gateway, in a folder of its own.
pub struct Config {
    pub file: Value,
    pub environment: Environment,
    folder: TempDir,
}

impl Config {
    /// A listener, memory store, SQLite, open registration, and three routes to one upstream:
    /// `/private` (required), `/optional` and `/public` (none).
    pub fn new(upstream: SocketAddr) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = json!({
            "listeners": [{ "bind": ports::free().to_string() }],
            "admin": { "bind": ports::free().to_string(), "token": ADMIN_TOKEN },
            "store": { "url": "memory", "timeout": STORE_TIMEOUT },
            "database": { "url": format!("sqlite:{}", folder.path().join("people.db").display()) },
            "tokens": { "signing": { "algorithm": "HS256", "secret": SECRET } },
            "sessions": { "cookie": { "secure": false } },
            "identity": { "builtin": { "registration": "open" } },
            "limits": {},
            "upstreams": { "echo": { "servers": [format!("http://{upstream}")] } },
            "routes": [
                { "name": "private", "match": { "prefix": "/private" }, "auth": "required", "upstream": "echo" },
                { "name": "optional", "match": { "prefix": "/optional" }, "auth": "optional", "upstream": "echo" },
                { "name": "public", "match": { "prefix": "/public" }, "auth": "none", "upstream": "echo" },
            ],
        });
        Config {
            file,
            environment: Environment::new(),
            folder,
        }
    }

    /// Sets what a JSON pointer names, making the objects on the way.
    pub fn set(mut self, pointer: &str, value: Value) -> Config {
        self.put(pointer, value);
        self
    }

    /// As [`Config::set`], in place.
    pub fn put(&mut self, pointer: &str, value: Value) {
        let mut at = &mut self.file;
        for part in pointer.split('/').skip(1) {
            at = match part.parse::<usize>() {
                Ok(index) if at.is_array() => &mut at[index],
                _ => {
                    if at.is_null() {
                        *at = json!({});
                    }
                    &mut at[part]
                }
            };
        }
        *at = value;
    }

    /// Adds a listener after the others of the file.
    pub fn add_listener(&mut self, listener: Value) {
        self.file["listeners"]
            .as_array_mut()
            .unwrap()
            .push(listener);
    }

    /// Adds a route before the others of the file.
    pub fn route(mut self, route: Value) -> Config {
        self.file["routes"].as_array_mut().unwrap().insert(0, route);
        self
    }

    /// Adds a limit and binds the base routes to it as well as to those they have.
    pub fn limit(mut self, name: &str, limit: Value) -> Config {
        self.file["limits"][name] = limit;
        for route in self.file["routes"].as_array_mut().unwrap() {
            match route["limits"].as_array_mut() {
                Some(limits) => limits.push(json!(name)),
                None => route["limits"] = json!([name]),
            }
        }
        self
    }

    pub fn store(self, url: &str) -> Config {
        self.set("/store/url", json!(url))
    }

    /// Goes by another clock than the machine's.
    pub fn clock(mut self, clock: &Clock) -> Config {
        self.environment = clock.environment();
        self
    }

    /// Users in a PostgreSQL database, at the server's address or that of something before it.
    pub fn postgres(self, server: SocketAddr, database: &str) -> Config {
        let url = format!("postgres://{}@{server}/{database}", postgres::USER);
        self.set("/database/url", json!(url))
            .set("/database/password", json!(postgres::PASSWORD))
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file beside the configuration.
    pub fn write_beside(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// Writes the configuration and says where it is.
    pub fn write(&self) -> PathBuf {
        self.write_beside(
            "portcullis.yaml",
            serde_json::to_string_pretty(&self.file).unwrap(),
        )
    }

    pub fn listener(&self, index: usize) -> SocketAddr {
        self.file["listeners"][index]["bind"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    pub fn admin(&self) -> SocketAddr {
        self.file["admin"]["bind"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }
}
