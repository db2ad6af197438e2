//! Durable sessions: the statements about one of them, or about those of one user.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;

use super::database::{Row, Statement, Transaction};
use super::users::list_text;
use super::{Directory, Error};
use crate::auth::session::{
    Device, EndReason, Ended, Millis, OnLimit, Session, SessionId, no_data,
};

pub(super) const COLUMNS: &str = "SELECT id, user_id, email, name, roles, scopes, device_type, \
    device_name, ip_address, user_agent, data, revision, last_activity, created_at, expires_at, \
    ended_at, ended_reason, refresh_hash, refresh_until, refresh_rotated, refresh_reused, \
    (SELECT username FROM users WHERE users.id = user_sessions.user_id) AS username \
    FROM user_sessions ";
/// How many ended sessions of one user are kept.
const ENDED_KEPT: i64 = 50;
/// How many of a user's sessions are read at once.
const LISTED: i64 = 1000;

/// A session as the database keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub session: Session,
    /// Written now and then, so a little behind.
    pub last_activity: Millis,
    pub refresh: KeptRefresh,
}

/// The refresh tokens of a session, by their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRefresh {
    pub current: [u8; 32],
    pub until: Millis,
    /// Those rotated a moment ago and when, the oldest first.
    pub rotated: Vec<([u8; 32], Millis)>,
    /// An old one came back.
    pub reused: bool,
}

/// How many sessions a user may have, and which of them still count.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub max: u32,
    pub on_limit: OnLimit,
    /// Those not used since then have expired by being idle.
    pub used_since: Millis,
}

impl Directory {
    /// Writes a new session. Beyond `max` alive ones the oldest are ended and given; `None`: there is
    /// no room. However many sign-ins race, at most `max` stay.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn keep(
        &self,
        session: &Session,
        refresh: &KeptRefresh,
        room: Room,
        now: Millis,
    ) -> Result<Option<Vec<SessionId>>, Error> {
        let mut transaction = self.database.begin(&session.user).await?;
        let alive = self.alive(&mut transaction, session, room, now).await?;
        let max = usize::try_from(room.max).unwrap_or(usize::MAX);
        let excess = (alive.len() + 1).saturating_sub(max).min(alive.len());
        if excess > 0 && room.on_limit == OnLimit::Reject {
            transaction.commit().await?;
            return Ok(None);
        }
        let evicted: Vec<SessionId> = alive.into_iter().take(excess).collect();
        for id in &evicted {
            let end = self.ending("id = $3", EndReason::Evicted, now);
            transaction.run(end.bind(id.to_string())).await?;
        }
        transaction.run(self.insertion(session, refresh)).await?;
        transaction.commit().await?;
        self.forget_beyond(&session.user).await?;
        Ok(Some(evicted))
    }

    async fn alive(
        &self,
        transaction: &mut Transaction,
        session: &Session,
        room: Room,
        now: Millis,
    ) -> Result<Vec<SessionId>, Error> {
        let select = self.database.sql(
            "SELECT id FROM user_sessions WHERE user_id = $1 AND is_active AND expires_at > $2 \
             AND last_activity > $3 AND id <> $4 ORDER BY created_at, id",
        );
        let select = select
            .bind(&session.user)
            .bind(now.cast_signed())
            .bind(room.used_since.cast_signed())
            .bind(session.id.to_string());
        transaction.run(select).await?.iter().map(read_id).collect()
    }

    fn insertion(&self, session: &Session, refresh: &KeptRefresh) -> Statement {
        self.database
            .sql(
                "INSERT INTO user_sessions (id, user_id, email, name, roles, scopes, device_id, \
                 device_type, device_name, ip_address, user_agent, data, revision, is_active, \
                 last_activity, created_at, expires_at, end_untold, refresh_hash, refresh_until, \
                 refresh_rotated, refresh_reused) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
                 $11, $12, $13, TRUE, $14, $14, $15, FALSE, $16, $17, '', FALSE) \
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(session.id.to_string())
            .bind(&session.user)
            .bind(&session.email)
            .bind(&session.name)
            .bind(list_text(&session.roles))
            .bind(list_text(&session.scopes))
            .bind(device_id(session))
            .bind(&session.device.kind)
            .bind(&session.device.name)
            .bind(session.ip.to_string())
            .bind(&session.user_agent)
            .bind(&session.data)
            .bind(session.revision.cast_signed())
            .bind(session.created_at.cast_signed())
            .bind(session.expires_at.cast_signed())
            .bind(hex::encode(refresh.current))
            .bind(refresh.until.cast_signed())
    }

    /// Reads one session, however it stands.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn kept(&self, id: SessionId) -> Result<Option<Kept>, Error> {
        let select = self
            .database
            .sql(AssertSqlSafe(format!("{COLUMNS}WHERE id = $1")));
        let rows = self.database.read(select.bind(id.to_string())).await?;
        rows.first().map(read).transpose()
    }

    /// Reads the sessions of a user, newest first, at most a thousand.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn kept_of(&self, user: &str) -> Result<Vec<Kept>, Error> {
        let select = self.database.sql(AssertSqlSafe(format!(
            "{COLUMNS}WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2"
        )));
        let rows = self.database.read(select.bind(user).bind(LISTED)).await?;
        rows.iter().map(read).collect()
    }

    /// Ends a session; tells whether it was alive. One not used since then, or past its time, stays
    /// expired.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn end_kept(
        &self,
        id: SessionId,
        reason: EndReason,
        used_since: Millis,
        now: Millis,
    ) -> Result<bool, Error> {
        let end = self.ending(
            "id = $3 AND last_activity > $4 AND expires_at > $5",
            reason,
            now,
        );
        let end = end
            .bind(id.to_string())
            .bind(used_since.cast_signed())
            .bind(now.cast_signed());
        let ended = self.database.write(end).await?;
        let Some(user) = ended.first() else {
            return Ok(false);
        };
        self.forget_beyond(&user.get::<String, _>("user_id")?)
            .await?;
        Ok(true)
    }

    /// Ends all sessions of a user but one; gives those that were alive.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn end_kept_of(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        used_since: Millis,
        now: Millis,
    ) -> Result<Vec<SessionId>, Error> {
        let end = self.ending(
            "user_id = $3 AND id <> $4 AND last_activity > $5 AND expires_at > $6",
            reason,
            now,
        );
        let end = end
            .bind(user)
            .bind(except.map(|id| id.to_string()).unwrap_or_default())
            .bind(used_since.cast_signed())
            .bind(now.cast_signed());
        let ended = self.database.write(end).await?;
        let ended: Vec<SessionId> = ended.iter().map(read_id).collect::<Result<_, _>>()?;
        self.forget_beyond(user).await?;
        Ok(ended)
    }

    /// The statement that ends those alive of which the condition holds.
    fn ending(&self, condition: &'static str, reason: EndReason, now: Millis) -> Statement {
        let text = format!(
            "UPDATE user_sessions SET is_active = FALSE, ended_at = $1, ended_reason = $2, \
             end_untold = TRUE WHERE is_active AND {condition} RETURNING id, user_id"
        );
        self.database
            .sql(AssertSqlSafe(text))
            .bind(now.cast_signed())
            .bind(reason.as_str())
    }

    /// Drops those of a user's ended sessions that ended first, beyond what is kept.
    async fn forget_beyond(&self, user: &str) -> Result<(), Error> {
        let forget = self.database.sql(
            "DELETE FROM user_sessions WHERE user_id = $1 AND NOT is_active AND NOT end_untold \
             AND id NOT IN (SELECT id FROM user_sessions WHERE user_id = $1 AND NOT is_active \
             ORDER BY ended_at DESC, id LIMIT $2)",
        );
        self.database
            .write(forget.bind(user).bind(ENDED_KEPT))
            .await?;
        Ok(())
    }

    /// Writes what its holder has changed of a session.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn amend_kept(&self, session: &Session) -> Result<(), Error> {
        let update = self.database.sql(
            "UPDATE user_sessions SET device_name = $1, data = $2, revision = revision + 1 \
             WHERE id = $3 AND is_active",
        );
        let update = update
            .bind(&session.device.name)
            .bind(&session.data)
            .bind(session.id.to_string());
        self.database.write(update).await?;
        Ok(())
    }

    /// Changes who a user's live sessions belong to and what they may do.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn identify_kept(&self, user: &str) -> Result<(), Error> {
        // As the user is at this moment: what was read before may be overtaken.
        let update = self.database.sql(
            "UPDATE user_sessions SET email = users.email, name = users.name, \
             roles = users.roles, scopes = users.scopes, revision = revision + 1 \
             FROM users WHERE users.id = $1 AND user_id = $1 AND is_active",
        );
        self.database.write(update.bind(user)).await?;
        Ok(())
    }

    /// Puts other refresh tokens in the place of those that were read, unless they have changed
    /// since; tells whether it did.
    ///
    /// # Errors
    /// When the database does not do it.
    pub async fn turn_kept(
        &self,
        id: SessionId,
        before: &KeptRefresh,
        after: &KeptRefresh,
    ) -> Result<bool, Error> {
        let update = self.database.sql(
            "UPDATE user_sessions SET refresh_hash = $1, refresh_until = $2, refresh_rotated = $3, \
             refresh_reused = $4 WHERE id = $5 AND refresh_hash = $6 AND refresh_reused = $7 \
             AND is_active RETURNING id",
        );
        let update = update
            .bind(hex::encode(after.current))
            .bind(after.until.cast_signed())
            .bind(rotated_text(&after.rotated))
            .bind(after.reused)
            .bind(id.to_string())
            .bind(hex::encode(before.current))
            .bind(before.reused);
        Ok(!self.database.write(update).await?.is_empty())
    }
}

/// Names a device of a user by how it presents itself.
fn device_id(session: &Session) -> String {
    let device = (
        &session.user,
        &session.device.kind,
        &session.device.name,
        &session.user_agent,
    );
    let mut id = hex::encode(Sha256::digest(format!("{device:?}")));
    id.truncate(32);
    id
}

pub(super) fn read_id(row: &Row) -> Result<SessionId, Error> {
    let id: String = row.get("id")?;
    SessionId::parse(&id).ok_or(Error::DamagedSession(id))
}

/// Reads a row of [`COLUMNS`].
pub(super) fn read(row: &Row) -> Result<Kept, Error> {
    let id = read_id(row)?;
    let damaged = || Error::DamagedSession(id.to_string());
    let time =
        |column: &str| -> Result<Millis, Error> { Ok(row.get::<i64, _>(column)?.cast_unsigned()) };
    let list = |column: &str| -> Result<Arc<[String]>, Error> {
        serde_json::from_str(&row.get::<String, _>(column)?).map_err(|_| damaged())
    };
    let text = |column: &str| -> Result<Option<Arc<str>>, Error> {
        Ok(row.get::<Option<String>, _>(column)?.map(Into::into))
    };
    let ended_at: Option<i64> = row.get("ended_at")?;
    let reason: Option<String> = row.get("ended_reason")?;
    let ip: String = row.get("ip_address")?;
    let current: String = row.get("refresh_hash")?;
    let rotated: String = row.get("refresh_rotated")?;
    let session = Session {
        id,
        user: row.get("user_id")?,
        email: row.get("email")?,
        username: row.get::<Option<String>, _>("username")?.map(Into::into),
        name: row.get("name")?,
        roles: list("roles")?,
        scopes: list("scopes")?,
        created_at: time("created_at")?,
        expires_at: time("expires_at")?,
        ip: ip.parse().map_err(|_| damaged())?,
        user_agent: text("user_agent")?.unwrap_or_default(),
        device: Device {
            kind: text("device_type")?,
            name: text("device_name")?,
        },
        // An end whose reason is not understood is still an end.
        ended: ended_at.map(|at| Ended {
            at: at.cast_unsigned(),
            reason: reason
                .and_then(|reason| EndReason::parse(&reason))
                .unwrap_or(EndReason::Terminated),
        }),
        data: text("data")?.unwrap_or_else(no_data),
        revision: time("revision")?,
    };
    Ok(Kept {
        session,
        last_activity: time("last_activity")?,
        refresh: KeptRefresh {
            current: hash(&current).ok_or_else(damaged)?,
            until: time("refresh_until")?,
            rotated: read_rotated(&rotated).ok_or_else(damaged)?,
            reused: row.get("refresh_reused")?,
        },
    })
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

fn rotated_text(rotated: &[([u8; 32], Millis)]) -> String {
    let one = |(hash, at): &([u8; 32], Millis)| format!("{} {at} ", hex::encode(hash));
    rotated.iter().map(one).collect()
}

fn read_rotated(text: &str) -> Option<Vec<([u8; 32], Millis)>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.chunks(2).map(|pair| match pair {
        [presented, at] => Some((hash(presented)?, at.parse().ok()?)),
        _ => None,
    });
    pairs.collect()
}
