//! Logs: the access log on standard output, all other lines on standard error.
//!
//! Each stream has bounded buffers and a thread of its own, so that a slow or broken stream affects
//! only its own lines.

use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::clock;
use crate::telemetry::metrics::Metrics;

mod access_log;
mod error_log;
mod json_format;
mod json_line;
mod log_stream;
mod number;
mod route_fields;
mod sink;
mod text_line;
mod timestamp;

pub use access_log::{AccessLog, AccessRecord};
use error_log::ErrorLog;
use log_stream::LogStream;
pub use route_fields::RouteFields;
pub use sink::StandardStream;

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Maximum time that the exit of the process waits for buffered lines.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The log of the process; clones share it.
#[derive(Clone)]
pub struct Logs {
    format: Format,
    access: LogStream,
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
            format,
            access: access_log::start_stream(metrics).context("standard output")?,
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

    /// Creates the access log of one of `workers` workers.
    pub fn access_log(&self, workers: usize) -> AccessLog {
        AccessLog::new(self.format, &self.access, workers)
    }

    /// Waits briefly until all buffered lines are written, before the process exits.
    pub fn flush(&self) {
        let deadline = clock::monotonic() + FLUSH_TIMEOUT;
        self.access.flush(deadline);
        self.errors.flush(deadline);
    }
}
