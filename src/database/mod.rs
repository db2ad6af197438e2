//! The people and their durable sessions, in a database. The only room that names the SQL client.
//! Every statement is one text with `$1` placeholders and types that SQLite and PostgreSQL both know.

mod addresses;
mod avatars;
mod devices;
mod migrations;
mod password_hashes;
mod postgres;
mod postgres_pool;
mod revocations;
mod session_maintenance;
mod sessions;
mod sql;
mod sqlite;
mod users;

use std::path::PathBuf;
use std::time::Duration;

pub use avatars::{Avatar, AvatarInfo};
pub use devices::DeviceSighting;
pub use revocations::{LoggedRevocation, RevocationSubject, StoreMarker};
pub use sessions::{DurableRefreshTokens, DurableSession, SessionQuota};
use sql::SqlPool;
pub use users::{NewUser, User, UserPage, UserUpdate, UserUpdateOutcome};

use crate::settings;

/// How long `/ready` waits for a sign of life.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A handle on the database; clones share it.
#[derive(Debug, Clone)]
pub struct Database {
    pool: SqlPool,
}

/// Why the directory gave no answer. No error holds the password.
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
        "the database {database} was brought to version {version} by a newer release; \
         this one knows version {known} at most"
    )]
    SchemaTooNew {
        database: String,
        version: i64,
        known: i64,
    },
    #[error("the database {database} cannot be brought up to date")]
    Migrate {
        database: String,
        source: sqlx::migrate::MigrateError,
    },
    #[error("the database did not do it")]
    Failed(#[from] sqlx::Error),
    #[error("too many changed the same session at once")]
    Contended,
    #[error("user {0} is not readable in the database")]
    UnreadableUser(String),
    #[error("session {0} is not readable in the database")]
    UnreadableSession(String),
}

impl Database {
    /// Opens the database and brings its tables up to date. A SQLite file is created (mode 0600) as
    /// needed; a PostgreSQL database must be there.
    ///
    /// # Errors
    /// The folder or the server must be there, and the database ours to write; one that a newer
    /// release has changed is not used.
    pub async fn open(settings: &settings::DatabaseSettings) -> Result<Database, Error> {
        let database = match settings {
            settings::DatabaseSettings::Sqlite(path) => sqlite::open(path).await?,
            settings::DatabaseSettings::Postgres(address) => postgres::open(address).await?,
        };
        migrations::run(&database, &settings.to_string()).await?;
        Ok(Database { pool: database })
    }

    /// Tries whether the database can be used. Nothing is made or brought up to date: a SQLite file
    /// may be missing, if it can be made.
    ///
    /// # Errors
    /// As [`Database::open`], but for the tables.
    pub async fn check(settings: &settings::DatabaseSettings) -> Result<(), Error> {
        let database = match settings {
            settings::DatabaseSettings::Sqlite(path) if !path.exists() => {
                return sqlite::check_folder(path);
            }
            settings::DatabaseSettings::Sqlite(path) => sqlite::open(path).await?,
            settings::DatabaseSettings::Postgres(address) => postgres::open(address).await?,
        };
        let directory = Database { pool: database };
        directory.probe().await?;
        directory.close().await;
        Ok(())
    }

    /// The version that the tables have now.
    pub fn schema_version() -> i64 {
        migrations::newest()
    }

    /// Asks the database something trivial, for `/ready`.
    ///
    /// # Errors
    /// When it does not answer within a second.
    pub async fn probe(&self) -> Result<(), Error> {
        let answer = self.pool.read(self.pool.sql("SELECT 1"));
        match tokio::time::timeout(PROBE_TIMEOUT, answer).await {
            Ok(answer) => Ok(answer.map(drop)?),
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }

    /// Finishes what is under way and closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
