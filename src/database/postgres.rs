//! PostgreSQL database.

use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};

use super::Error;
use super::postgres_pool::PostgresPool;
use super::sql::{DEADLINE, SqlPool};
use crate::settings::{PostgresAddress, PostgresTls};

/// Connects to the server; waits for one that is starting.
pub(super) async fn open(address: &PostgresAddress) -> Result<SqlPool, Error> {
    let pool = PgPoolOptions::new()
        .max_connections(address.connections)
        .acquire_timeout(DEADLINE);
    match pool.connect_with(options(address)).await {
        Ok(pool) => Ok(SqlPool::Postgres(PostgresPool::new(pool))),
        Err(source) => Err(Error::Open {
            database: address.to_string(),
            source,
        }),
    }
}

fn options(address: &PostgresAddress) -> PgConnectOptions {
    // The password file of the machine's user must not apply to the gateway.
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&address.host)
        .port(address.port)
        .username(&address.username)
        .database(&address.database)
        .application_name("portcullis")
        .ssl_mode(match address.tls {
            PostgresTls::Disable => PgSslMode::Disable,
            PostgresTls::Prefer => PgSslMode::Prefer,
            PostgresTls::Require => PgSslMode::Require,
            PostgresTls::VerifyCa => PgSslMode::VerifyCa,
            PostgresTls::VerifyFull => PgSslMode::VerifyFull,
        });
    if let Some(password) = &address.password {
        options = options.password(password.expose_secret());
    }
    if let Some(ca) = &address.ca {
        options = options.ssl_root_cert_from_pem(ca.clone());
    }
    if let Some(socket) = &address.socket {
        options = options.socket(socket);
    }
    options
}
