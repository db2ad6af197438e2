//! Revocations that outlive the store: tokens one by one, and people's tokens up to a second. And what
//! the store is known by, so that one which has lost them is noticed.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;

use super::database::{Row, Statement};
use super::housekeeping::{STEP, places};
use super::{Directory, Error};
use crate::auth::session::Millis;

const COLUMNS: &str = "SELECT name, second, made_at, kept_until FROM revocations ";
const TOKEN: &str = "token:";
const PERSON: &str = "person:";

/// What is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// What the blacklist names a token by.
    Token(String),
    /// The hash of a person: their tokens without session that were issued up to this second.
    Person([u8; 16], u64),
}

/// A revocation as the database keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRevocation {
    pub revoked: Revoked,
    pub made_at: Millis,
    pub until: Millis,
}

/// What the store is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMarker {
    pub marker: String,
    /// Every revocation in it is kept here.
    pub complete: bool,
}

impl Revoked {
    fn name(&self) -> String {
        match self {
            Revoked::Token(key) => format!("{TOKEN}{key}"),
            Revoked::Person(hash, _) => format!("{PERSON}{}", hex::encode(hash)),
        }
    }

    fn second(&self) -> Option<u64> {
        match self {
            Revoked::Token(_) => None,
            Revoked::Person(_, second) => Some(*second),
        }
    }
}

impl Directory {
    /// Writes a revocation; one that reaches further stays. `untold`: the store may not have it.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn keep_revocation(
        &self,
        revocation: &KeptRevocation,
        untold: bool,
    ) -> Result<(), Error> {
        let insert = self.database.sql(
            "INSERT INTO revocations (name, second, made_at, kept_until, untold) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET \
             second = CASE WHEN excluded.second > revocations.second THEN excluded.second \
             ELSE revocations.second END, made_at = excluded.made_at, \
             kept_until = CASE WHEN excluded.kept_until > revocations.kept_until \
             THEN excluded.kept_until ELSE revocations.kept_until END, \
             untold = excluded.untold OR revocations.untold",
        );
        let insert = insert
            .bind(revocation.revoked.name())
            .bind(revocation.revoked.second().map(u64::cast_signed))
            .bind(revocation.made_at.cast_signed())
            .bind(revocation.until.cast_signed())
            .bind(untold);
        self.database.write(insert).await?;
        Ok(())
    }

    /// Those of these that are not kept, or not as far.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn unkept_among(&self, revoked: &[Revoked]) -> Result<Vec<Revoked>, Error> {
        let mut kept = HashMap::with_capacity(revoked.len());
        for step in revoked.chunks(STEP) {
            let mut select = self.database.sql(AssertSqlSafe(format!(
                "{COLUMNS}WHERE name IN ({})",
                places(step.len())
            )));
            for one in step {
                select = select.bind(one.name());
            }
            for one in self.revocations(select).await? {
                kept.insert(one.revoked.name(), one.revoked.second());
            }
        }
        let is_unkept = |one: &&Revoked| match kept.get(&one.name()) {
            Some(second) => one.second() > *second,
            None => true,
        };
        Ok(revoked.iter().filter(is_unkept).cloned().collect())
    }

    /// Whether this token is refused, and up to which second this person's tokens are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refuses(
        &self,
        key: &str,
        person: Option<[u8; 16]>,
    ) -> Result<(bool, Option<u64>), Error> {
        let select = self
            .database
            .sql(AssertSqlSafe(format!("{COLUMNS}WHERE name IN ($1, $2)")));
        let key = Revoked::Token(key.to_owned());
        let person = person.map(|hash| Revoked::Person(hash, 0).name());
        let select = select.bind(key.name()).bind(person.unwrap_or_default());
        let (mut token, mut cut_off) = (false, None);
        for kept in self.revocations(select).await? {
            token |= kept.revoked == key;
            cut_off = cut_off.max(kept.revoked.second());
        }
        Ok((token, cut_off))
    }

    /// Forgets a revocation of a token.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn drop_revocation(&self, key: &str) -> Result<(), Error> {
        let delete = self.database.sql("DELETE FROM revocations WHERE name = $1");
        let name = Revoked::Token(key.to_owned()).name();
        self.database.write(delete.bind(name)).await?;
        Ok(())
    }

    /// Some of the revocations that are in force and were made since then, after this one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revocations_since(
        &self,
        since: Millis,
        after: Option<&Revoked>,
        now: Millis,
    ) -> Result<Vec<KeptRevocation>, Error> {
        let select = self.database.sql(AssertSqlSafe(format!(
            "{COLUMNS}WHERE made_at >= $1 AND kept_until > $2 AND name > $3 ORDER BY name LIMIT $4"
        )));
        let select = select
            .bind(since.cast_signed())
            .bind(now.cast_signed())
            .bind(after.map(Revoked::name).unwrap_or_default())
            .bind(STEP as i64);
        self.revocations(select).await
    }

    /// Revocations that the store may not have heard of, the oldest first, at most a few hundred.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn untold_revocations(&self) -> Result<Vec<KeptRevocation>, Error> {
        let select = self.database.sql(AssertSqlSafe(format!(
            "{COLUMNS}WHERE untold ORDER BY made_at LIMIT $1"
        )));
        self.revocations(select.bind(STEP as i64)).await
    }

    /// Takes note that the store knows of these.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn revocations_told(&self, told: &[KeptRevocation]) -> Result<(), Error> {
        for step in told.chunks(STEP) {
            let mut update = self.database.sql(AssertSqlSafe(format!(
                "UPDATE revocations SET untold = FALSE WHERE name IN ({})",
                places(step.len())
            )));
            for one in step {
                update = update.bind(one.revoked.name());
            }
            self.database.write(update).await?;
        }
        Ok(())
    }

    /// Drops revocations that nothing is left of to refuse; tells how many.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn trim_revocations(&self, now: Millis) -> Result<u64, Error> {
        let mut trimmed = 0;
        loop {
            let delete = self.database.sql(
                "DELETE FROM revocations WHERE name IN (SELECT name FROM revocations \
                 WHERE kept_until < $1 LIMIT $2) RETURNING name",
            );
            let delete = delete.bind(now.cast_signed()).bind(STEP as i64);
            let deleted = self.database.write(delete).await?.len();
            trimmed += deleted as u64;
            if deleted < STEP {
                return Ok(trimmed);
            }
        }
    }

    async fn revocations(&self, select: Statement) -> Result<Vec<KeptRevocation>, Error> {
        let rows = self.database.read(select).await?;
        let mut kept = Vec::with_capacity(rows.len());
        for row in &rows {
            kept.extend(read(row)?);
        }
        Ok(kept)
    }

    /// What the store with this prefix was last known by.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn store_marker(&self, prefix: &str) -> Result<Option<KeptMarker>, Error> {
        let select = self
            .database
            .sql("SELECT marker, complete FROM store_markers WHERE key_prefix = $1");
        let rows = self.database.read(select.bind(prefix)).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(KeptMarker {
            marker: row.get("marker")?,
            complete: row.get("complete")?,
        }))
    }

    /// Writes what the store with this prefix is known by.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn keep_store_marker(&self, prefix: &str, kept: &KeptMarker) -> Result<(), Error> {
        let insert = self.database.sql(
            "INSERT INTO store_markers (key_prefix, marker, complete) VALUES ($1, $2, $3) \
             ON CONFLICT (key_prefix) DO UPDATE SET marker = excluded.marker, \
             complete = excluded.complete",
        );
        let insert = insert.bind(prefix).bind(&kept.marker).bind(kept.complete);
        self.database.write(insert).await?;
        Ok(())
    }
}

/// A row that is not ours to read is nobody's.
fn read(row: &Row) -> Result<Option<KeptRevocation>, Error> {
    let name: String = row.get("name")?;
    let second: Option<i64> = row.get("second")?;
    let revoked = match (name.strip_prefix(TOKEN), name.strip_prefix(PERSON), second) {
        (Some(key), _, _) => Some(Revoked::Token(key.to_owned())),
        (None, Some(person), Some(second)) => {
            let mut hash = [0; 16];
            let read = hex::decode_to_slice(person, &mut hash);
            read.is_ok()
                .then(|| Revoked::Person(hash, second.cast_unsigned()))
        }
        _ => None,
    };
    let time = |column: &str| row.get::<i64, _>(column).map(i64::cast_unsigned);
    let (made_at, until) = (time("made_at")?, time("kept_until")?);
    Ok(revoked.map(|revoked| KeptRevocation {
        revoked,
        made_at,
        until,
    }))
}
