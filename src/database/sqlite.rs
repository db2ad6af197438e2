//! SQLite database in a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::Error;
use super::sql::{DEADLINE, SqlPool};

const MAX_READERS: u32 = 4;
/// Number of attempts if processes open the same new file concurrently.
pub(super) const MAX_ATTEMPTS: u32 = 5;

/// Opens the file, and creates it (mode 0600) if needed.
pub(super) async fn open(path: &Path) -> Result<SqlPool, Error> {
    create_private(path)?;
    Ok(SqlPool::Sqlite {
        writer: connect(1, options(path), path).await?,
        readers: connect(MAX_READERS, options(path).pragma("query_only", "on"), path).await?,
    })
}

/// Connects, with retries while another process switches a new file to write-ahead logging.
///
/// During the switch, SQLite returns "locked" regardless of the busy timeout.
async fn connect(
    connections: u32,
    options: SqliteConnectOptions,
    path: &Path,
) -> Result<SqlitePool, Error> {
    let pool = || {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(DEADLINE)
    };
    let mut attempt = 1;
    loop {
        match pool().connect_with(options.clone()).await {
            Ok(pool) => return Ok(pool),
            Err(error) if is_locked(&error) && attempt < MAX_ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                attempt += 1;
            }
            Err(source) => {
                return Err(Error::Open {
                    database: path.display().to_string(),
                    source,
                });
            }
        }
    }
}

/// Whether the error is `SQLITE_BUSY` or an extended code of it, which has the same low byte.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| code & 0xff == 5)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged write must survive a power failure.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // Time for which a statement waits for another process's write.
        .busy_timeout(DEADLINE)
}

/// Creates the file readable by its owner only. SQLite gives its side files the same mode.
fn create_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    check_folder(path)?;
    let created = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match created {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(Error::Create {
            path: PathBuf::from(path),
            source,
        }),
    }
}

/// Checks that the file's folder exists.
pub(super) fn check_folder(path: &Path) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::FolderMissing(folder.to_owned()));
    }
    Ok(())
}
