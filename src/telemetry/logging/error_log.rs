//! Log on standard error: lines of the subscriber, and panics.

use std::io;
use std::panic::PanicHookInfo;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::FLUSH_TIMEOUT;
use super::line_queue::{LineQueue, QueueBounds, StandardStream};
use crate::clock;
use crate::telemetry::metrics::Metrics;

const BOUNDS: QueueBounds = QueueBounds {
    lines: 4 * 1024,
    batch_delay: Duration::ZERO,
};

/// Logs panics through the queue, because the default hook blocks on standard error.
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
pub(super) struct ErrorLog(LineQueue<Vec<u8>>);

impl ErrorLog {
    pub(super) fn start(metrics: &Metrics) -> io::Result<ErrorLog> {
        let append = |lines: &mut Vec<u8>, line: Vec<u8>| lines.extend_from_slice(&line);
        LineQueue::start(StandardStream::Stderr, BOUNDS, metrics, append).map(ErrorLog)
    }

    /// Waits until all queued lines are written, at most until `deadline`.
    pub(super) fn flush(&self, deadline: Instant) {
        self.0.flush(deadline);
    }
}

impl<'a> MakeWriter<'a> for ErrorLog {
    type Writer = &'a ErrorLog;

    fn make_writer(&'a self) -> &'a ErrorLog {
        self
    }
}

impl io::Write for &ErrorLog {
    /// Queues a line. The subscriber writes each line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
