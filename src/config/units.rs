//! Durations, sizes and secrets in the notation of the configuration file.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration: `250ms`, `10s`, `15m`, `24h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

/// Each unit with the maximum number of digits, which prevents overflow, and its length in
/// milliseconds.
const TIME_UNITS: [(&str, usize, u64); 5] = [
    ("ms", 12, 1),
    ("s", 9, 1_000),
    ("m", 7, 60_000),
    ("h", 6, 3_600_000),
    ("d", 4, 86_400_000),
];

impl Time {
    /// Creates a duration of whole seconds.
    pub(super) const fn seconds(seconds: u64) -> Time {
        Time(Duration::from_secs(seconds))
    }

    /// Creates a duration of whole milliseconds.
    pub(super) const fn millis(millis: u64) -> Time {
        Time(Duration::from_millis(millis))
    }
}

/// A number of bytes: `512B`, `64KiB`, `10MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

const SIZE_UNITS: [(&str, usize, u64); 4] = [
    ("KiB", 9, 1 << 10),
    ("MiB", 7, 1 << 20),
    ("GiB", 5, 1 << 30),
    ("B", 15, 1),
];

/// Parses a whole number and its unit.
fn parse_measure(text: &str, units: &[(&str, usize, u64)]) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(split)?;
    let (_, digits, factor) = units.iter().find(|(name, _, _)| *name == unit)?;
    if number.is_empty() || number.len() > *digits {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Formats a measure in the largest unit that gives a whole number.
fn format_measure(value: u64, units: &[(&str, usize, u64)]) -> String {
    let fitting = units
        .iter()
        .filter(|(_, _, factor)| value.is_multiple_of(*factor));
    match fitting.max_by_key(|(_, _, factor)| if value == 0 { 0 } else { *factor }) {
        Some((name, _, factor)) => format!("{}{name}", value / factor),
        None => value.to_string(),
    }
}

fn measure_pattern(units: &[(&str, usize, u64)]) -> String {
    let each = units
        .iter()
        .map(|(name, digits, _)| format!("[0-9]{{1,{digits}}}{name}"));
    format!("^({})$", each.collect::<Vec<_>>().join("|"))
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        match millis {
            0 => f.write_str("0s"),
            _ => f.write_str(&format_measure(millis, &TIME_UNITS)),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_measure(self.0, &SIZE_UNITS))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_measure(&text, &TIME_UNITS)
            .map(Time::millis)
            .ok_or_else(|| serde::de::Error::custom("not a duration"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_measure(&text, &SIZE_UNITS)
            .map(Size)
            .ok_or_else(|| serde::de::Error::custom("not a size"))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": measure_pattern(&TIME_UNITS),
            "patternErrorMessage": "is not a duration such as 250ms, 10s, 15m, 24h or 30d",
            "examples": ["250ms", "10s", "15m", "24h", "30d"],
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": measure_pattern(&SIZE_UNITS),
            "patternErrorMessage": "is not a size such as 512B, 64KiB, 10MiB or 1GiB",
            "examples": ["64KiB", "10MiB", "1GiB", "512B"],
        })
    }
}

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_formatted() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("10s", Some(10_000)),
            ("15m", Some(900_000)),
            ("24h", Some(86_400_000)),
            ("30d", Some(2_592_000_000)),
            ("0s", Some(0)),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("10000d", None),
            ("1h30m", None),
            ("", None),
        ] {
            assert_eq!(parse_measure(text, &TIME_UNITS), millis, "{text}");
        }
        assert_eq!(Time::seconds(90).to_string(), "90s");
        assert_eq!(Time::seconds(86_400).to_string(), "1d");
        assert_eq!(Time::millis(0).to_string(), "0s");
        assert_eq!(Time::millis(1_500).to_string(), "1500ms");
    }

    #[test]
    fn sizes_are_parsed_and_formatted() {
        for (text, bytes) in [
            ("64KiB", Some(65_536)),
            ("10MiB", Some(10_485_760)),
            ("1GiB", Some(1 << 30)),
            ("512B", Some(512)),
            ("64KB", None),
            ("64", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse_measure(text, &SIZE_UNITS), bytes, "{text}");
        }
        assert_eq!(Size(65_536).to_string(), "64KiB");
        assert_eq!(Size(1_000).to_string(), "1000B");
    }

    #[test]
    fn secret_is_redacted_in_debug_output() {
        assert_eq!(format!("{:?}", Secret("hunter2".to_owned())), "Secret(…)");
    }
}
