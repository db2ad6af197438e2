//! Revocations that outlive the store: tokens one by one, and people's tokens up to a second. And what
//! the store is known by, so that one which has lost them is noticed.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;

use super::session_maintenance::{BATCH_SIZE, placeholders};
use super::sql::{Row, Statement};
use super::{Database, Error};
use crate::auth::session::Millis;

const COLUMNS: &str = "SELECT name, second, made_at, kept_until FROM revocations ";
const TOKEN: &str = "token:";
const PERSON: &str = "person:";

/// What is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevocationSubject {
    /// What the blacklist names a token by.
    Token(String),
    /// The hash of a person: their tokens without session that were issued up to this second.
    IssuedBefore([u8; 16], u64),
}

/// A revocation as the database keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRevocation {
    pub subject: RevocationSubject,
    pub made_at: Millis,
    pub until: Millis,
}

/// What the store is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreMarker {
    pub marker: String,
    /// Every revocation in it is kept here.
    pub is_log_complete: bool,
}

impl RevocationSubject {
    fn name(&self) -> String {
        match self {
            RevocationSubject::Token(key) => format!("{TOKEN}{key}"),
            RevocationSubject::IssuedBefore(hash, _) => format!("{PERSON}{}", hex::encode(hash)),
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
    /// Writes a revocation; one that reaches further stays. `untold`: the store may not have it.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn upsert_revocation(
        &self,
        revocation: &LoggedRevocation,
        untold: bool,
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
            .bind(untold);
        self.pool.write(insert).await?;
        Ok(())
    }

    /// Those of these that are not kept, or not as far.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn missing_revocations(
        &self,
        revoked: &[RevocationSubject],
    ) -> Result<Vec<RevocationSubject>, Error> {
        let mut kept = HashMap::with_capacity(revoked.len());
        for step in revoked.chunks(BATCH_SIZE) {
            let mut select = self.pool.sql(AssertSqlSafe(format!(
                "{COLUMNS}WHERE name IN ({})",
                placeholders(step.len())
            )));
            for one in step {
                select = select.bind(one.name());
            }
            for one in self.read_revocations(select).await? {
                kept.insert(one.subject.name(), one.subject.second());
            }
        }
        let is_unkept = |one: &&RevocationSubject| match kept.get(&one.name()) {
            Some(second) => one.second() > *second,
            None => true,
        };
        Ok(revoked.iter().filter(is_unkept).cloned().collect())
    }

    /// Whether this token is refused, and up to which second this person's tokens are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn look_up_revocations(
        &self,
        key: &str,
        person: Option<[u8; 16]>,
    ) -> Result<(bool, Option<u64>), Error> {
        let select = self
            .pool
            .sql(AssertSqlSafe(format!("{COLUMNS}WHERE name IN ($1, $2)")));
        let key = RevocationSubject::Token(key.to_owned());
        let person = person.map(|hash| RevocationSubject::IssuedBefore(hash, 0).name());
        let select = select.bind(key.name()).bind(person.unwrap_or_default());
        let (mut token, mut cut_off) = (false, None);
        for kept in self.read_revocations(select).await? {
            token |= kept.subject == key;
            cut_off = cut_off.max(kept.subject.second());
        }
        Ok((token, cut_off))
    }

    /// Forgets a revocation of a token.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn delete_revocation(&self, key: &str) -> Result<(), Error> {
        let delete = self.pool.sql("DELETE FROM revocations WHERE name = $1");
        let name = RevocationSubject::Token(key.to_owned()).name();
        self.pool.write(delete.bind(name)).await?;
        Ok(())
    }

    /// Some of the revocations that are in force and were made since then, after this one.
    ///
    /// # Errors
    /// When the database does not answer.
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

    /// Revocations that the store may not have heard of, the oldest first, at most a few hundred.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pending_revocations(&self) -> Result<Vec<LoggedRevocation>, Error> {
        let select = self.pool.sql(AssertSqlSafe(format!(
            "{COLUMNS}WHERE untold ORDER BY made_at LIMIT $1"
        )));
        self.read_revocations(select.bind(BATCH_SIZE as i64)).await
    }

    /// Takes note that the store knows of these.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn mark_revocations_replayed(&self, told: &[LoggedRevocation]) -> Result<(), Error> {
        for step in told.chunks(BATCH_SIZE) {
            let mut update = self.pool.sql(AssertSqlSafe(format!(
                "UPDATE revocations SET untold = FALSE WHERE name IN ({})",
                placeholders(step.len())
            )));
            for one in step {
                update = update.bind(one.subject.name());
            }
            self.pool.write(update).await?;
        }
        Ok(())
    }

    /// Drops revocations that nothing is left of to refuse; tells how many.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn delete_expired_revocations(&self, now: Millis) -> Result<u64, Error> {
        let mut trimmed = 0;
        loop {
            let delete = self.pool.sql(
                "DELETE FROM revocations WHERE name IN (SELECT name FROM revocations \
                 WHERE kept_until < $1 LIMIT $2) RETURNING name",
            );
            let delete = delete.bind(now.cast_signed()).bind(BATCH_SIZE as i64);
            let deleted = self.pool.write(delete).await?.len();
            trimmed += deleted as u64;
            if deleted < BATCH_SIZE {
                return Ok(trimmed);
            }
        }
    }

    async fn read_revocations(&self, select: Statement) -> Result<Vec<LoggedRevocation>, Error> {
        let rows = self.pool.read(select).await?;
        let mut kept = Vec::with_capacity(rows.len());
        for row in &rows {
            kept.extend(read_revocation(row)?);
        }
        Ok(kept)
    }

    /// What the store with this prefix was last known by.
    ///
    /// # Errors
    /// When the database does not answer.
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

    /// Writes what the store with this prefix is known by.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn upsert_store_marker(&self, prefix: &str, kept: &StoreMarker) -> Result<(), Error> {
        let insert = self.pool.sql(
            "INSERT INTO store_markers (key_prefix, marker, complete) VALUES ($1, $2, $3) \
             ON CONFLICT (key_prefix) DO UPDATE SET marker = excluded.marker, \
             complete = excluded.complete",
        );
        let insert = insert
            .bind(prefix)
            .bind(&kept.marker)
            .bind(kept.is_log_complete);
        self.pool.write(insert).await?;
        Ok(())
    }
}

/// A row that is not ours to read is nobody's.
fn read_revocation(row: &Row) -> Result<Option<LoggedRevocation>, Error> {
    let name: String = row.get("name")?;
    let second: Option<i64> = row.get("second")?;
    let revoked = match (name.strip_prefix(TOKEN), name.strip_prefix(PERSON), second) {
        (Some(key), _, _) => Some(RevocationSubject::Token(key.to_owned())),
        (None, Some(person), Some(second)) => {
            let mut hash = [0; 16];
            let read = hex::decode_to_slice(person, &mut hash);
            read.is_ok()
                .then(|| RevocationSubject::IssuedBefore(hash, second.cast_unsigned()))
        }
        _ => None,
    };
    let time = |column: &str| row.get::<i64, _>(column).map(i64::cast_unsigned);
    let (made_at, until) = (time("made_at")?, time("kept_until")?);
    Ok(revoked.map(|revoked| LoggedRevocation {
        subject: revoked,
        made_at,
        until,
    }))
}
