//! JSON parser that rejects duplicate members.
//!
//! Parsers disagree on which duplicate counts (RFC 8259, section 4), so a token or a body with
//! duplicates could have different meanings to different programs.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reason why a text is rejected. It never quotes the text, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, at line {line}, column {column}")]
pub struct ParseError {
    pub reason: &'static str,
    /// From 1; 0 for the whole text.
    pub line: usize,
    pub column: usize,
}

/// Parses one JSON object, without duplicate members at any depth. Up to 127 levels are accepted.
///
/// # Errors
///
/// The text is not such an object.
pub fn parse(bytes: &[u8]) -> Result<Map<String, Value>, ParseError> {
    match parse_value(bytes)? {
        Value::Object(members) => Ok(members),
        _ => Err(ParseError {
            reason: "not a JSON object",
            line: 0,
            column: 0,
        }),
    }
}

/// Parses any JSON value, without duplicate members.
///
/// # Errors
///
/// The text is not such a value.
pub fn parse_value(bytes: &[u8]) -> Result<Value, ParseError> {
    let result = serde_json::from_slice(bytes);
    result
        .map(|StrictValue(value)| value)
        .map_err(|error| ParseError {
            reason: match error.is_data() {
                true => "a member is given twice",
                false => "not JSON",
            },
            line: error.line(),
            column: error.column(),
        })
}

struct StrictValue(Value);

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StrictValue, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(StrictValue)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(StrictValue(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, StrictValue(value))) = members.next_entry()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::parse;

    #[test]
    fn only_objects_without_duplicates_are_accepted() {
        let check = |text: &str, error: Option<&str>| {
            let result = parse(text.as_bytes()).err().map(|error| error.reason);
            assert_eq!(result, error, "{text}");
        };
        check(r#"{"a":1,"b":[null,true,-1,1.5,"x",{"c":{}}]}"#, None);
        check(" {\n} ", None);
        check(r#"{"a":1,"a":1}"#, Some("a member is given twice"));
        check(r#"{"a":1,"\u0061":2}"#, Some("a member is given twice"));
        check(r#"{"a":[{"b":1,"b":2}]}"#, Some("a member is given twice"));
        check("[]", Some("not a JSON object"));
        check("\"a\"", Some("not a JSON object"));
        for text in [
            "",
            "{",
            "{}{}",
            "{} x",
            r#"{"a":1e999}"#,
            r#"{"a":"\ud800"}"#,
            "\u{feff}{}",
        ] {
            check(text, Some("not JSON"));
        }
        check(&("[".repeat(100_000)), Some("not JSON"));
        assert_eq!(parse(b"{\"a\":\"\xff\"}").unwrap_err().reason, "not JSON");
    }
}
