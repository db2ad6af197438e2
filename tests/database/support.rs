//! Empty databases, one of each type.

use std::net::SocketAddr;

use portcullis::database::Database;
use portcullis::settings::{DatabaseSettings, PostgresAddress, PostgresTls};
use tempfile::TempDir;

use crate::postgres::{PASSWORD, Postgres, USER};

/// An empty database, which a test can also query by SQL of its own.
pub(crate) struct TestDatabase {
    pub(crate) settings: DatabaseSettings,
    /// Of SQLite.
    _folder: Option<TempDir>,
}

impl TestDatabase {
    pub(crate) fn sqlite() -> TestDatabase {
        let folder = tempfile::tempdir().unwrap();
        TestDatabase {
            settings: DatabaseSettings::Sqlite(folder.path().join("people.db")),
            _folder: Some(folder),
        }
    }

    pub(crate) fn postgres() -> TestDatabase {
        let server = Postgres::server();
        TestDatabase {
            settings: DatabaseSettings::Postgres(address(server.address, &server.database())),
            _folder: None,
        }
    }

    pub(crate) async fn open(&self) -> Database {
        Database::open(&self.settings).await.unwrap()
    }

    /// Runs SQL on a connection of its own.
    pub(crate) async fn sql(&self, text: &'static str) {
        match &self.settings {
            DatabaseSettings::Sqlite(path) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
                sqlx::query(text).execute(&pool).await.unwrap();
                pool.close().await;
            }
            DatabaseSettings::Postgres(address) => {
                Postgres::server().sql(&address.database, text).unwrap();
            }
        }
    }
}

pub(crate) fn address(server: SocketAddr, database: &str) -> PostgresAddress {
    PostgresAddress {
        host: server.ip().to_string(),
        port: server.port(),
        socket: None,
        database: database.to_owned(),
        username: USER.to_owned(),
        password: Some(PASSWORD.to_owned().into()),
        tls: PostgresTls::Disable,
        ca: None,
        connections: 5,
    }
}

/// An empty database of each kind.
pub(crate) fn databases() -> [TestDatabase; 2] {
    [TestDatabase::sqlite(), TestDatabase::postgres()]
}
