//! A session's record as one string: numbers, the lengths of its texts, the texts. What gateways
//! remember is all of it; how the session is used has a key of its own (see `activity`), so that use
//! touches nothing that they remember. `scripts/record.lua` reads and writes the same.

use std::borrow::Cow;
use std::net::IpAddr;

use redis::Value;

use super::alike::Alike;
use super::names::{list, user, user_id};
use crate::auth::session::{Device, EndReason, Ended, Millis, Session, SessionId, no_data};

/// What a record begins with.
const TAG: u8 = b'S';
/// What a mark begins with: a session that was ended before it was written.
const MARK: u8 = b'E';
/// Which texts are there, for those of which an empty one is something else than none.
const NAME: u8 = 1;
const KIND: u8 = 2;
const DEVICE: u8 = 4;
/// How many texts there are.
const TEXTS: usize = 10;

/// What a session's key was found to hold.
pub(super) enum Reading {
    Missing,
    /// Another type, or content that is not understood.
    Malformed,
    There(Box<Session>),
}

/// Writes a session. `None`: a text is longer than 65,535 bytes.
pub(super) fn write(session: &Session) -> Option<Vec<u8>> {
    let ended = session.ended;
    let user = user(&session.user);
    let (roles, scopes) = (list(&session.roles), list(&session.scopes));
    let data = Some(&*session.data).filter(|data| *data != &*no_data());
    let name = names_text(session);
    let name = name.as_deref();
    let (kind, device) = (
        session.device.kind.as_deref(),
        session.device.name.as_deref(),
    );
    let ip = octets(session.ip);
    let texts: [&[u8]; TEXTS] = [
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
    record.push(TAG);
    record.extend(six(session.created_at));
    record.extend(six(session.expires_at));
    record.extend(six(ended.map_or(0, |ended| ended.at.max(1))));
    record.push(ended.map_or(0, |ended| reason_code(ended.reason)));
    let revision = u32::try_from(session.revision).unwrap_or(u32::MAX);
    record.extend(revision.to_le_bytes());
    for text in texts {
        record.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    }
    let flag = |text: Option<&str>, flag| if text.is_some() { flag } else { 0 };
    record.push(flag(name, NAME) | flag(kind, KIND) | flag(device, DEVICE));
    for text in texts {
        record.extend(text);
    }
    Some(record)
}

/// The display name and, after a NUL, the username where there is one. It has no text of its own, so
/// that gateways of an earlier version read the record too. No display name has a NUL.
fn names_text(session: &Session) -> Option<Cow<'_, str>> {
    let name = session.name.as_deref();
    match &session.username {
        None => name.map(Cow::Borrowed),
        Some(username) => Some(format!("{}\0{username}", name.unwrap_or_default()).into()),
    }
}

/// Reads the answer to a `GET`.
pub(super) fn read(id: SessionId, reply: &Value, alike: &Alike) -> Reading {
    let record = match reply {
        Value::Nil => return Reading::Missing,
        Value::BulkString(record) => record,
        _ => return Reading::Malformed,
    };
    of(id, record, alike)
}

/// Reads what a session's key holds.
pub(super) fn of(id: SessionId, record: &[u8], alike: &Alike) -> Reading {
    if record.first() == Some(&MARK) {
        return Reading::Missing;
    }
    match parse(id, record, alike) {
        Some(session) => Reading::There(Box::new(session)),
        None => Reading::Malformed,
    }
}

/// How an end reason is written: 0 is none.
pub(super) fn reason_code(reason: EndReason) -> u8 {
    let place = EndReason::ALL.iter().position(|known| *known == reason);
    place.map_or(0, |place| u8::try_from(place + 1).unwrap_or(0))
}

/// An address as 4 or 16 bytes.
pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A record taken apart.
struct Parts<'a> {
    created_at: Millis,
    expires_at: Millis,
    ended_at: Millis,
    reason: u64,
    revision: u64,
    flags: u8,
    texts: [Reader<'a>; TEXTS],
}

fn parse(id: SessionId, record: &[u8], alike: &Alike) -> Option<Session> {
    let parts = take_apart(record)?;
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
    let is_there = |flag| parts.flags & flag != 0;
    let shared = |text: Reader<'_>| Some(alike.text(text.text()?));
    let owned = |text: Reader<'_>| text.text().map(str::to_owned);
    let (name, username) = match name.text()?.split_once('\0') {
        Some((name, username)) => (Some(name).filter(|name| !name.is_empty()), Some(username)),
        None => (name.text().filter(|_| is_there(NAME)), None),
    };
    Some(Session {
        id,
        user: user_id(user.0)?,
        email: owned(email)?,
        username: username.map(Into::into),
        name: name.map(str::to_owned),
        roles: alike.names(roles.text()?)?,
        scopes: alike.names(scopes.text()?)?,
        created_at: parts.created_at,
        expires_at: parts.expires_at,
        ip: address(ip.0)?,
        user_agent: shared(agent)?,
        device: Device {
            kind: if is_there(KIND) {
                Some(shared(kind)?)
            } else {
                None
            },
            name: if is_there(DEVICE) {
                Some(shared(device)?)
            } else {
                None
            },
        },
        ended: (parts.ended_at > 0).then(|| ended(parts.ended_at, parts.reason)),
        data: match data.text()? {
            "" => alike.text(&no_data()),
            data => data.into(),
        },
        revision: parts.revision,
    })
}

fn take_apart(record: &[u8]) -> Option<Parts<'_>> {
    let mut reader = Reader(record);
    if reader.take(1)? != [TAG] {
        return None;
    }
    let mut parts = Parts {
        created_at: reader.number(6)?,
        expires_at: reader.number(6)?,
        ended_at: reader.number(6)?,
        reason: reader.number(1)?,
        revision: reader.number(4)?,
        flags: 0,
        texts: [Reader(&[]); TEXTS],
    };
    let mut lengths = [0; TEXTS];
    for length in &mut lengths {
        *length = usize::try_from(reader.number(2)?).ok()?;
    }
    parts.flags = reader.take(1)?.first().copied()?;
    for (text, length) in parts.texts.iter_mut().zip(lengths) {
        *text = Reader(reader.take(length)?);
    }
    reader.0.is_empty().then_some(parts)
}

/// An end whose reason is not understood is still an end.
fn ended(at: Millis, reason: u64) -> Ended {
    let place = usize::try_from(reason).unwrap_or(0).wrapping_sub(1);
    let reason = EndReason::ALL.get(place).copied();
    Ended {
        at,
        reason: reason.unwrap_or(EndReason::Terminated),
    }
}

pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

/// A moment in six bytes, the lowest first; they reach for some thousand years.
pub(super) fn six(number: Millis) -> [u8; 6] {
    const LATEST: Millis = (1 << 48) - 1;
    let [a, b, c, d, e, f, _, _] = number.min(LATEST).to_le_bytes();
    [a, b, c, d, e, f]
}

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn number(&mut self, length: usize) -> Option<u64> {
        let bytes = self.take(length)?.iter().rev();
        Some(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn session() -> Session {
        Session {
            id: SessionId([7; 32]),
            user: "u\0ser".to_owned(),
            email: "ann@example.com".to_owned(),
            username: None,
            name: Some(String::new()),
            roles: ["admin".to_owned(), "a\nb".to_owned()].into(),
            scopes: [].into(),
            created_at: 1_700_000_000_123,
            expires_at: 1_800_000_000_456,
            ip: "2001:db8::1".parse().unwrap(),
            user_agent: "Ünïcode".into(),
            device: Device {
                kind: None,
                name: Some("Ann's".into()),
            },
            ended: None,
            data: no_data(),
            revision: 3,
        }
    }

    fn back(record: &[u8]) -> Option<Session> {
        match of(SessionId([7; 32]), record, &Alike::default()) {
            Reading::There(session) => Some(*session),
            Reading::Missing | Reading::Malformed => None,
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let mut written = session();
        assert_eq!(back(&write(&written).unwrap()).unwrap(), written);
        written.username = Some("ann".into());
        for name in [None, Some("Ann".to_owned())] {
            written.name = name;
            assert_eq!(back(&write(&written).unwrap()).unwrap(), written);
        }
        written.data = r#"{"a":1}"#.into();
        written.ip = "192.0.2.1".parse().unwrap();
        for reason in EndReason::ALL {
            written.ended = Some(Ended { at: 5, reason });
            assert_eq!(back(&write(&written).unwrap()).unwrap(), written);
        }
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_not_understood() {
        let record = write(&session()).unwrap();
        for length in 0..record.len() {
            assert_eq!(back(&record[..length]), None, "{length}");
        }
        let mut longer = record;
        longer.push(0);
        assert_eq!(back(&longer), None);
    }

    #[test]
    fn a_text_that_is_too_long_is_not_written() {
        let long = Session {
            user_agent: "x".repeat(65_536).into(),
            ..session()
        };
        assert!(write(&long).is_none());
    }
}
