//! JSON format of the access log.

use super::access_log::AccessRecord;
use super::number::{three_digits, write_address, write_number, write_seconds};
use super::timestamp;
use crate::auth::credential::CredentialType;

/// Writes a line as JSON. A serializer that checks every byte for escaping costs more than the rest
/// of the line; the keys never need escaping, and most values do not either.
pub(super) fn write(out: &mut Vec<u8>, access: &AccessRecord<'_>) {
    write_start(out, access);
    write_optional(out, b",\"host\":\"", access.host());
    write_optional(out, b",\"path\":\"", access.path());
    if let Some(dialect) = access.dialect {
        write_plain(out, b",\"dialect\":\"", dialect.as_str().as_bytes());
    }
    write_status(out, access.status);
    write_rejection(out, access);
    match access.route_fields {
        Some(fields) => out.extend_from_slice(fields),
        None => write_names(out, access.route, access.upstream),
    }
    write_credential(out, access);
    write_optional(out, b",\"user_id\":\"", access.user);
    if let Some(id) = access.session {
        write_plain(out, b",\"session_id\":\"", &id.hex());
    }
    if let Some(id) = access.api_key {
        write_plain(out, b",\"api_key_id\":\"", id.as_bytes());
    }
    write_times(out, access);
    write_bytes(out, access);
    out.extend_from_slice(b"}\n");
}

/// Writes the fields up to the method.
fn write_start(out: &mut Vec<u8>, access: &AccessRecord<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    timestamp::write_second(out, access.time);
    let mut kind = *b"000Z\",\"kind\":\"access\",\"request_id\":\"";
    if let Some(millis) = kind.first_chunk_mut() {
        *millis = three_digits(access.time.subsec_millis());
    }
    out.extend_from_slice(&kind);
    out.extend_from_slice(access.request_id.as_bytes());
    if let Some(id) = access.trace_id {
        out.extend_from_slice(b"\",\"trace_id\":\"");
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(b"\",\"client_ip\":\"");
    write_address(out, access.client_ip);
    if let Some(method) = access.method {
        // A token (RFC 9110, section 9.1).
        out.extend_from_slice(b"\",\"method\":\"");
        out.extend_from_slice(method.as_str().as_bytes());
    }
    out.push(b'"');
}

fn write_times(out: &mut Vec<u8>, access: &AccessRecord<'_>) {
    out.extend_from_slice(b",\"duration_seconds\":");
    write_seconds(out, access.total);
    if access.store.is_zero() {
        // Most requests do not wait for the store.
        out.extend_from_slice(b",\"store_seconds\":0.000000");
    } else {
        out.extend_from_slice(b",\"store_seconds\":");
        write_seconds(out, access.store);
    }
    if let Some(time) = access.upstream_time {
        out.extend_from_slice(b",\"upstream_seconds\":");
        write_seconds(out, time);
    }
}

fn write_bytes(out: &mut Vec<u8>, access: &AccessRecord<'_>) {
    if access.bytes_received == 0 {
        out.extend_from_slice(b",\"bytes_received\":0,\"bytes_sent\":");
    } else {
        out.extend_from_slice(b",\"bytes_received\":");
        write_number(out, access.bytes_received);
        out.extend_from_slice(b",\"bytes_sent\":");
    }
    write_number(out, access.bytes_sent);
}

/// Writes the names of a route and an upstream.
pub(super) fn write_names(out: &mut Vec<u8>, route: Option<&str>, upstream: Option<&str>) {
    write_optional(out, b",\"route\":\"", route);
    write_optional(out, b",\"upstream\":\"", upstream);
}

fn write_credential(out: &mut Vec<u8>, access: &AccessRecord<'_>) {
    // Whole fields: one copy each.
    out.extend_from_slice(match access.credential {
        None => b",\"credential\":\"none\"",
        Some(CredentialType::Session) => b",\"credential\":\"session\"".as_slice(),
        Some(CredentialType::Token) => b",\"credential\":\"token\"",
        Some(CredentialType::ApiKey) => b",\"credential\":\"api_key\"",
    });
    match access.source {
        Some("database") => out.extend_from_slice(b",\"source\":\"database\""),
        source => write_optional(out, b",\"source\":\"", source),
    }
}

fn write_status(out: &mut Vec<u8>, status: u16) {
    let mut field = *b",\"status\":000";
    match field.last_chunk_mut() {
        Some(digits) if (100..1000).contains(&status) => *digits = three_digits(status.into()),
        // None was sent.
        _ => return out.extend_from_slice(b",\"status\":0"),
    }
    out.extend_from_slice(&field);
}

fn write_rejection(out: &mut Vec<u8>, access: &AccessRecord<'_>) {
    if let Some(code) = access.code {
        // Capital letters.
        write_plain(out, b",\"code\":\"", code.as_bytes());
    }
    write_optional(out, b",\"reason\":\"", access.reason());
    if let Some(limits) = access.limit {
        // Names of letters, digits, ".", "_" and "-", with commas.
        write_plain(out, b",\"limit\":\"", limits.as_bytes());
    }
    if let Some(grounds) = access.grounds {
        write_optional(out, b",\"role\":\"", grounds.role.as_deref());
        write_optional(out, b",\"scope\":\"", grounds.scope.as_deref());
    }
}

/// Writes a key, with the quotation mark that begins its value, and a value that never needs escaping.
fn write_plain<const N: usize>(out: &mut Vec<u8>, key: &[u8; N], value: &[u8]) {
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    out.push(b'"');
}

fn write_optional<const N: usize>(out: &mut Vec<u8>, key: &[u8; N], value: Option<&str>) {
    if let Some(value) = value {
        write_text(out, key, value);
    }
}

/// Writes a key, with the quotation mark that begins its value, and the value.
fn write_text<const N: usize>(out: &mut Vec<u8>, key: &[u8; N], value: &str) {
    out.extend_from_slice(key);
    write_value(out, value);
}

/// Writes a value after its quotation mark.
fn write_value(out: &mut Vec<u8>, value: &str) {
    if needs_escaping(value.as_bytes()) {
        return write_escaped(out, value);
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

#[cold]
fn write_escaped(out: &mut Vec<u8>, value: &str) {
    // The serializer writes its own.
    out.pop();
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// Whether a text needs escaping (RFC 8259, section 7). Looks at parts of fixed lengths, which the
/// compiler vectorizes; the last one overlaps the one before it.
fn needs_escaping(value: &[u8]) -> bool {
    match value.len() {
        0..4 => value.iter().any(|byte| is_special(&[*byte])),
        4..8 => is_special_at_ends::<4>(value),
        8..16 => is_special_at_ends::<8>(value),
        _ => {
            let (parts, _) = value.as_chunks::<16>();
            parts.iter().any(is_special) || value.last_chunk::<16>().is_some_and(is_special)
        }
    }
}

/// Looks at a text of `N` to `2 * N` bytes.
fn is_special_at_ends<const N: usize>(value: &[u8]) -> bool {
    value.first_chunk::<N>().is_some_and(is_special)
        || value.last_chunk::<N>().is_some_and(is_special)
}

/// Looks at all bytes without an early end, so that the loop is vectorized.
fn is_special<const N: usize>(part: &[u8; N]) -> bool {
    part.iter().fold(false, |found, byte| {
        found | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\')
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use http::Method;
    use proptest::prelude::*;

    use super::*;
    use crate::auth::api_key::ApiKeyId;
    use crate::auth::session::SessionId;
    use crate::rejection::RejectionDetails;
    use crate::telemetry::metrics::Dialect;
    use crate::telemetry::request_id::RequestId;
    use crate::telemetry::trace_id::TraceId;

    fn line(access: &AccessRecord<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        write(&mut out, access);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn hostile_values_stay_inside_their_json_string() {
        for hostile in [
            "/a\"b",
            "/a\\",
            "/a\n{\"kind\":\"access\"}",
            "/\u{0}\u{1f}\u{7f}é",
        ] {
            let access = AccessRecord {
                path: hostile,
                user: Some(hostile),
                ..AccessRecord::default()
            };
            let line = line(&access);
            assert_eq!(line["path"], hostile);
            assert_eq!(line["user_id"], hostile);
            assert_eq!(line["kind"], "access");
        }
    }

    #[test]
    fn absent_values_are_omitted_and_times_have_six_decimals() {
        let access = AccessRecord {
            session: Some(&SessionId([0xab; 32])),
            time: Duration::from_millis(1_790_000_000_007),
            client_ip: [192, 0, 2, 1].into(),
            total: Duration::from_nanos(1_000_123_500),
            store: Duration::from_micros(7),
            ..AccessRecord::default()
        };
        let line = line(&access);
        assert_eq!(line["session_id"], "ab".repeat(32));
        assert_eq!(line["time"], "2026-09-21T14:13:20.007Z");
        assert_eq!(line["client_ip"], "192.0.2.1");
        assert_eq!(line["credential"], "none");
        assert_eq!(line["duration_seconds"], 1.000_124);
        assert_eq!(line["store_seconds"], 0.000_007);
        for absent in [
            "method",
            "host",
            "path",
            "code",
            "reason",
            "route",
            "upstream",
            "source",
            "user_id",
            "upstream_seconds",
            "dialect",
        ] {
            assert!(line.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn fields_are_in_the_documented_order() {
        let grounds = RejectionDetails {
            role: Some("r".to_owned()),
            scope: Some("s".to_owned()),
            ..RejectionDetails::default()
        };
        let trace_id = TraceId::read(&[b'a'; 32]);
        let api_key = ApiKeyId::parse("0123456789abcdef");
        let access = AccessRecord {
            time: Duration::ZERO,
            request_id: &RequestId::keep_or_generate(Some(b"id")),
            trace_id: trace_id.as_ref(),
            client_ip: [192, 0, 2, 1].into(),
            method: Some(&Method::GET),
            host: "example.com",
            path: "/a",
            dialect: Some(Dialect::ExtAuthz),
            status: 403,
            code: Some("FORBIDDEN"),
            reason: "no role",
            limit: Some("l"),
            grounds: Some(&grounds),
            route: Some("shop"),
            upstream: Some("back"),
            route_fields: None,
            credential: Some(CredentialType::ApiKey),
            source: Some("database"),
            user: Some("u"),
            session: Some(&SessionId([0; 32])),
            api_key: api_key.as_ref(),
            total: Duration::from_millis(1500),
            store: Duration::from_micros(5),
            upstream_time: Some(Duration::from_nanos(999_999_500)),
            bytes_received: 1,
            bytes_sent: 2,
        };
        let mut out = Vec::new();
        write(&mut out, &access);
        let expected = format!(
            concat!(
                r#"{{"time":"1970-01-01T00:00:00.000Z","kind":"access","request_id":"id","#,
                r#""trace_id":"{}","client_ip":"192.0.2.1","method":"GET","host":"example.com","#,
                r#""path":"/a","dialect":"ext-authz","status":403,"code":"FORBIDDEN","#,
                r#""reason":"no role","limit":"l","#,
                r#""role":"r","scope":"s","route":"shop","upstream":"back","credential":"api_key","#,
                r#""source":"database","user_id":"u","#,
                r#""session_id":"{}","api_key_id":"0123456789abcdef","#,
                r#""duration_seconds":1.500000,"store_seconds":0.000005,"#,
                r#""upstream_seconds":1.000000,"bytes_received":1,"bytes_sent":2}}"#,
                "\n",
            ),
            "a".repeat(32),
            "0".repeat(64),
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn rendered_names_equal_those_of_the_record() {
        let names = AccessRecord {
            route: Some("a \"b\""),
            upstream: Some("back"),
            ..AccessRecord::default()
        };
        let mut fields = Vec::new();
        write_names(&mut fields, names.route, names.upstream);
        let rendered = AccessRecord {
            route_fields: Some(&fields),
            ..names
        };
        assert_eq!(line(&rendered), line(&names));
        assert_eq!(line(&rendered)["route"], "a \"b\"");
    }

    proptest! {
        #[test]
        fn texts_equal_those_of_a_serializer(
            text in prop_oneof![any::<String>(), "[a-z\"\\\\\u{0}-\u{1f}é]{0,40}", "[a-z]{0,40}"],
        ) {
            let mut out = Vec::new();
            write_text(&mut out, b"\"", &text);
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }

    #[test]
    fn one_special_byte_is_found_at_every_position() {
        for length in 0..50 {
            let plain = vec![b'a'; length];
            assert!(!needs_escaping(&plain), "{length}");
            for at in 0..length {
                for special in [0, 0x1f, b'"', b'\\'] {
                    let mut text = plain.clone();
                    text[at] = special;
                    assert!(needs_escaping(&text), "{special} at {at} of {length}");
                }
            }
        }
    }
}
