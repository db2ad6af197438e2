//! Common interface to both engines.
//!
//! A statement is one text with `$1` placeholders, its values have types that both engines support,
//! and every step has a deadline.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{ColumnIndex, Decode, Encode, Postgres, Row as _, SqlSafeStr, Sqlite, SqlitePool, Type};
use tokio::time::timeout;

use super::postgres_pool::PostgresPool;
use crate::auth::session::Millis;

/// Timeout of a statement, and of the wait for a connection before it.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// Connection pools of the engine; clones share them.
#[derive(Debug, Clone)]
pub(super) enum SqlPool {
    /// SQLite permits one writer at a time; unlike SQLite, a pool with one connection queues fairly.
    Sqlite {
        readers: SqlitePool,
        writer: SqlitePool,
    },
    Postgres(PostgresPool),
}

impl SqlPool {
    /// Creates a statement.
    pub(super) fn sql(&self, text: impl SqlSafeStr) -> Statement {
        match self {
            SqlPool::Sqlite { .. } => Statement::Sqlite(sqlx::query(text)),
            SqlPool::Postgres(_) => Statement::Postgres(sqlx::query(text)),
        }
    }

    /// Runs a read-only statement.
    pub(super) async fn read(&self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        let mut connection = match self {
            SqlPool::Sqlite { readers, .. } => Connection::Sqlite(readers.acquire().await?),
            SqlPool::Postgres(pool) => Connection::Postgres(pool.acquire().await?),
        };
        connection.run(statement).await
    }

    /// Runs a statement that may write.
    pub(super) async fn write(&self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        self.acquire_writer().await?.run(statement).await
    }

    /// Begins a transaction; transactions with the same lock exclude each other.
    pub(super) async fn begin(&self, lock: &str) -> Result<Transaction, sqlx::Error> {
        let mut connection = self.acquire_writer().await?;
        // SQLite has a single write lock; acquired later than at the start, it could fail.
        let begin = match self {
            SqlPool::Sqlite { .. } => "BEGIN IMMEDIATE",
            SqlPool::Postgres(_) => "BEGIN",
        };
        connection.run(self.sql(begin)).await?;
        let mut transaction = Transaction {
            connection,
            open: true,
        };
        if let SqlPool::Postgres(_) = self {
            let take = self.sql("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))");
            transaction.run(take.bind(lock)).await?;
        }
        Ok(transaction)
    }

    async fn acquire_writer(&self) -> Result<Connection, sqlx::Error> {
        Ok(match self {
            SqlPool::Sqlite { writer, .. } => Connection::Sqlite(writer.acquire().await?),
            SqlPool::Postgres(pool) => Connection::Postgres(pool.acquire().await?),
        })
    }

    /// Waits for running statements and closes all connections.
    pub(super) async fn close(&self) {
        match self {
            SqlPool::Sqlite { readers, writer } => {
                readers.close().await;
                writer.close().await;
            }
            SqlPool::Postgres(pool) => pool.inner().close().await,
        }
    }
}

/// A statement with its values.
pub(super) enum Statement {
    Sqlite(Query<'static, Sqlite, SqliteArguments>),
    Postgres(Query<'static, Postgres, PgArguments>),
}

impl Statement {
    /// Binds the next value.
    pub(super) fn bind<'v, T>(self, value: T) -> Statement
    where
        T: Encode<'v, Sqlite> + Type<Sqlite> + Encode<'v, Postgres> + Type<Postgres>,
    {
        match self {
            Statement::Sqlite(query) => Statement::Sqlite(query.bind(value)),
            Statement::Postgres(query) => Statement::Postgres(query.bind(value)),
        }
    }
}

/// A row of a result.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// Reads a timestamp column.
    pub(super) fn timestamp(&self, column: &str) -> Result<Millis, sqlx::Error> {
        Ok(self.get::<i64, _>(column)?.cast_unsigned())
    }

    /// Reads a column, by name or index.
    pub(super) fn get<T, I>(&self, column: I) -> Result<T, sqlx::Error>
    where
        T: for<'r> Decode<'r, Sqlite>
            + Type<Sqlite>
            + for<'r> Decode<'r, Postgres>
            + Type<Postgres>,
        I: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        }
    }
}

enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl Connection {
    async fn run(&mut self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        let outcome = match (&mut *self, statement) {
            (Connection::Sqlite(connection), Statement::Sqlite(query)) => {
                let rows = timeout(DEADLINE, query.fetch_all(&mut **connection)).await;
                rows.map(|rows| rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect()))
            }
            (Connection::Postgres(connection), Statement::Postgres(query)) => {
                let rows = timeout(DEADLINE, query.fetch_all(&mut **connection)).await;
                rows.map(|rows| rows.map(|rows| rows.into_iter().map(Row::Postgres).collect()))
            }
            (Connection::Sqlite(_), Statement::Postgres(_))
            | (Connection::Postgres(_), Statement::Sqlite(_)) => Ok(Err(sqlx::Error::Protocol(
                "a statement for the other engine".to_owned(),
            ))),
        };
        outcome.unwrap_or_else(|_| {
            // A late reply would be taken for that of the next statement.
            self.discard();
            Err(sqlx::Error::PoolTimedOut)
        })
    }

    /// Closes the connection instead of returning it to the pool.
    fn discard(&mut self) {
        match self {
            Connection::Sqlite(connection) => connection.close_on_drop(),
            Connection::Postgres(connection) => connection.close_on_drop(),
        }
    }
}

/// A transaction; dropping it before the commit rolls it back.
pub(super) struct Transaction {
    connection: Connection,
    open: bool,
}

impl Transaction {
    pub(super) async fn run(&mut self, statement: Statement) -> Result<Vec<Row>, sqlx::Error> {
        self.connection.run(statement).await
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let commit = match self.connection {
            Connection::Sqlite(_) => Statement::Sqlite(sqlx::query("COMMIT")),
            Connection::Postgres(_) => Statement::Postgres(sqlx::query("COMMIT")),
        };
        self.connection.run(commit).await?;
        self.open = false;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open {
            self.connection.discard();
        }
    }
}
