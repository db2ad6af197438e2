//! How a session is used, as one string beside its record: latest use, requests, the addresses it was
//! used from, its refresh tokens. `scripts/use.lua` reads and writes the same.

use std::net::IpAddr;

use redis::Value;

use super::record::{ByteReader, decode_address, encode_millis};
use crate::auth::session::Activity;
use crate::store::InitialRefreshToken;

/// Writes that of a session which was never used.
pub(in crate::store::redis) fn encode_new(grant: Option<InitialRefreshToken>) -> Vec<u8> {
    let mut used = vec![0; 13];
    if let Some(grant) = grant {
        // When it ends, that none has come back, and the token that is good.
        used.extend(encode_millis(grant.until));
        used.push(0);
        used.extend(half_hash(&grant.hash));
    }
    used
}

/// Reads the answer to a `GET`; no key is no use. `None`: another type, or not understood.
pub(in crate::store::redis) fn decode(reply: &Value) -> Option<Activity> {
    match reply {
        Value::Nil => Some(Activity::default()),
        Value::BulkString(used) => parse(used).map(|(activity, _)| activity),
        _ => None,
    }
}

/// What is kept of a refresh token's SHA-256: half of it is as far beyond guessing, and smaller.
pub(in crate::store::redis) fn half_hash(hash: &[u8; 32]) -> &[u8] {
    hash.split_at(16).0
}

/// The half hash of the refresh token that is good, if the session has one.
pub(in crate::store::redis) fn current_refresh_hash(reply: &Value) -> Option<Vec<u8>> {
    let Value::BulkString(used) = reply else {
        return None;
    };
    let (_, mut refresh) = parse(used)?;
    refresh.take(7)?;
    refresh.take(16).map(<[u8]>::to_vec)
}

fn parse(used: &[u8]) -> Option<(Activity, ByteReader<'_>)> {
    let mut reader = ByteReader(used);
    let (last_access, request_count) = (reader.number(6)?, reader.number(6)?);
    let length = usize::try_from(reader.number(1)?).ok()?;
    let activity = Activity {
        last_access,
        request_count,
        ip_addresses: parse_addresses(ByteReader(reader.take(length)?)),
        live_connections: 0,
    };
    Some((activity, reader))
}

/// Addresses, each with its length in front; what is not understood ends them.
fn parse_addresses(mut list: ByteReader<'_>) -> Vec<IpAddr> {
    let next = || {
        let length = usize::try_from(list.number(1)?).ok()?;
        decode_address(list.take(length)?)
    };
    std::iter::from_fn(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_refresh_hash_is_stored() {
        let grant = InitialRefreshToken {
            hash: [9; 32],
            until: 7,
        };
        let used = |grant| Value::BulkString(encode_new(grant));
        assert_eq!(current_refresh_hash(&used(Some(grant))), Some(vec![9; 16]));
        assert_eq!(current_refresh_hash(&used(None)), None);
        assert_eq!(decode(&used(Some(grant))), Some(Activity::default()));
    }

    #[test]
    fn truncated_activity_is_rejected() {
        let whole = encode_new(None);
        for length in 0..whole.len() {
            let cut = whole.iter().copied().take(length).collect();
            assert_eq!(decode(&Value::BulkString(cut)), None, "{length}");
        }
    }
}
