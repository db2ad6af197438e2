//! Address of the database.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseSettings {
    Sqlite(PathBuf),
    Postgres(PostgresAddress),
}

/// Formats the address without the password.
impl std::fmt::Display for DatabaseSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DatabaseSettings::Sqlite(path) => write!(f, "{}", path.display()),
            DatabaseSettings::Postgres(address) => write!(f, "{address}"),
        }
    }
}

/// Address, user and connection settings of a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresAddress {
    pub host: String,
    pub port: u16,
    /// Directory of the server's unix socket, which replaces host and port.
    pub socket: Option<PathBuf>,
    pub database: String,
    pub username: String,
    pub password: Option<SecretString>,
    pub tls: PostgresTls,
    /// Trusted CA certificates in PEM; `None` for the public ones.
    pub ca: Option<Vec<u8>>,
    /// Maximum number of connections that this gateway opens.
    pub connections: u32,
}

/// `sslmode`, with the meaning that it has for PostgreSQL's own clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresTls {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl std::fmt::Display for PostgresAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (username, database) = (&self.username, &self.database);
        match &self.socket {
            Some(socket) => write!(
                f,
                "postgres://{username}@/{database} at {}",
                socket.display()
            ),
            None => write!(
                f,
                "postgres://{username}@{}:{}/{database}",
                self.host, self.port
            ),
        }
    }
}

impl PartialEq for PostgresAddress {
    fn eq(&self, other: &PostgresAddress) -> bool {
        let rest = |address: &PostgresAddress| {
            (
                address.to_string(),
                address.tls,
                address.ca.clone(),
                address.connections,
            )
        };
        rest(self) == rest(other)
            && self.password.as_ref().map(ExposeSecret::expose_secret)
                == other.password.as_ref().map(ExposeSecret::expose_secret)
    }
}

impl Eq for PostgresAddress {}
