//! Opening a database: new ones, concurrent opens, other releases, and unusable files.

use std::os::unix::fs::PermissionsExt;

use portcullis::database::{Database, Error};
use portcullis::settings::DatabaseSettings;

use crate::postgres::{PASSWORD, Postgres};
use crate::support::{TestDatabase, address, databases};

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn new_sqlite_file_is_private_and_reopens() {
    let fixture = TestDatabase::sqlite();
    fixture.open().await.close().await;
    let DatabaseSettings::Sqlite(path) = &fixture.settings else {
        unreachable!()
    };
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fixture.open().await.probe().await.unwrap();
}

#[tokio::test]
async fn concurrent_opens_of_a_new_database_succeed() {
    for fixture in databases() {
        let opened = (0..4).map(|_| Database::open(&fixture.settings));
        for database in futures_util::future::join_all(opened).await {
            database.unwrap().probe().await.unwrap();
        }
    }
}

#[tokio::test]
async fn database_of_a_newer_release_is_rejected() {
    for fixture in databases() {
        fixture.open().await.close().await;
        fixture.sql(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'from the future', TRUE, 'x', 1)",
        )
        .await;
        let error = Database::open(&fixture.settings).await.unwrap_err();
        assert!(
            matches!(&error, Error::SchemaTooNew { version: 9999, newest, .. } if *newest == Database::schema_version()),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn missing_folder_and_foreign_file_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere");
    let database = DatabaseSettings::Sqlite(missing.join("people.db"));
    let error = Database::open(&database).await.unwrap_err();
    assert!(matches!(error, Error::FolderMissing(named) if named == missing));

    let other = folder.path().join("other");
    std::fs::write(
        &other,
        "this is no database, and long enough to tell so".repeat(40),
    )
    .unwrap();
    let error = Database::open(&DatabaseSettings::Sqlite(other))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Open { .. } | Error::Migrate { .. }));
}

#[tokio::test]
async fn refused_connection_error_omits_the_password() {
    let server = Postgres::server();
    let mut wrong = address(server.address, "postgres");
    wrong.password = Some("canary-wrong-password".to_owned().into());
    let nowhere = address(server.address, "no_such_database");
    for refused in [wrong, nowhere] {
        let error = Database::open(&DatabaseSettings::Postgres(refused.clone()))
            .await
            .unwrap_err();
        let reported = format!("{} {error:?}", chain(&error));
        assert!(reported.contains(&refused.to_string()), "{reported}");
        assert!(
            !reported.contains("canary") && !reported.contains(PASSWORD),
            "{reported}"
        );
    }
}

#[tokio::test]
async fn server_without_tls_is_refused_if_required() {
    let server = Postgres::server();
    let mut strict = address(server.address, &server.database());
    strict.tls = portcullis::settings::PostgresTls::VerifyFull;
    let error = Database::open(&DatabaseSettings::Postgres(strict)).await;
    let reported = chain(&error.unwrap_err());
    assert!(reported.to_lowercase().contains("tls"), "{reported}");
}
