//! The people, in a database. The only room that names the SQL client. Every statement is one text
//! with `$1` placeholders and types that SQLite and PostgreSQL both know.

mod addresses;
mod users;
#[cfg(test)]
mod users_tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::settings;

pub use users::{Change, NewUser, Roster, User};

/// How long a statement waits for another process' write before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a statement waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;
/// Two processes that open one new file at once run the same migration; the slower one tries again.
const ATTEMPTS: u32 = 5;

/// A handle on the database of users; clones share it.
#[derive(Debug, Clone)]
pub struct Directory {
    readers: SqlitePool,
    /// SQLite has one writer at a time: waiting for it here is fair, in the library it is not.
    writer: SqlitePool,
}

/// Why the directory gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the folder of the database, {0}, does not exist")]
    NoFolder(PathBuf),
    #[error("the database file {path} cannot be created")]
    Create {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the database file {path} cannot be opened")]
    Open { path: PathBuf, source: sqlx::Error },
    #[error("the database {path} cannot be brought up to date")]
    Migrate {
        path: PathBuf,
        source: sqlx::migrate::MigrateError,
    },
    #[error("the database did not do it")]
    Failed(#[from] sqlx::Error),
    #[error("user {0} is not readable in the database")]
    Damaged(String),
}

impl Directory {
    /// Opens the database, creating the file (mode 0600) and its tables as needed.
    ///
    /// # Errors
    /// The folder must exist; the file must be a database that is ours to write.
    pub async fn open(database: &settings::Database) -> Result<Directory, Error> {
        let settings::Database::Sqlite(path) = database;
        create_private(path)?;
        let writer = connect(1, options(path), path).await?;
        migrate(&writer, path).await?;
        let readers = options(path).pragma("query_only", "on");
        let readers = connect(READERS, readers, path).await?;
        Ok(Directory { readers, writer })
    }

    /// Asks the database something trivial, for `/ready`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn probe(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// Finishes what is under way and closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
}

/// Connects, also while another process switches the same new file to write-ahead logging: for that
/// moment SQLite answers "locked" whatever the busy timeout.
async fn connect(
    connections: u32,
    options: SqliteConnectOptions,
    path: &Path,
) -> Result<SqlitePool, Error> {
    let mut attempt = 1;
    loop {
        match pool(connections).connect_with(options.clone()).await {
            Ok(pool) => return Ok(pool),
            Err(error) if is_locked(&error) && attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                attempt += 1;
            }
            Err(source) => {
                return Err(Error::Open {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}

/// `SQLITE_BUSY` and its kinds, whose low byte it is.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| code & 0xff == 5)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // A user who was told "created" is there after a power cut too.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Creates the file so that nobody else can read it. SQLite gives its side files the same mode.
fn create_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::NoFolder(folder.to_owned()));
    }
    let created = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match created {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(Error::Create {
            path: path.to_owned(),
            source,
        }),
    }
}

async fn migrate(writer: &SqlitePool, path: &Path) -> Result<(), Error> {
    let migrator = Migrator::with_migrations(vec![Migration::new(
        1,
        "users".into(),
        MigrationType::Simple,
        include_str!("migrations/0001_users.sql").into_sql_str(),
        false,
    )]);
    let mut attempt = 1;
    loop {
        match migrator.run(writer).await {
            Ok(()) => return Ok(()),
            Err(_) if attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                attempt += 1;
            }
            Err(source) => {
                return Err(Error::Migrate {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_new_file_is_private_and_opens_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("people.db");
        let database = settings::Database::Sqlite(path.clone());
        let first = Directory::open(&database).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        first.close().await;
        Directory::open(&database)
            .await
            .unwrap()
            .probe()
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn processes_that_open_one_new_file_at_once_all_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = settings::Database::Sqlite(folder.path().join("people.db"));
        let opened = futures_util::future::join_all((0..4).map(|_| Directory::open(&database)));
        for directory in opened.await {
            directory.unwrap().probe().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_missing_folder_and_a_file_of_another_kind_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("nowhere");
        let database = settings::Database::Sqlite(missing.join("people.db"));
        let error = Directory::open(&database).await.unwrap_err();
        assert!(matches!(error, Error::NoFolder(named) if named == missing));

        let other = folder.path().join("other");
        std::fs::write(
            &other,
            "this is no database, and long enough to tell so".repeat(40),
        )
        .unwrap();
        let error = Directory::open(&settings::Database::Sqlite(other))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Open { .. } | Error::Migrate { .. }));
    }
}
