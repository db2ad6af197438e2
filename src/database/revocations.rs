//! Revocation log, and the markers by which a loss of the store's data is detected.
//!
//! The log holds blacklisted tokens and cut-offs, and outlives the store.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;

use super::session_maintenance::{BATCH_SIZE, placeholders};
use super::sql::{Row, Statement};
use super::{Database, Error};
use crate::auth::session::Millis;

const COLUMNS: &str = "SELECT name, second, made_at, kept_until FROM revocations ";
/// Prefixes of the column `name`.
const TOKEN: &str = "token:";
const USER: &str = "person:";

/// What a revocation covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevocationSubject {
    /// The token with this blacklist key.
    Token(String),
    /// Tokens without a session that the user with this hash was issued up to this second.
    IssuedBefore([u8; 16], u64),
}

/// A revocation in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRevocation {
    pub subject: RevocationSubject,
    pub made_at: Millis,
    pub until: Millis,
}

/// Identity of a store's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreMarker {
    pub marker: String,
    /// Whether the log contains every revocation of the store.
    pub is_log_complete: bool,
}

impl RevocationSubject {
    fn name(&self) -> String {
        match self {
            RevocationSubject::Token(key) => format!("{TOKEN}{key}"),
            RevocationSubject::IssuedBefore(hash, _) => format!("{USER}{}", hex::encode(hash)),
        }
    }

    fn second(&self) -> Option<u64> {
        match self {
            RevocationSubject::Token(_) => None,
            RevocationSubject::IssuedBefore(_, second) => Some(*second),
        }
    }
}

impl Database {
    /// Writes a revocation; an entry that lasts longer or covers more is kept.
    ///
    /// `is_pending`: the store may not have it yet.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn upsert_revocation(
        &self,
        revocation: &LoggedRevocation,
        is_pending: bool,
    ) -> Result<(), Error> {
        let insert = self.pool.sql(
            "INSERT INTO revocations (name, second, made_at, kept_until, untold) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET \
             second = CASE WHEN excluded.second > revocations.second THEN excluded.second \
             ELSE revocations.second END, made_at = excluded.made_at, \
             kept_until = CASE WHEN excluded.kept_until > revocations.kept_until \
             THEN excluded.kept_until ELSE revocations.kept_until END, \
             untold = excluded.untold OR revocations.untold",
        );
        let insert = insert
            .bind(revocation.subject.name())
            .bind(revocation.subject.second().map(u64::cast_signed))
            .bind(revocation.made_at.cast_signed())
            .bind(revocation.until.cast_signed())
            .bind(is_pending);
        self.pool.write(insert).await?;
        Ok(())
    }

    /// Returns the subjects that the log does not cover, or not up to their second.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn missing_revocations(
        &self,
        subjects: &[RevocationSubject],
    ) -> Result<Vec<RevocationSubject>, Error> {
        let mut logged = HashMap::with_capacity(subjects.len());
        for batch in subjects.chunks(BATCH_SIZE) {
            let mut select = self.pool.sql(AssertSqlSafe(format!(
                "{COLUMNS}WHERE name IN ({})",
                placeholders(batch.len())
            )));
            for subject in batch {
                select = select.bind(subject.name());
            }
            for revocation in self.read_revocations(select).await? {
                logged.insert(revocation.subject.name(), revocation.subject.second());
            }
        }
        let is_missing = |subject: &&RevocationSubject| match logged.get(&subject.name()) {
            Some(second) => subject.second() > *second,
            None => true,
        };
        Ok(subjects.iter().filter(is_missing).cloned().collect())
    }

    /// Returns whether the token is revoked, and the second up to which the user's tokens are.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn look_up_revocations(
        &self,
        key: &str,
        user: Option<[u8; 16]>,
    ) -> Result<(bool, Option<u64>), Error> {
        let select = self
            .pool
            .sql(AssertSqlSafe(format!("{COLUMNS}WHERE name IN ($1, $2)")));
        let key = RevocationSubject::Token(key.to_owned());
        let user = user.map(|hash| RevocationSubject::IssuedBefore(hash, 0).name());
        let select = select.bind(key.name()).bind(user.unwrap_or_default());
        let (mut is_revoked, mut cut_off) = (false, None);
        for revocation in self.read_revocations(select).await? {
            is_revoked |= revocation.subject == key;
            cut_off = cut_off.max(revocation.subject.second());
        }
        Ok((is_revoked, cut_off))
    }

    /// Deletes the revocation of a token.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_revocation(&self, key: &str) -> Result<(), Error> {
        let delete = self.pool.sql("DELETE FROM revocations WHERE name = $1");
        let name = RevocationSubject::Token(key.to_owned()).name();
        self.pool.write(delete.bind(name)).await?;
        Ok(())
    }

    /// Returns a batch of revocations in force that were made since then, ordered after this one.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn revocations_since(
        &self,
        since: Millis,
        after: Option<&RevocationSubject>,
        now: Millis,
    ) -> Result<Vec<LoggedRevocation>, Error> {
        let select = self.pool.sql(AssertSqlSafe(format!(
            "{COLUMNS}WHERE made_at >= $1 AND kept_until > $2 AND name > $3 ORDER BY name LIMIT $4"
        )));
        let select = select
            .bind(since.cast_signed())
            .bind(now.cast_signed())
            .bind(after.map(RevocationSubject::name).unwrap_or_default())
            .bind(BATCH_SIZE as i64);
        self.read_revocations(select).await
    }

    /// Returns a batch of revocations that the store may not have, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pending_revocations(&self) -> Result<Vec<LoggedRevocation>, Error> {
        let select = self.pool.sql(AssertSqlSafe(format!(
            "{COLUMNS}WHERE untold ORDER BY made_at LIMIT $1"
        )));
        self.read_revocations(select.bind(BATCH_SIZE as i64)).await
    }

    /// Records that the store has these revocations.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn mark_revocations_replayed(
        &self,
        revocations: &[LoggedRevocation],
    ) -> Result<(), Error> {
        for batch in revocations.chunks(BATCH_SIZE) {
            let mut update = self.pool.sql(AssertSqlSafe(format!(
                "UPDATE revocations SET untold = FALSE WHERE name IN ({})",
                placeholders(batch.len())
            )));
            for revocation in batch {
                update = update.bind(revocation.subject.name());
            }
            self.pool.write(update).await?;
        }
        Ok(())
    }

    /// Deletes revocations whose tokens have all expired; returns their number.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_expired_revocations(&self, now: Millis) -> Result<u64, Error> {
        let mut total = 0;
        loop {
            let delete = self.pool.sql(
                "DELETE FROM revocations WHERE name IN (SELECT name FROM revocations \
                 WHERE kept_until < $1 LIMIT $2) RETURNING name",
            );
            let delete = delete.bind(now.cast_signed()).bind(BATCH_SIZE as i64);
            let deleted = self.pool.write(delete).await?.len();
            total += deleted as u64;
            if deleted < BATCH_SIZE {
                return Ok(total);
            }
        }
    }

    async fn read_revocations(&self, select: Statement) -> Result<Vec<LoggedRevocation>, Error> {
        let rows = self.pool.read(select).await?;
        let mut revocations = Vec::with_capacity(rows.len());
        for row in &rows {
            revocations.extend(read_revocation(row)?);
        }
        Ok(revocations)
    }

    /// Reads the last marker of the store with this prefix.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn store_marker(&self, prefix: &str) -> Result<Option<StoreMarker>, Error> {
        let select = self
            .pool
            .sql("SELECT marker, complete FROM store_markers WHERE key_prefix = $1");
        let rows = self.pool.read(select.bind(prefix)).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(StoreMarker {
            marker: row.get("marker")?,
            is_log_complete: row.get("complete")?,
        }))
    }

    /// Writes the marker of the store with this prefix.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn upsert_store_marker(
        &self,
        prefix: &str,
        marker: &StoreMarker,
    ) -> Result<(), Error> {
        let insert = self.pool.sql(
            "INSERT INTO store_markers (key_prefix, marker, complete) VALUES ($1, $2, $3) \
             ON CONFLICT (key_prefix) DO UPDATE SET marker = excluded.marker, \
             complete = excluded.complete",
        );
        let insert = insert
            .bind(prefix)
            .bind(&marker.marker)
            .bind(marker.is_log_complete);
        self.pool.write(insert).await?;
        Ok(())
    }
}

/// Decodes a row; rows of unknown kinds are skipped.
fn read_revocation(row: &Row) -> Result<Option<LoggedRevocation>, Error> {
    let name: String = row.get("name")?;
    let second: Option<i64> = row.get("second")?;
    let subject = match (name.strip_prefix(TOKEN), name.strip_prefix(USER), second) {
        (Some(key), _, _) => Some(RevocationSubject::Token(key.to_owned())),
        (None, Some(user), Some(second)) => {
            let mut hash = [0; 16];
            let decoded = hex::decode_to_slice(user, &mut hash);
            decoded
                .is_ok()
                .then(|| RevocationSubject::IssuedBefore(hash, second.cast_unsigned()))
        }
        _ => None,
    };
    let time = |column: &str| row.get::<i64, _>(column).map(i64::cast_unsigned);
    let (made_at, until) = (time("made_at")?, time("kept_until")?);
    Ok(subject.map(|subject| LoggedRevocation {
        subject,
        made_at,
        until,
    }))
}
