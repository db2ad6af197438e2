//! Log on standard error: lines of the subscriber, and panics.

use std::io;
use std::panic::PanicHookInfo;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::FLUSH_TIMEOUT;
use super::log_stream::{LineBuffer, LogStream};
use super::sink::StandardStream;
use crate::clock;
use crate::telemetry::metrics::Metrics;

/// Maximum size of waiting lines, in bytes.
const CAPACITY: usize = 2 << 20;

/// Logs panics through the buffer, because the default hook blocks on standard error.
pub(super) fn install_panic_hook(errors: ErrorLog) {
    std::panic::set_hook(Box::new(move |panic| report_panic(panic, &errors)));
}

fn report_panic(panic: &PanicHookInfo<'_>, errors: &ErrorLog) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
    tracing::error!(
        thread,
        location = panic.location().map(tracing::field::display),
        backtrace = captured.then(|| tracing::field::display(&backtrace)),
        "panicked: {}",
        panic.payload_as_str().unwrap_or_default(),
    );
    if thread == "main" {
        // A panic of the main thread ends the process.
        errors.flush(clock::monotonic() + FLUSH_TIMEOUT);
    }
}

/// Receives the lines of the subscriber.
#[derive(Clone)]
pub(super) struct ErrorLog {
    stream: LogStream,
    lines: LineBuffer,
}

impl ErrorLog {
    pub(super) fn start(metrics: &Metrics) -> io::Result<ErrorLog> {
        let stream = LogStream::start(StandardStream::Stderr, Duration::ZERO, metrics)?;
        let lines = stream.buffer(CAPACITY);
        Ok(ErrorLog { stream, lines })
    }

    /// Waits until all buffered lines are written, at most until `deadline`.
    pub(super) fn flush(&self, deadline: Instant) {
        self.stream.flush(deadline);
    }
}

impl<'a> MakeWriter<'a> for ErrorLog {
    type Writer = &'a ErrorLog;

    fn make_writer(&'a self) -> &'a ErrorLog {
        self
    }
}

impl io::Write for &ErrorLog {
    /// Buffers a line. The subscriber writes each line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.append(|lines| lines.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
