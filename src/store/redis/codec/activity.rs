//! Session use as one string: latest use, requests, addresses, refresh tokens.
//!
//! `scripts/use.lua` reads and writes the same format.

use std::net::IpAddr;

use redis::Value;

use super::record::{ByteReader, decode_address, encode_millis};
use crate::auth::session::Activity;
use crate::store::InitialRefreshToken;

/// Encodes the use of a new session.
pub(in crate::store::redis) fn encode_new(grant: Option<InitialRefreshToken>) -> Vec<u8> {
    let mut encoded = vec![0; 13];
    if let Some(grant) = grant {
        // Expiry of the current token, that none was reused, hash of the current token.
        encoded.extend(encode_millis(grant.until));
        encoded.push(0);
        encoded.extend(half_hash(&grant.hash));
    }
    encoded
}

/// Decodes the reply to a `GET`; a missing key is no use. `None`: another type or malformed content.
pub(in crate::store::redis) fn decode(reply: &Value) -> Option<Activity> {
    match reply {
        Value::Nil => Some(Activity::default()),
        Value::BulkString(encoded) => parse(encoded).map(|(activity, _)| activity),
        _ => None,
    }
}

/// The stored half of a refresh token's SHA-256: 128 bits cannot be guessed either.
pub(in crate::store::redis) fn half_hash(hash: &[u8; 32]) -> &[u8] {
    hash.split_at(16).0
}

/// The half hash of the current refresh token, if the session has one.
pub(in crate::store::redis) fn current_refresh_hash(reply: &Value) -> Option<Vec<u8>> {
    let Value::BulkString(encoded) = reply else {
        return None;
    };
    let (_, mut refresh) = parse(encoded)?;
    refresh.take(7)?;
    refresh.take(16).map(<[u8]>::to_vec)
}

fn parse(encoded: &[u8]) -> Option<(Activity, ByteReader<'_>)> {
    let mut reader = ByteReader(encoded);
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

/// Parses addresses, each with its length in front, up to the first malformed one.
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
        let reply = |grant| Value::BulkString(encode_new(grant));
        assert_eq!(current_refresh_hash(&reply(Some(grant))), Some(vec![9; 16]));
        assert_eq!(current_refresh_hash(&reply(None)), None);
        assert_eq!(decode(&reply(Some(grant))), Some(Activity::default()));
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
