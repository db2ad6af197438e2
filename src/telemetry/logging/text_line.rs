//! Text format of the access log.

use std::io::Write as _;

use super::access_log::AccessRecord;
use crate::rejection::RejectionDetails;
use crate::telemetry::trace_id::TraceId;

/// Writes a line of the access log.
pub(super) fn write(out: &mut Vec<u8>, access: &AccessRecord<'_>) -> std::io::Result<()> {
    let mut hex = [0; 64];
    let session = match &access.session {
        Some(id) => id.write_hex(&mut hex),
        None => "-",
    };
    write!(
        out,
        "{} {} {} {} {}{} {} {} route={} upstream={} user={} session={} \
         total={:.6}s store={:.6}s upstream_time={:.6}s in={} out={}",
        humantime::format_rfc3339_millis(access.time),
        access.request_id,
        access.client_ip,
        access.method.unwrap_or("-"),
        printable(access.host),
        printable(access.path().unwrap_or("-")),
        access.status,
        access.code.unwrap_or("-"),
        access.route.unwrap_or("-"),
        access.upstream.unwrap_or("-"),
        printable(access.user.unwrap_or("-")),
        session,
        access.total.as_secs_f64(),
        access.store.as_secs_f64(),
        access.upstream_time.unwrap_or_default().as_secs_f64(),
        access.bytes_received,
        access.bytes_sent,
    )?;
    write_refusal(out, access)?;
    out.push(b'\n');
    Ok(())
}

/// Writes the optional fields: trace, reason, and the details of a rejection.
fn write_refusal(out: &mut Vec<u8>, access: &AccessRecord<'_>) -> std::io::Result<()> {
    let of = |part: fn(&RejectionDetails) -> &Option<String>| part(access.grounds?).as_deref();
    for (name, value) in [
        ("trace_id", access.trace_id.map(TraceId::as_str)),
        ("limit", of(|grounds| &grounds.limit)),
        ("role", of(|grounds| &grounds.role)),
        ("scope", of(|grounds| &grounds.scope)),
        ("reason", access.reason()),
    ] {
        if let Some(value) = value {
            write!(out, " {name}={value:?}")?;
        }
    }
    Ok(())
}

/// Escapes characters that could start a new line or control a terminal.
fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.escape_default().to_string().into()
    } else {
        text.into()
    }
}
