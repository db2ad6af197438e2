//! Access log: one line per request, written on the worker that served it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::Method;

use super::log_stream::{LineBuffer, LogStream};
use super::sink::StandardStream;
use super::{Format, json_line, text_line};
use crate::auth::api_key::{ApiKeyId, mask_secrets};
use crate::auth::credential::CredentialType;
use crate::auth::session::SessionId;
use crate::rejection::RejectionDetails;
use crate::telemetry::metrics::{Dialect, Metrics};
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace_id::TraceId;

/// Time in which lines are collected.
const BATCH_DELAY: Duration = Duration::from_millis(20);
/// Maximum size of the waiting lines of all workers, in bytes.
const CAPACITY: usize = 8 << 20;
/// Minimum share of one worker, in bytes.
const MIN_SHARE: usize = 1 << 20;

/// Starts the thread that writes the access log.
pub(super) fn start_stream(metrics: &Metrics) -> io::Result<LogStream> {
    LogStream::start(StandardStream::Stdout, BATCH_DELAY, metrics)
}

/// Access log record of one request.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// Since the epoch.
    pub time: Duration,
    pub request_id: &'a RequestId,
    /// The trace that the request belongs to, if its ID is not the request ID.
    pub trace_id: Option<&'a TraceId>,
    pub client_ip: IpAddr,
    /// `None` if no request line was parsed.
    pub method: Option<&'a Method>,
    /// Empty if none was parsed.
    pub host: &'a str,
    /// Without the query, which may contain secrets; empty if none was parsed.
    pub path: &'a str,
    /// By which a front proxy queried.
    pub dialect: Option<Dialect>,
    pub status: u16,
    pub code: Option<&'static str>,
    pub reason: &'static str,
    /// The limits that were exceeded, or that could not be checked.
    pub limit: Option<&'a str>,
    pub grounds: Option<&'a RejectionDetails>,
    pub route: Option<&'a str>,
    pub upstream: Option<&'a str>,
    /// Both names as fields of a JSON line, where [`RouteFields`](super::RouteFields) has them.
    pub route_fields: Option<&'a [u8]>,
    /// The type of the credential that decided; `None`: none did.
    pub credential: Option<CredentialType>,
    /// Where the user of the credential comes from: the database, the backend, or the name of a provider
    /// or an issuer.
    pub source: Option<&'a str>,
    pub user: Option<&'a str>,
    pub session: Option<&'a SessionId>,
    pub api_key: Option<&'a ApiKeyId>,
    pub total: Duration,
    pub store: Duration,
    pub upstream_time: Option<Duration>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

static NO_REQUEST_ID: RequestId = RequestId::EMPTY;

impl Default for AccessRecord<'_> {
    fn default() -> Self {
        AccessRecord {
            time: Duration::ZERO,
            request_id: &NO_REQUEST_ID,
            trace_id: None,
            client_ip: Ipv4Addr::UNSPECIFIED.into(),
            method: None,
            host: "",
            path: "",
            dialect: None,
            status: 0,
            code: None,
            reason: "",
            limit: None,
            grounds: None,
            route: None,
            upstream: None,
            route_fields: None,
            credential: None,
            source: None,
            user: None,
            session: None,
            api_key: None,
            total: Duration::ZERO,
            store: Duration::ZERO,
            upstream_time: None,
            bytes_received: 0,
            bytes_sent: 0,
        }
    }
}

impl AccessRecord<'_> {
    pub(super) fn host(&self) -> Option<&str> {
        parsed(self.host)
    }

    pub(super) fn path(&self) -> Option<&str> {
        parsed(self.path)
    }

    pub(super) fn reason(&self) -> Option<&str> {
        parsed(self.reason)
    }
}

/// Returns a text, unless it is empty.
fn parsed(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Access log of one worker.
pub struct AccessLog {
    format: Format,
    lines: LineBuffer,
}

impl AccessLog {
    /// The log of one of `workers` workers.
    pub(super) fn new(format: Format, stream: &LogStream, workers: usize) -> AccessLog {
        let share = (CAPACITY / workers.max(1)).max(MIN_SHARE);
        AccessLog {
            format,
            lines: stream.buffer(share),
        }
    }

    /// Buffers the line of a request, without waiting for the stream. The path has no secret of an API key.
    pub fn write(&self, access: &AccessRecord<'_>) {
        match mask_secrets(access.path) {
            None => self.append(access),
            Some(path) => self.append(&AccessRecord {
                path: &path,
                ..*access
            }),
        }
    }

    fn append(&self, access: &AccessRecord<'_>) {
        self.lines.append(|out| match self.format {
            Format::Json => json_line::write(out, access),
            Format::Text => text_line::write(out, access),
        });
    }
}

#[cfg(test)]
impl AccessLog {
    /// A log that is written to a file.
    pub(crate) fn to_file(file: std::fs::File) -> AccessLog {
        AccessLog::new(Format::Json, &LogStream::to_file(file), 1)
    }

    /// Waits until all lines are written.
    pub(crate) fn flush(&self) {
        self.lines.flush();
    }
}
