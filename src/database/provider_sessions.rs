//! Statements about durable sessions that signed in at a provider.

use sqlx::AssertSqlSafe;

use super::session_rows::{COLUMNS, read_session};
use super::users::encode_list;
use super::{Database, Error};
use crate::auth::provider_logout::ProviderLogout;
use crate::auth::provider_tokens::{PutTokensOutcome, SealedTokens};
use crate::auth::session::{Millis, Session, SessionId};

impl Database {
    /// Reads the sessions that a logout at a provider covers and that have not ended.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn provider_sessions(&self, logout: &ProviderLogout) -> Result<Vec<Session>, Error> {
        let mut sessions = Vec::new();
        for (column, name) in [
            ("provider_sid", &logout.sid),
            ("provider_subject", &logout.subject),
        ] {
            let Some(name) = name else { continue };
            let select = self.pool.sql(AssertSqlSafe(format!(
                "{COLUMNS}WHERE provider = $1 AND {column} = $2 AND is_active"
            )));
            let rows = self.pool.read(select.bind(&logout.provider).bind(name));
            for row in &rows.await? {
                sessions.push(read_session(row)?.session);
            }
        }
        sessions.retain(|session: &Session| {
            let sign_in = session.provider.as_ref();
            sign_in.is_some_and(|sign_in| logout.covers(sign_in))
        });
        sessions.sort_unstable_by_key(|session| session.id);
        sessions.dedup_by_key(|session| session.id);
        Ok(sessions)
    }

    /// Reads the provider tokens of a session that has not ended; the outer `None`: it has no row.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn provider_tokens(
        &self,
        id: SessionId,
    ) -> Result<Option<Option<SealedTokens>>, Error> {
        let select = self.pool.sql(
            "SELECT provider_tokens, provider_tokens_version FROM user_sessions WHERE id = $1",
        );
        let rows = self.pool.read(select.bind(id.to_string())).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let version: i64 = row.get("provider_tokens_version")?;
        let sealed: Option<Vec<u8>> = row.get("provider_tokens")?;
        Ok(Some(sealed.map(|sealed| SealedTokens {
            version: version.cast_unsigned(),
            sealed: sealed.into(),
        })))
    }

    /// Writes provider tokens whose predecessor is this one's previous version; `None`: the session
    /// has no row.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn put_provider_tokens(
        &self,
        id: SessionId,
        tokens: &SealedTokens,
        now: Millis,
    ) -> Result<Option<PutTokensOutcome>, Error> {
        let update = self.pool.sql(
            "UPDATE user_sessions SET provider_tokens = $1, provider_tokens_version = $2 \
             WHERE id = $3 AND is_active AND expires_at > $4 AND provider_tokens_version = $2 - 1 \
             RETURNING id",
        );
        let update = update
            .bind(tokens.sealed.to_vec())
            .bind(tokens.version.cast_signed())
            .bind(id.to_string())
            .bind(now.cast_signed());
        if !self.pool.write(update).await?.is_empty() {
            return Ok(Some(PutTokensOutcome::Written));
        }
        let select = self.pool.sql(
            "SELECT is_active AND expires_at > $1 AS is_alive FROM user_sessions WHERE id = $2",
        );
        let select = select.bind(now.cast_signed()).bind(id.to_string());
        let rows = self.pool.read(select).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(match row.get("is_alive")? {
            true => PutTokensOutcome::Changed,
            false => PutTokensOutcome::Gone,
        }))
    }

    /// Replaces the user's data in one active session.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn set_session_identity(
        &self,
        id: SessionId,
        email: &str,
        name: Option<&str>,
        roles: &[String],
        scopes: &[String],
    ) -> Result<(), Error> {
        let update = self.pool.sql(
            "UPDATE user_sessions SET email = $1, name = $2, roles = $3, scopes = $4, \
             revision = revision + 1 WHERE id = $5 AND is_active",
        );
        let update = update
            .bind(email)
            .bind(name)
            .bind(encode_list(roles))
            .bind(encode_list(scopes))
            .bind(id.to_string());
        self.pool.write(update).await?;
        Ok(())
    }
}
