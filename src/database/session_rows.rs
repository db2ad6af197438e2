//! How durable sessions are written to and read from rows.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::sql::Row;
use super::{DurableRefreshTokens, DurableSession, Error};
use crate::auth::provider_sign_in::ProviderSignIn;
use crate::auth::session::{Device, EndReason, Millis, Session, SessionEnd, SessionId, no_data};

pub(super) const COLUMNS: &str = "SELECT id, user_id, email, name, roles, scopes, device_type, \
    device_name, ip_address, user_agent, data, revision, last_activity, created_at, expires_at, \
    ended_at, ended_reason, refresh_hash, refresh_until, refresh_rotated, refresh_reused, \
    provider, provider_subject, provider_sid, authenticated_at, acr, amr, \
    (SELECT username FROM users WHERE users.id = user_sessions.user_id) AS username \
    FROM user_sessions ";

/// Identifies a user's device by its type, name and user agent.
pub(super) fn device_id(session: &Session) -> String {
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
    SessionId::parse(&id).ok_or(Error::UnreadableSession(id))
}

fn read_end(row: &Row) -> Result<Option<SessionEnd>, Error> {
    let at: Option<i64> = row.get("ended_at")?;
    let reason: Option<String> = row.get("ended_reason")?;
    let reason = reason.and_then(|reason| EndReason::parse(&reason));
    Ok(at.map(|at| SessionEnd {
        at: at.cast_unsigned(),
        // An end with an unknown reason is still an end.
        reason: reason.unwrap_or(EndReason::Terminated),
    }))
}

/// Decodes a row of [`COLUMNS`].
pub(super) fn read_session(row: &Row) -> Result<DurableSession, Error> {
    let id = read_id(row)?;
    let unreadable = || Error::UnreadableSession(id.to_string());
    let time =
        |column: &str| -> Result<Millis, Error> { Ok(row.get::<i64, _>(column)?.cast_unsigned()) };
    let list = |column: &str| -> Result<Arc<[String]>, Error> {
        serde_json::from_str(&row.get::<String, _>(column)?).map_err(|_| unreadable())
    };
    let text = |column: &str| -> Result<Option<Arc<str>>, Error> {
        Ok(row.get::<Option<String>, _>(column)?.map(Into::into))
    };
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
        ip: ip.parse().map_err(|_| unreadable())?,
        user_agent: text("user_agent")?.unwrap_or_default(),
        device: Device {
            kind: text("device_type")?,
            name: text("device_name")?,
        },
        ended: read_end(row)?,
        data: text("data")?.unwrap_or_else(no_data),
        revision: time("revision")?,
        provider: read_provider(row)?.map(Arc::new),
        api_key: None,
    };
    Ok(DurableSession {
        session,
        last_activity: time("last_activity")?,
        refresh: DurableRefreshTokens {
            current: decode_hash(&current).ok_or_else(unreadable)?,
            until: time("refresh_until")?,
            rotated: decode_rotated(&rotated).ok_or_else(unreadable)?,
            reused: row.get("refresh_reused")?,
        },
    })
}

fn read_provider(row: &Row) -> Result<Option<ProviderSignIn>, Error> {
    let Some(provider) = row.get::<Option<String>, _>("provider")? else {
        return Ok(None);
    };
    let id = read_id(row)?;
    let unreadable = || Error::UnreadableSession(id.to_string());
    let text = |column: &str| row.get::<Option<String>, _>(column);
    let amr = text("amr")?.ok_or_else(unreadable)?;
    let authenticated_at: Option<i64> = row.get("authenticated_at")?;
    Ok(Some(ProviderSignIn {
        provider: provider.into(),
        subject: text("provider_subject")?.ok_or_else(unreadable)?,
        sid: text("provider_sid")?,
        authenticated_at: authenticated_at.ok_or_else(unreadable)?.cast_unsigned(),
        acr: text("acr")?.map(Into::into),
        amr: serde_json::from_str(&amr).map_err(|_| unreadable())?,
    }))
}

fn decode_hash(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

pub(super) fn encode_rotated(rotated: &[([u8; 32], Millis)]) -> String {
    let encode = |(hash, at): &([u8; 32], Millis)| format!("{} {at} ", hex::encode(hash));
    rotated.iter().map(encode).collect()
}

fn decode_rotated(text: &str) -> Option<Vec<([u8; 32], Millis)>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.chunks(2).map(|pair| match pair {
        [hash, at] => Some((decode_hash(hash)?, at.parse().ok()?)),
        _ => None,
    });
    pairs.collect()
}
