//! A session as one string: numbers, the lengths of its texts, the texts. One key for the record, its
//! use and its refresh tokens is what keeps a million sessions small, and one step is enough for
//! whatever concerns one session. `scripts/record.lua` reads and writes the same.

use std::net::IpAddr;

use redis::Value;

use super::super::{Entry, Grant};
use super::names::{list, names};
use crate::session::{Activity, Device, EndReason, Ended, Millis, Session, SessionId, no_data};

/// What a record begins with.
const TAG: u8 = b'S';
/// What a mark begins with: a session that was ended before it was written.
const MARK: u8 = b'E';
/// Which texts are there, for those of which an empty one is something else than none.
const NAME: u8 = 1;
const KIND: u8 = 2;
const DEVICE: u8 = 4;
/// How many texts there are.
const TEXTS: usize = 12;

/// What a session's key was found to hold.
pub(super) enum Reading {
    Missing,
    /// Another type, or content that is not understood.
    Malformed,
    There(Box<Entry>),
}

/// Writes a session that was never used. `None`: a text is longer than 65,535 bytes.
pub(super) fn write(session: &Session, grant: Option<Grant>) -> Option<Vec<u8>> {
    let ended = session.ended;
    let (roles, scopes) = (list(&session.roles), list(&session.scopes));
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let data = Some(session.data.as_str()).filter(|data| *data != no_data());
    let (name, kind) = (optional(&session.name), optional(&session.device.kind));
    let device = optional(&session.device.name);
    let ip = octets(session.ip);
    let refresh = grant.map(first_refresh).unwrap_or_default();
    let texts: [&[u8]; TEXTS] = [
        session.user.as_bytes(),
        session.email.as_bytes(),
        name.as_bytes(),
        roles.as_bytes(),
        scopes.as_bytes(),
        &ip,
        session.user_agent.as_bytes(),
        kind.as_bytes(),
        device.as_bytes(),
        data.unwrap_or_default().as_bytes(),
        &[],
        &refresh,
    ];
    let mut record = Vec::with_capacity(512);
    record.push(TAG);
    record.extend(six(session.created_at));
    record.extend(six(session.expires_at));
    record.extend(six(ended.map_or(0, |ended| ended.at.max(1))));
    record.push(ended.map_or(0, |ended| reason_code(ended.reason)));
    let revision = u32::try_from(session.revision).unwrap_or(u32::MAX);
    record.extend(revision.to_le_bytes());
    // Never used: no latest use, no requests.
    record.extend([0; 12]);
    for text in texts {
        record.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    }
    let flag = |text: &Option<String>, flag| if text.is_some() { flag } else { 0 };
    record.push(
        flag(&session.name, NAME)
            | flag(&session.device.kind, KIND)
            | flag(&session.device.name, DEVICE),
    );
    for text in texts {
        record.extend(text);
    }
    Some(record)
}

/// Reads the answer to a `GET`, or the same out of a script's answer.
pub(super) fn read(id: SessionId, reply: &Value) -> Reading {
    let record = match reply {
        Value::Nil => return Reading::Missing,
        Value::BulkString(record) => record,
        _ => return Reading::Malformed,
    };
    if record.first() == Some(&MARK) {
        return Reading::Missing;
    }
    match parse(id, record) {
        Some((entry, _)) => Reading::There(Box::new(entry)),
        None => Reading::Malformed,
    }
}

/// The hash of the refresh token that is good, if the session has one.
pub(super) fn current_refresh(id: SessionId, reply: &Value) -> Option<[u8; 32]> {
    let Value::BulkString(record) = reply else {
        return None;
    };
    let (_, mut refresh) = parse(id, record)?;
    refresh.skip(7)?;
    refresh.take(32)?.try_into().ok()
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
    last_access: Millis,
    request_count: u64,
    flags: u8,
    texts: [Reader<'a>; TEXTS],
}

/// The session's entry, and what it holds of refresh tokens.
fn parse(id: SessionId, record: &[u8]) -> Option<(Entry, Reader<'_>)> {
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
        ips,
        refresh,
    ] = parts.texts;
    let there = |flag, text: Reader<'_>| match parts.flags & flag {
        0 => Some(None),
        _ => text.text().map(Some),
    };
    let session = Session {
        id,
        user: user.text()?,
        email: email.text()?,
        name: there(NAME, name)?,
        roles: names(&roles.text()?)?,
        scopes: names(&scopes.text()?)?,
        created_at: parts.created_at,
        expires_at: parts.expires_at,
        ip: address(ip.0)?,
        user_agent: agent.text()?,
        device: Device {
            kind: there(KIND, kind)?,
            name: there(DEVICE, device)?,
        },
        ended: (parts.ended_at > 0).then(|| ended(parts.ended_at, parts.reason)),
        data: match data.text()? {
            data if data.is_empty() => no_data(),
            data => data,
        },
        revision: parts.revision,
    };
    let activity = Activity {
        last_access: parts.last_access,
        request_count: parts.request_count,
        ip_addresses: addresses(ips),
        live_connections: 0,
    };
    Some((Entry { session, activity }, refresh))
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
        last_access: reader.number(6)?,
        request_count: reader.number(6)?,
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

/// Addresses, each with its length in front; what is not understood ends them.
fn addresses(mut list: Reader<'_>) -> Vec<IpAddr> {
    let next = || {
        let length = usize::try_from(list.number(1)?).ok()?;
        address(list.take(length)?)
    };
    std::iter::from_fn(next).collect()
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

/// When it ends, that none has come back, and the token that is good.
fn first_refresh(grant: Grant) -> Vec<u8> {
    let mut refresh = Vec::with_capacity(39);
    refresh.extend(six(grant.until));
    refresh.push(0);
    refresh.extend(grant.hash);
    refresh
}

/// A moment in six bytes, the lowest first; they reach for some thousand years.
fn six(number: Millis) -> [u8; 6] {
    const LATEST: Millis = (1 << 48) - 1;
    let [a, b, c, d, e, f, _, _] = number.min(LATEST).to_le_bytes();
    [a, b, c, d, e, f]
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(drop)
    }

    fn number(&mut self, length: usize) -> Option<u64> {
        let bytes = self.take(length)?.iter().rev();
        Some(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn text(self) -> Option<String> {
        String::from_utf8(self.0.to_vec()).ok()
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
            name: Some(String::new()),
            roles: vec!["admin".to_owned(), "a\nb".to_owned()],
            scopes: Vec::new(),
            created_at: 1_700_000_000_123,
            expires_at: 1_800_000_000_456,
            ip: "2001:db8::1".parse().unwrap(),
            user_agent: "Ünïcode".to_owned(),
            device: Device {
                kind: None,
                name: Some("Ann's".to_owned()),
            },
            ended: None,
            data: no_data(),
            revision: 3,
        }
    }

    fn back(record: Vec<u8>) -> Option<Session> {
        match read(SessionId([7; 32]), &Value::BulkString(record)) {
            Reading::There(entry) => Some(entry.session),
            Reading::Missing | Reading::Malformed => None,
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let mut written = session();
        assert_eq!(back(write(&written, None).unwrap()).unwrap(), written);
        written.data = r#"{"a":1}"#.to_owned();
        written.ip = "192.0.2.1".parse().unwrap();
        for reason in EndReason::ALL {
            written.ended = Some(Ended { at: 5, reason });
            assert_eq!(back(write(&written, None).unwrap()).unwrap(), written);
        }
    }

    #[test]
    fn the_refresh_token_is_in_it() {
        let grant = Grant {
            hash: [9; 32],
            until: 7,
        };
        let id = SessionId([7; 32]);
        let record = |grant| Value::BulkString(write(&session(), grant).unwrap());
        assert_eq!(current_refresh(id, &record(Some(grant))), Some([9; 32]));
        assert_eq!(current_refresh(id, &record(None)), None);
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_not_understood() {
        let record = write(&session(), None).unwrap();
        for length in 0..record.len() {
            assert_eq!(back(record[..length].to_vec()), None, "{length}");
        }
        let mut longer = record;
        longer.push(0);
        assert_eq!(back(longer), None);
    }

    #[test]
    fn a_text_that_is_too_long_is_not_written() {
        let long = Session {
            user_agent: "x".repeat(65_536),
            ..session()
        };
        assert!(write(&long, None).is_none());
    }
}
