//! Users, durable sessions and the revocation log in SQLite or PostgreSQL.
//!
//! The only module that uses the SQL client. Every statement is one text for both engines, with `$1`
//! placeholders and types that both support.

mod acme;
mod addresses;
mod api_keys;
mod avatars;
mod devices;
mod identities;
mod migrations;
mod password_hashes;
mod postgres;
mod postgres_pool;
mod provider_sessions;
mod revocations;
mod session_maintenance;
mod session_rows;
mod sessions;
mod sql;
mod sqlite;
mod users;

use std::path::PathBuf;
use std::time::Duration;

pub use acme::{AcmeAccountKey, AcmeCertificate, AcmeCertificateState, AcmeLease};
pub use api_keys::{
    ApiKeyInsertion, ApiKeyPage, ApiKeyQuery, ApiKeyQuota, ApiKeyUpdate, ApiKeyUpdateOutcome,
    ApiKeyUse, StoredApiKey,
};
pub use avatars::{Avatar, AvatarInfo};
pub use devices::DeviceSighting;
pub use identities::{
    AssertedIdentity, FirstSignIn, IdentitySignIn, LinkOutcome, UnlinkOutcome, UserIdentity,
    WaysToSignIn,
};
pub use revocations::{LoggedRevocation, RevocationSubject, StoreMarker};
pub use sessions::{DurableRefreshTokens, DurableSession, SessionQuota};
use sql::SqlPool;
pub use users::{NewUser, User, UserPage, UserUpdate, UserUpdateOutcome};

use crate::settings;

/// Timeout of the probe for `/ready`.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A handle on the database; clones share it.
#[derive(Debug, Clone)]
pub struct Database {
    pool: SqlPool,
}

/// Failure of a database operation. No error contains the password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the folder of the database, {0}, does not exist")]
    FolderMissing(PathBuf),
    #[error("the database file {path} cannot be created")]
    Create {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the database {database} cannot be opened")]
    Open {
        database: String,
        source: sqlx::Error,
    },
    #[error(
        "the database {database} has schema version {version}, of a newer release; \
         this release supports versions up to {newest}"
    )]
    SchemaTooNew {
        database: String,
        version: i64,
        newest: i64,
    },
    #[error("the database {database} cannot be migrated")]
    Migrate {
        database: String,
        source: sqlx::migrate::MigrateError,
    },
    #[error("the database operation failed")]
    Failed(#[from] sqlx::Error),
    #[error("too many concurrent changes of the same session")]
    Contended,
    #[error("user {0} is not readable in the database")]
    UnreadableUser(String),
    #[error("API key {0} is not readable in the database")]
    UnreadableApiKey(String),
    #[error("session {0} is not readable in the database")]
    UnreadableSession(String),
}

impl Database {
    /// Opens the database and migrates its tables.
    ///
    /// A SQLite file is created (mode 0600) if needed; a PostgreSQL database must exist.
    ///
    /// # Errors
    /// If the folder or the server is missing, the database is not writable, or a newer release has
    /// migrated it.
    pub async fn open(settings: &settings::DatabaseSettings) -> Result<Database, Error> {
        let database = match settings {
            settings::DatabaseSettings::Sqlite(path) => sqlite::open(path).await?,
            settings::DatabaseSettings::Postgres(address) => postgres::open(address).await?,
        };
        migrations::run(&database, &settings.to_string()).await?;
        Ok(Database { pool: database })
    }

    /// Checks whether the database can be used, without creating or migrating anything.
    ///
    /// A SQLite file may be missing if its folder exists.
    ///
    /// # Errors
    /// As [`Database::open`], except for the tables.
    pub async fn check(settings: &settings::DatabaseSettings) -> Result<(), Error> {
        let database = match settings {
            settings::DatabaseSettings::Sqlite(path) if !path.exists() => {
                return sqlite::check_folder(path);
            }
            settings::DatabaseSettings::Sqlite(path) => sqlite::open(path).await?,
            settings::DatabaseSettings::Postgres(address) => postgres::open(address).await?,
        };
        let database = Database { pool: database };
        database.probe().await?;
        database.close().await;
        Ok(())
    }

    /// The schema version of this release.
    pub fn schema_version() -> i64 {
        migrations::newest()
    }

    /// Runs a trivial query, for `/ready`.
    ///
    /// # Errors
    /// If the database does not respond within a second.
    pub async fn probe(&self) -> Result<(), Error> {
        let query = self.pool.read(self.pool.sql("SELECT 1"));
        match tokio::time::timeout(PROBE_TIMEOUT, query).await {
            Ok(rows) => Ok(rows.map(drop)?),
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }

    /// Waits for running statements and closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
