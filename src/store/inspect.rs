//! Check of the store's servers against the settings.

use std::fmt;

use super::redis;
use crate::settings;

/// Result of one check of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCheck {
    /// The server, or the group of servers.
    pub server: String,
    pub severity: Severity,
    /// One sentence, without secrets.
    pub message: String,
}

/// Severity of a check's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Ok,
    /// The store works, but the operator should review the setting.
    Warning,
    Error,
}

impl fmt::Display for ServerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.message)
    }
}

/// Connects to every server that the settings name or lead to, and checks it without writing.
///
/// Checks the version, the role, the user's permissions, the eviction policy and the clock.
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
