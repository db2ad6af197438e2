#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn at(host: &str, port: u16) -> RedisNode {
    RedisNode {
        host: host.to_owned(),
        port,
    }
}

#[test]
fn key_slots_match_the_specification() {
    for (key, expected) in [
        ("123456789", 0x31c3),
        ("foo", 12_182),
        ("a{foo}b", 12_182),
        ("{foo}{bar}", 12_182),
        ("a{}foo", slot(b"a{}foo")),
        ("", 0),
    ] {
        assert_eq!(slot(key.as_bytes()), expected, "{key}");
    }
    assert_ne!(slot(b"a{}foo"), slot(b"foo"));
}

#[test]
fn first_key_determines_the_slot() {
    let slot_of = |words: &[&str]| {
        let mut command = Cmd::new();
        command.arg(words);
        slot_of(&command)
    };
    let foo = Some(12_182);
    for (words, expected) in [
        (&["GET", "foo"][..], foo),
        (&["SET", "foo", "bar"], foo),
        (&["EVALSHA", "abc", "1", "foo", "x"], foo),
        (&["TIME"], None),
        (&["SCAN", "foo"], None),
    ] {
        assert_eq!(slot_of(words), expected, "{words:?}");
    }
}

fn row(first: i64, last: i64, host: Value, port: i64) -> Value {
    let server = |host, port| Value::Array(vec![host, Value::Int(port)]);
    let replica = server(Value::BulkString(b"replica".to_vec()), 1);
    Value::Array(vec![
        Value::Int(first),
        Value::Int(last),
        server(host, port),
        replica,
    ])
}

#[test]
fn slot_map_finds_the_owner() {
    let b = || Value::BulkString(b"b".to_vec());
    let reply = Value::Array(vec![
        row(10_000, 16_383, b(), 2),
        row(0, 4_999, Value::Nil, 1),
        row(5_000, 5_009, b(), 2),
    ]);
    let map = SlotMap::parse(reply, &at("queried", 9)).unwrap();
    assert_eq!(map.masters(), [at("queried", 1), at("b", 2)]);
    for (slot, expected) in [
        (0, Some(at("queried", 1))),
        (4_999, Some(at("queried", 1))),
        (5_000, Some(at("b", 2))),
        (5_010, None),
        (9_999, None),
        (16_383, Some(at("b", 2))),
    ] {
        assert_eq!(map.owner(slot), expected.as_ref(), "{slot}");
    }
    assert!(!map.is_complete());
    let whole = Value::Array(vec![row(0, 16_383, b(), 2)]);
    assert!(
        SlotMap::parse(whole, &at("queried", 9))
            .unwrap()
            .is_complete()
    );
    for broken in [Value::Nil, Value::Array(vec![]), Value::Array(vec![b()])] {
        assert_eq!(SlotMap::parse(broken, &at("queried", 9)), None);
    }
}

#[test]
fn redirect_addresses_are_parsed() {
    for (text, expected) in [
        ("10.0.0.1:7000", Some(at("10.0.0.1", 7000))),
        ("::1:7000", Some(at("::1", 7000))),
        ("redis.test:7000", Some(at("redis.test", 7000))),
        (":7000", Some(at("queried", 7000))),
        ("redis.test", None),
        ("redis.test:x", None),
    ] {
        assert_eq!(parse_node(text, &at("queried", 9)), expected, "{text}");
    }
}
