//! Trying what the settings say about the store, before anything depends on it.

use std::fmt;

use super::redis;
use crate::settings;

/// What was found of one server of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCheck {
    /// Which server, or which of several together.
    pub server: String,
    pub severity: Severity,
    /// One sentence; it holds no secret.
    pub message: String,
}

/// What a finding means for whoever wants to serve with these settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    Error,
}

impl fmt::Display for ServerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.message)
    }
}

/// Connects to every server that the settings lead to and looks whether it is fit to be the store: its
/// version, its role, what the user may do, whether it would evict what must not be forgotten, its
/// clock. Nothing is written.
pub async fn inspect(settings: &settings::Store) -> Vec<ServerCheck> {
    match &settings.engine {
        settings::Engine::Memory => vec![ServerCheck {
            server: "memory".to_owned(),
            severity: Severity::Ok,
            message: "in this process".to_owned(),
        }],
        settings::Engine::Redis(address) => {
            redis::links::inspect::inspect_servers(redis::links::inspect::ServerRequirements {
                address,
                prefix: &settings.key_prefix,
                replicas: settings.revocation_replicas,
            })
            .await
        }
    }
}
