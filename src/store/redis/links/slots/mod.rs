//! Which slot of a cluster a key is in, and which server has the slot.

use redis::{Arg, Cmd, Value};

use crate::settings::RedisNode;

pub(in crate::store::redis) const SLOTS: u16 = 16_384;
/// Commands that name no key first.
const KEYLESS_COMMANDS: [&str; 6] = ["TIME", "SCAN", "PING", "ROLE", "CLUSTER", "SCRIPT"];

/// The masters of a cluster and the slots that they have.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::redis) struct SlotMap {
    /// In the order of their first slots, which a failover does not change.
    masters: Vec<RedisNode>,
    /// First and last slot, and the place of their master; in order.
    ranges: Vec<(u16, u16, usize)>,
}

/// Where else a question belongs, as a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::redis) enum Redirect {
    /// For good.
    Moved(RedisNode),
    /// This question only: the slot is on its way there.
    Ask(RedisNode),
    /// The keys are on both sides at the moment.
    TryAgain,
}

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS`; a server that does not name its host is the one that was
    /// asked.
    pub(in crate::store::redis) fn parse(reply: Value, asked: &RedisNode) -> Option<SlotMap> {
        let Value::Array(rows) = reply else {
            return None;
        };
        let mut found: Vec<(u16, u16, RedisNode)> = rows
            .into_iter()
            .map(|row| parse_range(row, asked))
            .collect::<Option<_>>()?;
        found.sort_by_key(|(first, ..)| *first);
        let mut map = SlotMap {
            masters: Vec::new(),
            ranges: Vec::new(),
        };
        for (first, last, master) in found {
            let place = map.masters.iter().position(|known| *known == master);
            let place = place.unwrap_or(map.masters.len());
            if place == map.masters.len() {
                map.masters.push(master);
            }
            map.ranges.push((first, last, place));
        }
        (!map.masters.is_empty()).then_some(map)
    }

    pub(in crate::store::redis) fn masters(&self) -> &[RedisNode] {
        &self.masters
    }

    /// The same, with one more that has no slot yet.
    pub(in crate::store::redis) fn with_master(&self, master: &RedisNode) -> SlotMap {
        let mut masters = self.masters.clone();
        masters.push(master.clone());
        SlotMap {
            masters,
            ranges: self.ranges.clone(),
        }
    }

    /// Whether each slot has a master.
    pub(in crate::store::redis) fn is_complete(&self) -> bool {
        (0..SLOTS).all(|slot| self.owner(slot).is_some())
    }

    /// `None`: nobody has this slot.
    pub(in crate::store::redis) fn owner(&self, slot: u16) -> Option<&RedisNode> {
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, place) = self.ranges.get(after.checked_sub(1)?)?;
        self.masters.get(*place).filter(|_| slot <= *last)
    }
}

fn parse_range(row: Value, asked: &RedisNode) -> Option<(u16, u16, RedisNode)> {
    let Value::Array(parts) = row else {
        return None;
    };
    let [first, last, master, ..] = parts.as_slice() else {
        return None;
    };
    let number = |value: &Value| match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let Value::Array(master) = master else {
        return None;
    };
    let host = match master.first()? {
        Value::Nil => String::new(),
        host => redis::from_redis_value_ref(host).ok()?,
    };
    let master = RedisNode {
        host: if host.is_empty() {
            asked.host.clone()
        } else {
            host
        },
        port: number(master.get(1)?)?,
    };
    Some((number(first)?, number(last)?, master))
}

/// The slot of the first key that a command names; all of its keys are in one slot.
pub(in crate::store::redis) fn slot_of(command: &Cmd) -> Option<u16> {
    let simple = |place: usize| match command.args_iter().nth(place) {
        Some(Arg::Simple(argument)) => Some(argument),
        _ => None,
    };
    let name = simple(0)?;
    if KEYLESS_COMMANDS
        .iter()
        .any(|keyless| name.eq_ignore_ascii_case(keyless.as_bytes()))
    {
        return None;
    }
    // EVALSHA has the script's hash and the number of keys first.
    let first = if name.eq_ignore_ascii_case(b"EVALSHA") {
        3
    } else {
        1
    };
    simple(first).map(slot)
}

/// CRC-16 (XMODEM) of what is between the first braces, if there is anything, or of the whole key, as
/// the cluster specification says.
pub(in crate::store::redis) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    };
    crc16(tag().unwrap_or(key)) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            }
        })
    })
}

/// Whether an answer sends the question elsewhere.
pub(in crate::store::redis) fn parse_redirect(
    reply: &Value,
    asked: &RedisNode,
) -> Option<Redirect> {
    let Value::ServerError(error) = reply else {
        return None;
    };
    let elsewhere = || parse_node(error.details()?.split(' ').nth(1)?, asked);
    match error.code() {
        "MOVED" => elsewhere().map(Redirect::Moved),
        "ASK" => elsewhere().map(Redirect::Ask),
        "TRYAGAIN" => Some(Redirect::TryAgain),
        _ => None,
    }
}

/// Reads `<host>:<port>`, of an IPv6 address without brackets too; without host it is the one that
/// was asked.
fn parse_node(text: &str, asked: &RedisNode) -> Option<RedisNode> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(RedisNode {
        host: if host.is_empty() {
            asked.host.clone()
        } else {
            host.to_owned()
        },
        port: port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests;
