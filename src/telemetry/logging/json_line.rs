//! JSON format of the access log.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use super::access_log::AccessRecord;
use super::timestamp::{self, write_zero_padded};
use crate::telemetry::trace_id::TraceId;

/// Writes a line as JSON. A serializer that checks every byte for escaping costs more than the rest
/// of the line; the keys never need escaping, and most values do not either.
pub(super) fn write(out: &mut Vec<u8>, access: &AccessRecord<'_>) -> io::Result<()> {
    out.extend_from_slice(b"{\"time\":\"");
    timestamp::write(out, access.time);
    out.extend_from_slice(b"\",\"kind\":\"access\"");
    write_text(out, ",\"request_id\":", access.request_id)?;
    write_optional(out, ",\"trace_id\":", access.trace_id.map(TraceId::as_str))?;
    write_address(out, ",\"client_ip\":", access.client_ip)?;
    write_optional(out, ",\"method\":", access.method)?;
    write_optional(out, ",\"host\":", access.host())?;
    write_optional(out, ",\"path\":", access.path())?;
    write_number(out, ",\"status\":", access.status.into());
    write_optional(out, ",\"code\":", access.code)?;
    write_optional(out, ",\"reason\":", access.reason())?;
    if let Some(grounds) = access.grounds {
        write_optional(out, ",\"limit\":", grounds.limit.as_deref())?;
        write_optional(out, ",\"role\":", grounds.role.as_deref())?;
        write_optional(out, ",\"scope\":", grounds.scope.as_deref())?;
    }
    write_optional(out, ",\"route\":", access.route)?;
    write_optional(out, ",\"upstream\":", access.upstream)?;
    write_optional(out, ",\"user_id\":", access.user)?;
    if let Some(id) = access.session {
        write_text(out, ",\"session_id\":", id.write_hex(&mut [0; 64]))?;
    }
    write_seconds(out, ",\"duration_seconds\":", access.total);
    write_seconds(out, ",\"store_seconds\":", access.store);
    if let Some(time) = access.upstream_time {
        write_seconds(out, ",\"upstream_seconds\":", time);
    }
    write_number(out, ",\"bytes_received\":", access.bytes_received);
    write_number(out, ",\"bytes_sent\":", access.bytes_sent);
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn write_address(out: &mut Vec<u8>, key: &str, ip: IpAddr) -> io::Result<()> {
    let IpAddr::V4(ip) = ip else {
        return write!(out, "{key}\"{ip}\"");
    };
    let mut prefix = "\"";
    out.extend_from_slice(key.as_bytes());
    for octet in ip.octets() {
        write_number(out, prefix, octet.into());
        prefix = ".";
    }
    out.push(b'"');
    Ok(())
}

fn write_text(out: &mut Vec<u8>, key: &str, value: &str) -> io::Result<()> {
    out.extend_from_slice(key.as_bytes());
    // Accumulates bytes, so that the loop is vectorized (RFC 8259, section 7).
    let escaped = |sum, byte| sum | u8::from((byte < 0x20) | (byte == b'"') | (byte == b'\\'));
    if value.bytes().fold(0, escaped) == 0 {
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
        return Ok(());
    }
    Ok(serde_json::to_writer(out, value)?)
}

fn write_optional(out: &mut Vec<u8>, key: &str, value: Option<&str>) -> io::Result<()> {
    value.map_or(Ok(()), |value| write_text(out, key, value))
}

fn write_number(out: &mut Vec<u8>, key: &str, value: u64) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a duration in seconds, with six decimals.
fn write_seconds(out: &mut Vec<u8>, key: &str, time: Duration) {
    let micros = (u64::from(time.subsec_nanos()) + 500) / 1000;
    let seconds = time.as_secs().saturating_add(micros / 1_000_000);
    write_number(out, key, seconds);
    out.push(b'.');
    write_zero_padded(out, 1_000_000 + micros % 1_000_000);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::auth::session::SessionId;
    use crate::rejection::RejectionDetails;

    fn line(access: &AccessRecord<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        write(&mut out, access).unwrap();
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
            session: Some(SessionId([0xab; 32])),
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_007),
            client_ip: [192, 0, 2, 1].into(),
            total: Duration::from_nanos(1_000_123_500),
            store: Duration::from_micros(7),
            ..AccessRecord::default()
        };
        let line = line(&access);
        assert_eq!(line["session_id"], "ab".repeat(32));
        assert_eq!(line["time"], "2026-09-21T14:13:20.007Z");
        assert_eq!(line["client_ip"], "192.0.2.1");
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
            "user_id",
            "upstream_seconds",
        ] {
            assert!(line.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn fields_are_in_the_documented_order() {
        let grounds = RejectionDetails {
            limit: Some("l".to_owned()),
            role: Some("r".to_owned()),
            scope: Some("s".to_owned()),
            ..RejectionDetails::default()
        };
        let trace_id = TraceId::read(&[b'a'; 32]);
        let access = AccessRecord {
            time: SystemTime::UNIX_EPOCH,
            request_id: "id",
            trace_id: trace_id.as_ref(),
            client_ip: [192, 0, 2, 1].into(),
            method: Some("GET"),
            host: "example.com",
            path: "/a",
            status: 403,
            code: Some("FORBIDDEN"),
            reason: "no role",
            grounds: Some(&grounds),
            route: Some("shop"),
            upstream: Some("back"),
            user: Some("u"),
            session: Some(SessionId([0; 32])),
            total: Duration::from_millis(1500),
            store: Duration::from_micros(5),
            upstream_time: Some(Duration::from_nanos(999_999_500)),
            bytes_received: 1,
            bytes_sent: 2,
        };
        let mut out = Vec::new();
        write(&mut out, &access).unwrap();
        let expected = format!(
            concat!(
                r#"{{"time":"1970-01-01T00:00:00.000Z","kind":"access","request_id":"id","#,
                r#""trace_id":"{}","client_ip":"192.0.2.1","method":"GET","host":"example.com","#,
                r#""path":"/a","status":403,"code":"FORBIDDEN","reason":"no role","limit":"l","#,
                r#""role":"r","scope":"s","route":"shop","upstream":"back","user_id":"u","#,
                r#""session_id":"{}","duration_seconds":1.500000,"store_seconds":0.000005,"#,
                r#""upstream_seconds":1.000000,"bytes_received":1,"bytes_sent":2}}"#,
                "\n",
            ),
            "a".repeat(32),
            "0".repeat(64),
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn seconds_are_rounded_to_microseconds(seconds in 0..1u64 << 40, nanos in 0..1_000_000_000u32) {
            let time = Duration::new(seconds, nanos);
            let mut out = Vec::new();
            write_seconds(&mut out, "", time);
            let micros = (time.as_nanos() + 500) / 1000;
            let expected = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }

        #[test]
        fn texts_equal_those_of_a_serializer(text in any::<String>()) {
            let mut out = Vec::new();
            write_text(&mut out, "", &text).unwrap();
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }
}
