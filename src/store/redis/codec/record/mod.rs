//! Session record as one string: numbers, the lengths of its texts, the texts, and as JSON for sessions of
//! a provider their sign-in, for API keys what decides about them.
//!
//! Gateways cache the record. The session's use has its own key (see `activity`), so that a use does
//! not invalidate the record. `scripts/record.lua` reads and writes the same format.

use std::borrow::Cow;
use std::net::IpAddr;

use redis::Value;

use super::interner::Interner;
use super::text_codec::{decode_user_id, encode_list, encode_user_id};
use crate::auth::session::{Device, EndReason, Millis, Session, SessionEnd, SessionId, no_data};

/// First byte of a record.
const RECORD_TAG: u8 = b'S';
/// First byte of a tombstone: the session was ended before it was written.
const TOMBSTONE_TAG: u8 = b'E';
/// Flags of texts for which an empty one differs from an absent one.
const HAS_NAME: u8 = 1;
const HAS_KIND: u8 = 2;
const HAS_DEVICE: u8 = 4;
/// The record ends with the sign-in at a provider. Others are as they were before there were providers.
const HAS_PROVIDER: u8 = 8;
/// The record is that of an API key, and ends with what decides about it.
const HAS_API_KEY: u8 = 16;
/// Maximum length of a text, and of that JSON.
pub(in crate::store::redis) const MAX_TEXT: usize = u16::MAX as usize;
/// Number of texts.
const TEXT_COUNT: usize = 10;

/// Decoded content of a session's key.
pub(in crate::store::redis) enum DecodedRecord {
    Missing,
    /// The key has another type or malformed content.
    Malformed,
    Present(Box<Session>),
}

/// Encodes a session; `None`: a text is longer than 65,535 bytes.
pub(in crate::store::redis) fn encode(session: &Session) -> Option<Vec<u8>> {
    let ended = session.ended;
    let user = encode_user_id(&session.user);
    let (roles, scopes) = (encode_list(&session.roles), encode_list(&session.scopes));
    let data = Some(&*session.data).filter(|data| *data != &*no_data());
    let name = encode_names(session);
    let name = name.as_deref();
    let (kind, device) = (
        session.device.kind.as_deref(),
        session.device.name.as_deref(),
    );
    let ip = encode_address(session.ip);
    let texts: [&[u8]; TEXT_COUNT] = [
        &user,
        session.email.as_bytes(),
        name.unwrap_or_default().as_bytes(),
        roles.as_bytes(),
        scopes.as_bytes(),
        &ip,
        session.user_agent.as_bytes(),
        kind.unwrap_or_default().as_bytes(),
        device.unwrap_or_default().as_bytes(),
        data.unwrap_or_default().as_bytes(),
    ];
    let mut record = Vec::with_capacity(512);
    record.push(RECORD_TAG);
    record.extend(encode_millis(session.created_at));
    record.extend(encode_millis(session.expires_at));
    record.extend(encode_millis(ended.map_or(0, |ended| ended.at.max(1))));
    record.push(ended.map_or(0, |ended| reason_code(ended.reason)));
    let revision = u32::try_from(session.revision).unwrap_or(u32::MAX);
    record.extend(revision.to_le_bytes());
    for text in texts {
        record.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    }
    let flag = |text: Option<&str>, flag| if text.is_some() { flag } else { 0 };
    let (origin_flag, origin) = encode_origin(session)?;
    record
        .push(flag(name, HAS_NAME) | flag(kind, HAS_KIND) | flag(device, HAS_DEVICE) | origin_flag);
    for text in texts {
        record.extend(text);
    }
    record.extend(origin);
    Some(record)
}

/// Encodes the display name and, after a NUL, the username if there is one.
///
/// The username has no text of its own, so that gateways of an earlier version can read the record.
/// Display names contain no NUL.
fn encode_names(session: &Session) -> Option<Cow<'_, str>> {
    let name = session.name.as_deref();
    match &session.username {
        None => name.map(Cow::Borrowed),
        Some(username) => Some(format!("{}\0{username}", name.unwrap_or_default()).into()),
    }
}

/// Encodes the sign-in at a provider, or what decides about an API key, with its flag; empty: there is
/// neither. `None`: it is too long.
fn encode_origin(session: &Session) -> Option<(u8, Vec<u8>)> {
    let (flag, encoded) = match (&session.provider, &session.api_key) {
        (None, None) => return Some((0, Vec::new())),
        (_, Some(grant)) => (HAS_API_KEY, serde_json::to_vec(grant).ok()?),
        (Some(provider), None) => (HAS_PROVIDER, serde_json::to_vec(provider).ok()?),
    };
    (encoded.len() <= MAX_TEXT).then_some((flag, encoded))
}

/// Decodes the reply to a `GET`.
pub(in crate::store::redis) fn decode_reply(
    id: SessionId,
    reply: &Value,
    interner: &Interner,
) -> DecodedRecord {
    let record = match reply {
        Value::Nil => return DecodedRecord::Missing,
        Value::BulkString(record) => record,
        _ => return DecodedRecord::Malformed,
    };
    decode(id, record, interner)
}

/// Decodes the content of a session's key.
pub(in crate::store::redis) fn decode(
    id: SessionId,
    record: &[u8],
    interner: &Interner,
) -> DecodedRecord {
    if record.first() == Some(&TOMBSTONE_TAG) {
        return DecodedRecord::Missing;
    }
    match parse(id, record, interner) {
        Some(session) => DecodedRecord::Present(Box::new(session)),
        None => DecodedRecord::Malformed,
    }
}

/// Encodes an end reason; 0 is none.
pub(in crate::store::redis) fn reason_code(reason: EndReason) -> u8 {
    let index = EndReason::ALL.iter().position(|listed| *listed == reason);
    index.map_or(0, |index| u8::try_from(index + 1).unwrap_or(0))
}

/// Encodes an address as 4 or 16 bytes.
pub(in crate::store::redis) fn encode_address(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Fields of an encoded record.
struct RecordParts<'a> {
    created_at: Millis,
    expires_at: Millis,
    ended_at: Millis,
    reason: u64,
    revision: u64,
    flags: u8,
    texts: [ByteReader<'a>; TEXT_COUNT],
    /// What follows the texts.
    origin: &'a [u8],
}

fn parse(id: SessionId, record: &[u8], interner: &Interner) -> Option<Session> {
    let parts = split_record(record)?;
    let [
        user,
        email,
        name,
        roles,
        scopes,
        ip,
        agent,
        kind,
        device,
        data,
    ] = parts.texts;
    let is_present = |flag| parts.flags & flag != 0;
    let shared = |text: ByteReader<'_>| Some(interner.intern_text(text.text()?));
    let shared_if = |flag, text| match is_present(flag) {
        true => shared(text).map(Some),
        false => Some(None),
    };
    let owned = |text: ByteReader<'_>| text.text().map(str::to_owned);
    let (name, username) = match name.text()?.split_once('\0') {
        Some((name, username)) => (Some(name).filter(|name| !name.is_empty()), Some(username)),
        None => (name.text().filter(|_| is_present(HAS_NAME)), None),
    };
    Some(Session {
        id,
        user: decode_user_id(user.0)?,
        email: owned(email)?,
        username: username.map(Into::into),
        name: name.map(str::to_owned),
        roles: interner.intern_list(roles.text()?)?,
        scopes: interner.intern_list(scopes.text()?)?,
        created_at: parts.created_at,
        expires_at: parts.expires_at,
        ip: decode_address(ip.0)?,
        user_agent: shared(agent)?,
        device: Device {
            kind: shared_if(HAS_KIND, kind)?,
            name: shared_if(HAS_DEVICE, device)?,
        },
        ended: (parts.ended_at > 0).then(|| decode_end(parts.ended_at, parts.reason)),
        data: match data.text()? {
            "" => interner.intern_text(&no_data()),
            data => data.into(),
        },
        revision: parts.revision,
        provider: match is_present(HAS_PROVIDER) {
            true => Some(serde_json::from_slice(parts.origin).ok()?),
            false => None,
        },
        api_key: match is_present(HAS_API_KEY) {
            true => Some(serde_json::from_slice(parts.origin).ok()?),
            false => None,
        },
    })
}

fn split_record(record: &[u8]) -> Option<RecordParts<'_>> {
    let mut reader = ByteReader(record);
    if reader.take(1)? != [RECORD_TAG] {
        return None;
    }
    let mut parts = RecordParts {
        created_at: reader.number(6)?,
        expires_at: reader.number(6)?,
        ended_at: reader.number(6)?,
        reason: reader.number(1)?,
        revision: reader.number(4)?,
        flags: 0,
        texts: [ByteReader(&[]); TEXT_COUNT],
        origin: &[],
    };
    let mut lengths = [0; TEXT_COUNT];
    for length in &mut lengths {
        *length = usize::try_from(reader.number(2)?).ok()?;
    }
    parts.flags = reader.take(1)?.first().copied()?;
    for (text, length) in parts.texts.iter_mut().zip(lengths) {
        *text = ByteReader(reader.take(length)?);
    }
    parts.origin = reader.0;
    let has_origin = parts.flags & (HAS_PROVIDER | HAS_API_KEY) != 0;
    (has_origin != parts.origin.is_empty()).then_some(parts)
}

/// Decodes an end; one with an unknown reason is still an end.
fn decode_end(at: Millis, reason: u64) -> SessionEnd {
    let index = usize::try_from(reason).unwrap_or(0).wrapping_sub(1);
    let reason = EndReason::ALL.get(index).copied();
    SessionEnd {
        at,
        reason: reason.unwrap_or(EndReason::Terminated),
    }
}

pub(in crate::store::redis) fn decode_address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

/// Encodes a time in six bytes, little-endian; they last for some thousand years.
pub(in crate::store::redis) fn encode_millis(time: Millis) -> [u8; 6] {
    const LATEST: Millis = (1 << 48) - 1;
    let [a, b, c, d, e, f, _, _] = time.min(LATEST).to_le_bytes();
    [a, b, c, d, e, f]
}

/// Reader over the remaining bytes.
#[derive(Clone, Copy)]
pub(in crate::store::redis) struct ByteReader<'a>(pub(in crate::store::redis) &'a [u8]);

impl<'a> ByteReader<'a> {
    pub(in crate::store::redis) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(in crate::store::redis) fn number(&mut self, length: usize) -> Option<u64> {
        let bytes = self.take(length)?.iter().rev();
        Some(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }
}

#[cfg(test)]
mod tests;
