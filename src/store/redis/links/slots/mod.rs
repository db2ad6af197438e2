//! Slots of a cluster: the slot of a key, the master of a slot, and redirects.

use redis::{Arg, Cmd, Value};

use crate::settings::RedisNode;

pub(in crate::store::redis) const SLOTS: u16 = 16_384;
/// Commands without a key as their first argument.
const KEYLESS_COMMANDS: [&str; 6] = ["TIME", "SCAN", "PING", "ROLE", "CLUSTER", "SCRIPT"];

/// Masters of a cluster and their slots.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store::redis) struct SlotMap {
    /// In the order of their first slots, which a failover does not change.
    masters: Vec<RedisNode>,
    /// First slot, last slot and index of their master, in order.
    ranges: Vec<(u16, u16, usize)>,
}

/// Redirect in a server's reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::redis) enum Redirect {
    /// The slot has moved.
    Moved(RedisNode),
    /// For this command only: the slot is migrating.
    Ask(RedisNode),
    /// The keys are split between both servers during the migration.
    TryAgain,
}

impl SlotMap {
    /// Parses the reply to `CLUSTER SLOTS`; a server without a host is the queried one.
    pub(in crate::store::redis) fn parse(reply: Value, queried: &RedisNode) -> Option<SlotMap> {
        let Value::Array(rows) = reply else {
            return None;
        };
        let mut ranges: Vec<(u16, u16, RedisNode)> = rows
            .into_iter()
            .map(|row| parse_range(row, queried))
            .collect::<Option<_>>()?;
        ranges.sort_by_key(|(first, ..)| *first);
        let mut map = SlotMap {
            masters: Vec::new(),
            ranges: Vec::new(),
        };
        for (first, last, master) in ranges {
            let index = map.masters.iter().position(|listed| *listed == master);
            let index = index.unwrap_or(map.masters.len());
            if index == map.masters.len() {
                map.masters.push(master);
            }
            map.ranges.push((first, last, index));
        }
        (!map.masters.is_empty()).then_some(map)
    }

    pub(in crate::store::redis) fn masters(&self) -> &[RedisNode] {
        &self.masters
    }

    /// Adds a master that has no slot yet.
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

    /// The master of a slot; `None`: the slot is not covered.
    pub(in crate::store::redis) fn owner(&self, slot: u16) -> Option<&RedisNode> {
        let next = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, index) = self.ranges.get(next.checked_sub(1)?)?;
        self.masters.get(*index).filter(|_| slot <= *last)
    }
}

fn parse_range(row: Value, queried: &RedisNode) -> Option<(u16, u16, RedisNode)> {
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
            queried.host.clone()
        } else {
            host
        },
        port: number(master.get(1)?)?,
    };
    Some((number(first)?, number(last)?, master))
}

/// The slot of a command's first key; all of its keys are in one slot.
pub(in crate::store::redis) fn slot_of(command: &Cmd) -> Option<u16> {
    let argument = |index: usize| match command.args_iter().nth(index) {
        Some(Arg::Simple(argument)) => Some(argument),
        _ => None,
    };
    let name = argument(0)?;
    if KEYLESS_COMMANDS
        .iter()
        .any(|keyless| name.eq_ignore_ascii_case(keyless.as_bytes()))
    {
        return None;
    }
    // EVALSHA has the script's hash and the number of keys before the keys.
    let first_key = if name.eq_ignore_ascii_case(b"EVALSHA") {
        3
    } else {
        1
    };
    argument(first_key).map(slot)
}

/// The slot of a key, as the cluster specification defines it.
///
/// CRC-16 (XMODEM) of the hash tag between the first braces unless it is empty, else of the whole key.
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

/// Parses a redirect, if the reply is one.
pub(in crate::store::redis) fn parse_redirect(
    reply: &Value,
    queried: &RedisNode,
) -> Option<Redirect> {
    let Value::ServerError(error) = reply else {
        return None;
    };
    let target = || parse_node(error.details()?.split(' ').nth(1)?, queried);
    match error.code() {
        "MOVED" => target().map(Redirect::Moved),
        "ASK" => target().map(Redirect::Ask),
        "TRYAGAIN" => Some(Redirect::TryAgain),
        _ => None,
    }
}

/// Parses `<host>:<port>`, also of an IPv6 address without brackets; without a host, the queried one.
fn parse_node(text: &str, queried: &RedisNode) -> Option<RedisNode> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(RedisNode {
        host: if host.is_empty() {
            queried.host.clone()
        } else {
            host.to_owned()
        },
        port: port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests;
