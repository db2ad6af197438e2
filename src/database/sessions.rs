//! Statements about single durable sessions and about a user's sessions.

use sqlx::AssertSqlSafe;

use super::session_rows::{COLUMNS, device_id, encode_rotated, read_id, read_session};
use super::sql::{Statement, Transaction};
use super::users::encode_list;
use super::{Database, Error};
use crate::auth::session::{EndReason, Millis, OnSessionLimit, Session, SessionId};

/// Number of ended sessions kept per user.
const MAX_ENDED_PER_USER: i64 = 50;
/// Number of a user's sessions read at once.
const MAX_LISTED: i64 = 1000;

/// A session row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableSession {
    pub session: Session,
    /// Written periodically, and therefore a little behind.
    pub last_activity: Millis,
    pub refresh: DurableRefreshTokens,
}

/// Refresh tokens of a session, by their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableRefreshTokens {
    pub current: [u8; 32],
    pub until: Millis,
    /// Recently rotated tokens with the time of their rotation, oldest first.
    pub rotated: Vec<([u8; 32], Millis)>,
    /// Whether a token was reused.
    pub reused: bool,
}

/// Limit on a user's sessions, and which of them count.
#[derive(Debug, Clone, Copy)]
pub struct SessionQuota {
    pub max: u32,
    pub on_limit: OnSessionLimit,
    /// Sessions without a use since then have expired by idleness.
    pub used_since: Millis,
}

impl Database {
    /// Writes a new session and returns the evicted ones; `None`: the limit is reached.
    ///
    /// Beyond `max` active sessions, the oldest are ended or the new one is rejected. Concurrent
    /// sign-ins do not exceed `max`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn insert_session(
        &self,
        session: &Session,
        refresh: &DurableRefreshTokens,
        quota: SessionQuota,
        now: Millis,
    ) -> Result<Option<Vec<SessionId>>, Error> {
        let mut transaction = self.pool.begin(&session.user).await?;
        let active = self
            .active_sessions(&mut transaction, session, quota, now)
            .await?;
        let max = usize::try_from(quota.max).unwrap_or(usize::MAX);
        let excess = (active.len() + 1).saturating_sub(max).min(active.len());
        if excess > 0 && quota.on_limit == OnSessionLimit::Reject {
            transaction.commit().await?;
            return Ok(None);
        }
        let evicted: Vec<SessionId> = active.into_iter().take(excess).collect();
        for id in &evicted {
            let end = self.end_statement("id = $3", EndReason::Evicted, now);
            transaction.run(end.bind(id.to_string())).await?;
        }
        transaction
            .run(self.insert_statement(session, refresh))
            .await?;
        transaction.commit().await?;
        self.prune_ended(&session.user).await?;
        Ok(Some(evicted))
    }

    async fn active_sessions(
        &self,
        transaction: &mut Transaction,
        session: &Session,
        quota: SessionQuota,
        now: Millis,
    ) -> Result<Vec<SessionId>, Error> {
        let select = self.pool.sql(
            "SELECT id FROM user_sessions WHERE user_id = $1 AND is_active AND expires_at > $2 \
             AND last_activity > $3 AND id <> $4 ORDER BY created_at, id",
        );
        let select = select
            .bind(&session.user)
            .bind(now.cast_signed())
            .bind(quota.used_since.cast_signed())
            .bind(session.id.to_string());
        transaction.run(select).await?.iter().map(read_id).collect()
    }

    fn insert_statement(&self, session: &Session, refresh: &DurableRefreshTokens) -> Statement {
        let sign_in = session.provider.as_deref();
        self.pool
            .sql(
                "INSERT INTO user_sessions (id, user_id, email, name, roles, scopes, device_id, \
                 device_type, device_name, ip_address, user_agent, data, revision, is_active, \
                 last_activity, created_at, expires_at, end_untold, refresh_hash, refresh_until, \
                 refresh_rotated, refresh_reused, provider, provider_subject, provider_sid, \
                 authenticated_at, acr, amr) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
                 $11, $12, $13, TRUE, $14, $14, $15, FALSE, $16, $17, '', FALSE, $18, $19, $20, \
                 $21, $22, $23) \
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(session.id.to_string())
            .bind(&session.user)
            .bind(&session.email)
            .bind(&session.name)
            .bind(encode_list(&session.roles))
            .bind(encode_list(&session.scopes))
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
            .bind(sign_in.map(|sign_in| &*sign_in.provider))
            .bind(sign_in.map(|sign_in| sign_in.subject.as_str()))
            .bind(sign_in.and_then(|sign_in| sign_in.sid.as_deref()))
            .bind(sign_in.map(|sign_in| sign_in.authenticated_at.cast_signed()))
            .bind(sign_in.and_then(|sign_in| sign_in.acr.as_deref()))
            .bind(sign_in.map(|sign_in| encode_list(&sign_in.amr)))
    }

    /// Reads one session, whatever its status.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn session(&self, id: SessionId) -> Result<Option<DurableSession>, Error> {
        let select = self
            .pool
            .sql(AssertSqlSafe(format!("{COLUMNS}WHERE id = $1")));
        let rows = self.pool.read(select.bind(id.to_string())).await?;
        rows.first().map(read_session).transpose()
    }

    /// Reads up to a thousand sessions of a user, newest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn user_sessions(&self, user: &str) -> Result<Vec<DurableSession>, Error> {
        let select = self.pool.sql(AssertSqlSafe(format!(
            "{COLUMNS}WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2"
        )));
        let rows = self.pool.read(select.bind(user).bind(MAX_LISTED)).await?;
        rows.iter().map(read_session).collect()
    }

    /// Ends a session; returns whether it was active.
    ///
    /// A session without a use since `used_since`, or past its expiry, stays expired.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_session(
        &self,
        id: SessionId,
        reason: EndReason,
        used_since: Millis,
        now: Millis,
    ) -> Result<bool, Error> {
        let end = self.end_statement(
            "id = $3 AND last_activity > $4 AND expires_at > $5",
            reason,
            now,
        );
        let end = end
            .bind(id.to_string())
            .bind(used_since.cast_signed())
            .bind(now.cast_signed());
        let ended = self.pool.write(end).await?;
        let Some(user) = ended.first() else {
            return Ok(false);
        };
        self.prune_ended(&user.get::<String, _>("user_id")?).await?;
        Ok(true)
    }

    /// Ends all sessions of a user but one; returns those that were active.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end_user_sessions(
        &self,
        user: &str,
        except: Option<SessionId>,
        reason: EndReason,
        used_since: Millis,
        now: Millis,
    ) -> Result<Vec<SessionId>, Error> {
        let end = self.end_statement(
            "user_id = $3 AND id <> $4 AND last_activity > $5 AND expires_at > $6",
            reason,
            now,
        );
        let end = end
            .bind(user)
            .bind(except.map(|id| id.to_string()).unwrap_or_default())
            .bind(used_since.cast_signed())
            .bind(now.cast_signed());
        let ended = self.pool.write(end).await?;
        let ended: Vec<SessionId> = ended.iter().map(read_id).collect::<Result<_, _>>()?;
        self.prune_ended(user).await?;
        Ok(ended)
    }

    /// The statement that ends the active sessions that meet a condition.
    fn end_statement(&self, condition: &'static str, reason: EndReason, now: Millis) -> Statement {
        let text = format!(
            "UPDATE user_sessions SET is_active = FALSE, ended_at = $1, ended_reason = $2, \
             end_untold = TRUE, provider_tokens = NULL WHERE is_active AND {condition} RETURNING id, user_id"
        );
        self.pool
            .sql(AssertSqlSafe(text))
            .bind(now.cast_signed())
            .bind(reason.as_str())
    }

    /// Deletes a user's ended sessions beyond [`MAX_ENDED_PER_USER`]; those that ended first go first.
    async fn prune_ended(&self, user: &str) -> Result<(), Error> {
        let delete = self.pool.sql(
            "DELETE FROM user_sessions WHERE user_id = $1 AND NOT is_active AND NOT end_untold \
             AND id NOT IN (SELECT id FROM user_sessions WHERE user_id = $1 AND NOT is_active \
             ORDER BY ended_at DESC, id LIMIT $2)",
        );
        self.pool
            .write(delete.bind(user).bind(MAX_ENDED_PER_USER))
            .await?;
        Ok(())
    }

    /// Writes the device name and `data` of a session.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn update_session(&self, session: &Session) -> Result<(), Error> {
        let update = self.pool.sql(
            "UPDATE user_sessions SET device_name = $1, data = $2, revision = revision + 1 \
             WHERE id = $3 AND is_active",
        );
        let update = update
            .bind(&session.device.name)
            .bind(&session.data)
            .bind(session.id.to_string());
        self.pool.write(update).await?;
        Ok(())
    }

    /// Replaces refresh tokens, unless they have changed since they were read; returns whether it did.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn rotate_refresh(
        &self,
        id: SessionId,
        before: &DurableRefreshTokens,
        after: &DurableRefreshTokens,
    ) -> Result<bool, Error> {
        let update = self.pool.sql(
            "UPDATE user_sessions SET refresh_hash = $1, refresh_until = $2, refresh_rotated = $3, \
             refresh_reused = $4 WHERE id = $5 AND refresh_hash = $6 AND refresh_reused = $7 \
             AND is_active RETURNING id",
        );
        let update = update
            .bind(hex::encode(after.current))
            .bind(after.until.cast_signed())
            .bind(encode_rotated(&after.rotated))
            .bind(after.reused)
            .bind(id.to_string())
            .bind(hex::encode(before.current))
            .bind(before.reused);
        Ok(!self.pool.write(update).await?.is_empty())
    }
}
