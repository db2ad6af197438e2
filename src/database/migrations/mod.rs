//! Schema migrations.
//!
//! On PostgreSQL, an advisory lock serializes concurrent migrations; on SQLite, they are retried. The
//! files must not be edited, not even their comments: databases record their checksums.

use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use super::Error;
use super::sql::SqlPool;
use super::sqlite::MAX_ATTEMPTS;

fn migrations() -> Vec<Migration> {
    let texts = [
        (1, "users", include_str!("0001_users.sql")),
        (3, "user_sessions", include_str!("0003_user_sessions.sql")),
        (2, "avatars", include_str!("0002_avatars.sql")),
        (4, "revocations", include_str!("0004_revocations.sql")),
        (
            5,
            "provider_sign_ins",
            include_str!("0005_provider_sign_ins.sql"),
        ),
        (
            6,
            "user_identities",
            include_str!("0006_user_identities.sql"),
        ),
        (7, "acme", include_str!("0007_acme.sql")),
        (8, "api_keys", include_str!("0008_api_keys.sql")),
    ];
    texts
        .into_iter()
        .map(|(version, name, text)| {
            let text = text.into_sql_str();
            Migration::new(version, name.into(), MigrationType::Simple, text, false)
        })
        .collect()
}

/// The newest version of this release.
pub(super) fn newest() -> i64 {
    migrations()
        .iter()
        .map(|m| m.version)
        .max()
        .unwrap_or_default()
}

/// Migrates the tables; `name` is the database's name in errors.
pub(super) async fn run(database: &SqlPool, name: &str) -> Result<(), Error> {
    let migrator = Migrator::with_migrations(migrations());
    let mut attempt = 1;
    loop {
        let outcome = match database {
            SqlPool::Sqlite { writer, .. } => migrator.run(writer).await,
            SqlPool::Postgres(pool) => migrator.run(pool.inner()).await,
        };
        match outcome {
            Ok(()) => return Ok(()),
            Err(MigrateError::VersionMissing(version)) if version > newest() => {
                return Err(Error::SchemaTooNew {
                    database: name.to_owned(),
                    version,
                    newest: newest(),
                });
            }
            Err(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))
                if matches!(database, SqlPool::Sqlite { .. }) && attempt < MAX_ATTEMPTS =>
            {
                tokio::time::sleep(Duration::from_millis(50) * attempt).await;
                attempt += 1;
            }
            Err(source) => {
                return Err(Error::Migrate {
                    database: name.to_owned(),
                    source,
                });
            }
        }
    }
}
