//! The log: one subscriber for what the program says of itself, and the access log, which is made
//! into lines on a thread of its own so that no request waits for it.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use http::Method;
use serde::Serialize;

use crate::metrics::Metrics;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Lines that may wait for the log's thread; beyond it they are dropped and counted.
const WAITING_LINES: usize = 16 * 1024;

/// Installs the process's subscriber.
///
/// Pingora logs whole request heads, cookies and all, at `debug` and `trace`; like every other
/// library it is heard from `warn` on, whatever level is asked for ours.
///
/// # Errors
/// The level is none, or a subscriber is installed already.
pub fn init(format: Format, level: &str) -> anyhow::Result<()> {
    use tracing_subscriber::EnvFilter;
    let level: tracing::Level = level.parse().map_err(|_| {
        anyhow::anyhow!("the log level is not one of error, warn, info, debug, trace")
    })?;
    let filter = EnvFilter::new(format!("warn,portcullis={level},event={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match format {
        Format::Text => builder.with_ansi(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("the log could not be set up: {error}"))
}

/// What one request leaves behind.
#[derive(Debug)]
pub struct Access {
    pub time: SystemTime,
    pub request_id: String,
    pub client_ip: IpAddr,
    /// Absent where no request line was understood.
    pub method: Option<Method>,
    pub host: String,
    /// Without the query, which may hold anything.
    pub path: String,
    pub status: u16,
    pub code: Option<&'static str>,
    pub reason: &'static str,
    pub route: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    pub user: Option<String>,
    pub session: Option<String>,
    pub total: Duration,
    pub store: Duration,
    pub upstream_time: Option<Duration>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

impl Default for Access {
    fn default() -> Access {
        Access {
            time: SystemTime::UNIX_EPOCH,
            request_id: String::new(),
            client_ip: Ipv4Addr::UNSPECIFIED.into(),
            method: None,
            host: String::new(),
            path: String::new(),
            status: 0,
            code: None,
            reason: "",
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

/// Takes access lines from any thread.
#[derive(Clone)]
pub struct AccessLog {
    lines: SyncSender<Option<Box<Access>>>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// Starts the thread that writes lines to standard output; it ends after [`AccessLog::close`].
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(
        format: Format,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(AccessLog, std::thread::JoinHandle<()>)> {
        let (lines, waiting) = sync_channel(WAITING_LINES);
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&waiting, format))?;
        Ok((AccessLog { lines, metrics }, writer))
    }

    /// Hands a line over, without waiting.
    pub fn write(&self, access: Access) {
        if self.lines.try_send(Some(Box::new(access))).is_err() {
            self.metrics.access_log_dropped.inc();
        }
    }

    /// Says that no line comes any more: everything that waits is written, and the thread ends.
    pub fn close(&self) {
        // A thread that is gone already has nothing left to write.
        let _ = self.lines.send(None);
    }
}

/// How long lines may gather. Waking this thread for each would cost a request more than its line.
const GATHER: Duration = Duration::from_millis(20);

/// Writes what waits in one go, then flushes and waits for more.
fn write_lines(waiting: &Receiver<Option<Box<Access>>>, format: Format) {
    let mut out = std::io::BufWriter::with_capacity(64 * 1024, std::io::stdout());
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            let Some(access) = line else {
                let _ = out.flush();
                return;
            };
            // Nobody is left to tell when standard output is gone.
            let _ = write_line(&mut out, &access, format);
            next = waiting.try_recv().ok();
        }
        let _ = out.flush();
        std::thread::sleep(GATHER);
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    kind: &'static str,
    request_id: &'a str,
    client_ip: IpAddr,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    duration_seconds: f64,
    store_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_seconds: Option<f64>,
    bytes_received: u64,
    bytes_sent: u64,
}

fn write_line(
    out: &mut impl std::io::Write,
    access: &Access,
    format: Format,
) -> std::io::Result<()> {
    let line = Line {
        time: humantime::format_rfc3339_millis(access.time).to_string(),
        kind: "access",
        request_id: &access.request_id,
        client_ip: access.client_ip,
        method: access.method.as_ref().map_or("-", Method::as_str),
        host: &access.host,
        path: &access.path,
        status: access.status,
        code: access.code,
        reason: access.reason,
        route: access.route.as_deref(),
        upstream: access.upstream.as_deref(),
        user_id: access.user.as_deref(),
        session_id: access.session.as_deref(),
        duration_seconds: seconds(access.total),
        store_seconds: seconds(access.store),
        upstream_seconds: access.upstream_time.map(seconds),
        bytes_received: access.bytes_received,
        bytes_sent: access.bytes_sent,
    };
    match format {
        Format::Json => serde_json::to_writer(&mut *out, &line)?,
        Format::Text => write!(
            out,
            "{} {} {} {} {}{} {} {} route={} upstream={} user={} session={} \
             total={:.6}s store={:.6}s upstream_time={:.6}s in={} out={}",
            line.time,
            line.request_id,
            line.client_ip,
            line.method,
            printable(line.host),
            printable(line.path),
            line.status,
            line.code.unwrap_or("-"),
            line.route.unwrap_or("-"),
            line.upstream.unwrap_or("-"),
            printable(line.user_id.unwrap_or("-")),
            line.session_id.unwrap_or("-"),
            line.duration_seconds,
            line.store_seconds,
            line.upstream_seconds.unwrap_or_default(),
            line.bytes_received,
            line.bytes_sent,
        )?,
    }
    out.write_all(b"\n")
}

/// Escapes what could start a line of its own or steer a terminal.
fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.escape_default().to_string().into()
    } else {
        text.into()
    }
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}
