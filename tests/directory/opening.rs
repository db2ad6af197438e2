//! Opening: new databases, several at once, those of another release, and what cannot be opened.

use std::os::unix::fs::PermissionsExt;

use portcullis::directory::{Directory, Error};
use portcullis::settings::Database;

use crate::postgres::{PASSWORD, Postgres};
use crate::support::{Home, address, homes};

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
async fn a_new_file_is_private_and_opens_again() {
    let home = Home::sqlite();
    home.open().await.close().await;
    let Database::Sqlite(path) = &home.settings else {
        unreachable!()
    };
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    home.open().await.probe().await.unwrap();
}

#[tokio::test]
async fn processes_that_open_one_new_database_at_once_all_get_it() {
    for home in homes() {
        let opened = (0..4).map(|_| Directory::open(&home.settings));
        for directory in futures_util::future::join_all(opened).await {
            directory.unwrap().probe().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused_and_told_so() {
    for home in homes() {
        home.open().await.close().await;
        home.sql(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'from the future', TRUE, 'x', 1)",
        )
        .await;
        let error = Directory::open(&home.settings).await.unwrap_err();
        assert!(
            matches!(&error, Error::Newer { version: 9999, known, .. } if *known == Directory::version()),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_missing_folder_and_a_file_of_another_kind_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere");
    let database = Database::Sqlite(missing.join("people.db"));
    let error = Directory::open(&database).await.unwrap_err();
    assert!(matches!(error, Error::NoFolder(named) if named == missing));

    let other = folder.path().join("other");
    std::fs::write(
        &other,
        "this is no database, and long enough to tell so".repeat(40),
    )
    .unwrap();
    let error = Directory::open(&Database::Sqlite(other)).await.unwrap_err();
    assert!(matches!(error, Error::Open { .. } | Error::Migrate { .. }));
}

#[tokio::test]
async fn a_server_that_refuses_is_named_and_the_password_is_not() {
    let server = Postgres::server();
    let mut wrong = address(server.address, "postgres");
    wrong.password = Some("canary-wrong-password".to_owned().into());
    let nowhere = address(server.address, "no_such_database");
    for refused in [wrong, nowhere] {
        let error = Directory::open(&Database::Postgres(refused.clone()))
            .await
            .unwrap_err();
        let told = format!("{} {error:?}", chain(&error));
        assert!(told.contains(&refused.to_string()), "{told}");
        assert!(
            !told.contains("canary") && !told.contains(PASSWORD),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let server = Postgres::server();
    let mut strict = address(server.address, &server.database());
    strict.tls = portcullis::settings::PostgresTls::VerifyFull;
    let error = Directory::open(&Database::Postgres(strict)).await;
    let told = chain(&error.unwrap_err());
    assert!(told.to_lowercase().contains("tls"), "{told}");
}
