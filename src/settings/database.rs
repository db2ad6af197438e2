//! Where the database is.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseSettings {
    Sqlite(PathBuf),
    Postgres(PostgresAddress),
}

/// Says where it is, without the password.
impl std::fmt::Display for DatabaseSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DatabaseSettings::Sqlite(path) => write!(f, "{}", path.display()),
            DatabaseSettings::Postgres(address) => write!(f, "{address}"),
        }
    }
}

/// Where a PostgreSQL database is and who we are there.
#[derive(Debug, Clone)]
pub struct PostgresAddress {
    pub host: String,
    pub port: u16,
    /// The folder of the server's socket, in the place of host and port.
    pub socket: Option<PathBuf>,
    pub database: String,
    pub username: String,
    pub password: Option<SecretString>,
    pub tls: PostgresTls,
    /// PEM, the authorities to trust. `None`: those that browsers trust.
    pub ca: Option<Vec<u8>>,
    /// How many connections this gateway opens at most.
    pub connections: u32,
}

/// `sslmode`, as PostgreSQL's own clients understand it.
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
