//! Logs: the access log on standard output, all other lines on standard error.
//!
//! Each stream has its own bounded queue and thread, so that a slow or broken stream affects only
//! its own lines.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use http::Method;
use tracing_subscriber::EnvFilter;

use crate::auth::session::SessionId;
use crate::clock;
use crate::rejection::RejectionDetails;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace_id::TraceId;

mod error_log;
mod json_format;
mod line_queue;
mod text_line;

use error_log::ErrorLog;
pub use line_queue::StandardStream;
use line_queue::{LineQueue, QueueBounds};

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

const ACCESS_BOUNDS: QueueBounds = QueueBounds {
    lines: 16 * 1024,
    batch_delay: Duration::from_millis(20),
};
/// Maximum time that the exit of the process waits for queued lines.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The log of the process; clones share it.
#[derive(Clone)]
pub struct Logs {
    pub access: AccessLog,
    errors: ErrorLog,
}

impl Logs {
    /// Starts both streams, and installs the subscriber and the panic hook of the process.
    ///
    /// Libraries are logged from `warn` on, regardless of the level of the gateway: at `debug` and
    /// `trace`, Pingora logs whole request heads, including cookies. Warnings of its proxy are not
    /// logged, because they do not identify the request; `proxy::failure` reports failed attempts
    /// with the request ID.
    ///
    /// # Errors
    ///
    /// The level is unknown, a thread cannot be started, or a subscriber is already installed.
    pub fn start(format: Format, level: &str, metrics: &Metrics) -> anyhow::Result<Logs> {
        let level: tracing::Level = level.parse().map_err(|_| {
            anyhow::anyhow!("the log level is not one of error, warn, info, debug, trace")
        })?;
        let logs = Logs {
            access: AccessLog::start(format, metrics).context("standard output")?,
            errors: ErrorLog::start(metrics).context("standard error")?,
        };
        let filter = EnvFilter::new(format!(
            "warn,pingora_proxy=error,portcullis={level},event={level}"
        ));
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(logs.errors.clone())
            // The subscriber would write its errors to standard error directly.
            .log_internal_errors(false);
        let installed = match format {
            Format::Text => builder.with_ansi(false).try_init(),
            Format::Json => builder.event_format(json_format::JsonFormat).try_init(),
        };
        installed.map_err(|error| anyhow::anyhow!("cannot set up the log: {error}"))?;
        error_log::install_panic_hook(logs.errors.clone());
        Ok(logs)
    }

    /// Waits briefly until all queued lines are written, before the process exits.
    pub fn flush(&self) {
        let deadline = clock::monotonic() + FLUSH_TIMEOUT;
        self.access.0.flush(deadline);
        self.errors.flush(deadline);
    }
}

/// Access log record of one request.
#[derive(Debug)]
pub struct AccessRecord {
    pub time: SystemTime,
    pub request_id: RequestId,
    /// The trace that the request belongs to, if its ID is not the request ID.
    pub trace_id: Option<TraceId>,
    pub client_ip: IpAddr,
    /// `None` if no request line was parsed.
    pub method: Option<Method>,
    /// Empty if none was parsed.
    pub host: String,
    /// Without the query, which may contain secrets; empty if none was parsed.
    pub path: String,
    pub status: u16,
    pub code: Option<&'static str>,
    pub reason: &'static str,
    pub grounds: Option<Box<RejectionDetails>>,
    pub route: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    pub user: Option<String>,
    pub session: Option<SessionId>,
    pub total: Duration,
    pub store: Duration,
    pub upstream_time: Option<Duration>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

impl Default for AccessRecord {
    fn default() -> AccessRecord {
        AccessRecord {
            time: SystemTime::UNIX_EPOCH,
            request_id: RequestId::default(),
            trace_id: None,
            client_ip: Ipv4Addr::UNSPECIFIED.into(),
            method: None,
            host: String::new(),
            path: String::new(),
            status: 0,
            code: None,
            reason: "",
            grounds: None,
            route: None,
            upstream: None,
            user: None,
            session: None,
            total: Duration::ZERO,
            store: Duration::ZERO,
            upstream_time: None,
            bytes_received: 0,
            bytes_sent: 0,
        }
    }
}

/// Access log, used from any thread; clones share it.
#[derive(Clone)]
pub struct AccessLog(LineQueue<Box<AccessRecord>>);

impl AccessLog {
    fn start(format: Format, metrics: &Metrics) -> io::Result<AccessLog> {
        let mut clock = TimestampCache::default();
        let render = move |lines: &mut Vec<u8>, access: Box<AccessRecord>| {
            // Writing to memory cannot fail.
            let _ = match format {
                Format::Json => write_json(lines, &mut clock, &access),
                Format::Text => text_line::write(lines, &access),
            };
        };
        LineQueue::start(StandardStream::Stdout, ACCESS_BOUNDS, metrics, render).map(AccessLog)
    }

    /// Queues a line without waiting.
    pub fn write(&self, access: AccessRecord) {
        self.0.push(Box::new(access));
    }
}

/// Returns a part of the request, unless none was parsed.
fn parsed(part: &str) -> Option<&str> {
    Some(part).filter(|part| !part.is_empty())
}

/// Writes a line as JSON. A serializer that checks every byte for escaping costs more than the rest
/// of the line; the keys never need escaping, and most values do not either.
fn write_json(
    out: &mut Vec<u8>,
    clock: &mut TimestampCache,
    access: &AccessRecord,
) -> io::Result<()> {
    out.extend_from_slice(b"{\"time\":\"");
    clock.write(out, access.time);
    out.extend_from_slice(b"\",\"kind\":\"access\"");
    write_text(out, ",\"request_id\":", access.request_id.as_str())?;
    write_optional(
        out,
        ",\"trace_id\":",
        access.trace_id.as_ref().map(TraceId::as_str),
    )?;
    write_address(out, ",\"client_ip\":", access.client_ip)?;
    write_optional(
        out,
        ",\"method\":",
        access.method.as_ref().map(Method::as_str),
    )?;
    write_optional(out, ",\"host\":", parsed(&access.host))?;
    write_optional(out, ",\"path\":", parsed(&access.path))?;
    write_number(out, ",\"status\":", access.status.into());
    write_optional(out, ",\"code\":", access.code)?;
    write_optional(
        out,
        ",\"reason\":",
        Some(access.reason).filter(|it| !it.is_empty()),
    )?;
    if let Some(grounds) = &access.grounds {
        write_optional(out, ",\"limit\":", grounds.limit.as_deref())?;
        write_optional(out, ",\"role\":", grounds.role.as_deref())?;
        write_optional(out, ",\"scope\":", grounds.scope.as_deref())?;
    }
    write_optional(out, ",\"route\":", access.route.as_deref())?;
    write_optional(out, ",\"upstream\":", access.upstream.as_deref())?;
    write_optional(out, ",\"user_id\":", access.user.as_deref())?;
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

/// Cache of the formatted time of the last second.
#[derive(Default)]
struct TimestampCache {
    second: u64,
    text: String,
}

impl TimestampCache {
    /// Writes a time in RFC 3339 form, with milliseconds.
    fn write(&mut self, out: &mut Vec<u8>, at: SystemTime) {
        let since = clock::since_epoch(at);
        if self.text.is_empty() || self.second != since.as_secs() {
            self.second = since.as_secs();
            self.text = humantime::format_rfc3339_seconds(at).to_string();
        }
        out.extend_from_slice(self.text.trim_end_matches('Z').as_bytes());
        out.push(b'.');
        write_zero_padded(out, 1_000 + u64::from(since.subsec_millis()));
        out.push(b'Z');
    }
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
    let micros = u64::try_from(time.as_nanos().saturating_add(500) / 1000).unwrap_or(u64::MAX);
    write_number(out, key, micros / 1_000_000);
    out.push(b'.');
    write_zero_padded(out, 1_000_000 + micros % 1_000_000);
}

/// Writes a number without its first digit, which only preserves leading zeros.
fn write_zero_padded(out: &mut Vec<u8>, value: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    out.extend_from_slice(digits.get(1..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn line(access: &AccessRecord) -> serde_json::Value {
        let mut out = Vec::new();
        write_json(&mut out, &mut TimestampCache::default(), access).unwrap();
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
                path: hostile.to_owned(),
                user: Some(hostile.to_owned()),
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
}
