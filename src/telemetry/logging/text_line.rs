//! Text format of the access log.

use std::borrow::Cow;
use std::io::Write as _;

use http::Method;

use super::access_log::AccessRecord;
use super::number::{write_address, write_number, write_seconds};
use super::timestamp;
use crate::auth::api_key::ApiKeyId;
use crate::auth::credential::CredentialType;
use crate::rejection::RejectionDetails;
use crate::telemetry::metrics::Dialect;
use crate::telemetry::printable::is_unsafe_for_terminal;
use crate::telemetry::trace_id::TraceId;

/// Writes a line of the access log.
pub(super) fn write(out: &mut Vec<u8>, access: &AccessRecord<'_>) {
    timestamp::write(out, access.time);
    write_text(out, b" ", access.request_id.as_str());
    out.push(b' ');
    write_address(out, access.client_ip);
    write_text(out, b" ", access.method.map_or("-", Method::as_str));
    write_text(out, b" ", &printable(access.host));
    write_text(out, b"", &printable(access.path().unwrap_or("-")));
    out.push(b' ');
    write_number(out, access.status.into());
    write_text(out, b" ", access.code.unwrap_or("-"));
    write_text(out, b" route=", access.route.unwrap_or("-"));
    write_text(out, b" upstream=", access.upstream.unwrap_or("-"));
    let credential = access.credential.map_or("none", CredentialType::as_str);
    write_text(out, b" credential=", credential);
    write_text(out, b" source=", &printable(access.source.unwrap_or("-")));
    write_text(out, b" user=", &printable(access.user.unwrap_or("-")));
    out.extend_from_slice(b" session=");
    match access.session {
        Some(id) => out.extend_from_slice(&id.hex()),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" total=");
    write_seconds(out, access.total);
    out.extend_from_slice(b"s store=");
    write_seconds(out, access.store);
    out.extend_from_slice(b"s upstream_time=");
    write_seconds(out, access.upstream_time.unwrap_or_default());
    out.extend_from_slice(b"s in=");
    write_number(out, access.bytes_received);
    out.extend_from_slice(b" out=");
    write_number(out, access.bytes_sent);
    write_refusal(out, access);
    out.push(b'\n');
}

fn write_text<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], value: &str) {
    out.extend_from_slice(name);
    out.extend_from_slice(value.as_bytes());
}

/// Writes the optional fields: trace, API key, reason, and the details of a rejection.
fn write_refusal(out: &mut Vec<u8>, access: &AccessRecord<'_>) {
    let of = |part: fn(&RejectionDetails) -> &Option<String>| part(access.grounds?).as_deref();
    for (name, value) in [
        ("dialect", access.dialect.map(Dialect::as_str)),
        ("trace_id", access.trace_id.map(TraceId::as_str)),
        ("api_key_id", access.api_key.map(ApiKeyId::as_str)),
        ("limit", access.limit),
        ("role", of(|grounds| &grounds.role)),
        ("scope", of(|grounds| &grounds.scope)),
        ("reason", access.reason()),
    ] {
        if let Some(value) = value {
            // Writing to memory cannot fail.
            let _ = write!(out, " {name}={value:?}");
        }
    }
}

/// Escapes text with characters that could start a new line, control a terminal, hide themselves, or
/// change the direction of text.
fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe_for_terminal) {
        text.escape_default().to_string().into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use crate::auth::session::SessionId;
    use crate::telemetry::request_id::RequestId;

    fn line(access: &AccessRecord<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, access);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_cannot_forge_or_reorder_a_line() {
        for (text, expected) in [
            ("/a/ünï?%20", "/a/ünï?%20"),
            ("/a\nb", "/a\\nb"),
            ("/\u{1b}[2J", "/\\u{1b}[2J"),
            ("/\u{85}", "/\\u{85}"),
            ("/\u{2028}", "/\\u{2028}"),
            ("/\u{2029}", "/\\u{2029}"),
            ("/\u{61c}", "/\\u{61c}"),
            ("/\u{200e}\u{200f}", "/\\u{200e}\\u{200f}"),
            ("/\u{202a}\u{202e}", "/\\u{202a}\\u{202e}"),
            ("/\u{2066}\u{2069}", "/\\u{2066}\\u{2069}"),
            ("/\u{200b}\u{feff}", "/\\u{200b}\\u{feff}"),
        ] {
            assert_eq!(printable(text), expected);
            let access = AccessRecord {
                host: text,
                path: text,
                user: Some(text),
                reason: text,
                ..AccessRecord::default()
            };
            let line = line(&access);
            let is_raw = |c: &char| is_unsafe_for_terminal(*c);
            assert_eq!(line.chars().filter(is_raw).count(), 1, "{line:?}");
        }
    }

    #[test]
    fn absent_values_are_dashes() {
        let expected = "1970-01-01T00:00:00.000Z  0.0.0.0 - - 0 - route=- upstream=- credential=none \
                        source=- user=- session=- total=0.000000s store=0.000000s upstream_time=0.000000s in=0 out=0\n";
        assert_eq!(line(&AccessRecord::default()), expected);
    }

    #[test]
    fn fields_are_in_the_documented_order() {
        let grounds = RejectionDetails {
            role: Some("r".to_owned()),
            scope: Some("s".to_owned()),
            ..RejectionDetails::default()
        };
        let trace_id = TraceId::read(&[b'a'; 32]);
        let access = AccessRecord {
            time: Duration::from_millis(1_790_000_000_007),
            request_id: &RequestId::keep_or_generate(Some(b"id")),
            trace_id: trace_id.as_ref(),
            client_ip: [192, 0, 2, 1].into(),
            method: Some(&Method::GET),
            host: "example.com",
            path: "/a\n",
            dialect: Some(Dialect::AuthRequest),
            status: 403,
            code: Some("FORBIDDEN"),
            reason: "no role",
            limit: Some("l"),
            grounds: Some(&grounds),
            route: Some("shop"),
            upstream: Some("back"),
            route_fields: None,
            credential: Some(CredentialType::Token),
            source: Some("id\n"),
            user: Some("u\r"),
            session: Some(&SessionId([0xab; 32])),
            api_key: None,
            total: Duration::from_micros(1_500_007),
            store: Duration::from_micros(5),
            upstream_time: Some(Duration::from_millis(12_000)),
            bytes_received: 1,
            bytes_sent: 23,
        };
        let expected = format!(
            "2026-09-21T14:13:20.007Z id 192.0.2.1 GET example.com/a\\n 403 FORBIDDEN route=shop \
             upstream=back credential=token source=id\\n user=u\\r session={} total=1.500007s store=0.000005s \
             upstream_time=12.000000s in=1 out=23 dialect=\"auth-request\" trace_id=\"{}\" limit=\"l\" role=\"r\" \
             scope=\"s\" reason=\"no role\"\n",
            "ab".repeat(32),
            "a".repeat(32),
        );
        assert_eq!(line(&access), expected);
    }
}
