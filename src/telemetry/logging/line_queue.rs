//! Standard stream behind a bounded queue and a thread. Logging never waits for the stream and
//! never fails.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crate::clock;
use crate::telemetry::metrics::{IntCounter, Metrics};

/// Maximum size of a batch, in bytes.
const MAX_BATCH: usize = 64 * 1024;
/// Time between attempts at a full non-blocking stream or a full queue.
const RETRY_DELAY: Duration = Duration::from_millis(5);

/// A standard stream of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandardStream {
    Stdout,
    Stderr,
}

impl StandardStream {
    pub const ALL: [StandardStream; 2] = [StandardStream::Stdout, StandardStream::Stderr];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            StandardStream::Stdout => "stdout",
            StandardStream::Stderr => "stderr",
        }
    }

    /// Opens a separate descriptor, because a blocked write holds the lock of the standard
    /// library's.
    fn open(self) -> io::Result<File> {
        let descriptor = match self {
            StandardStream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            StandardStream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        };
        descriptor.map(File::from)
    }
}

/// Bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueBounds {
    /// Maximum number of queued lines; further lines are dropped and counted.
    pub(super) lines: usize,
    /// Time in which lines are collected. Waking the thread for each line would cost more than the
    /// line.
    pub(super) batch_delay: Duration,
}

/// Queue of lines for a stream, used from any thread; clones share it.
pub(super) struct LineQueue<T> {
    items: SyncSender<QueueItem<T>>,
    dropped: IntCounter,
}

enum QueueItem<T> {
    Line(T),
    /// Requests that all previous lines are written, and then signals.
    Flush(SyncSender<()>),
}

impl<T> Clone for LineQueue<T> {
    fn clone(&self) -> LineQueue<T> {
        LineQueue {
            items: self.items.clone(),
            dropped: self.dropped.clone(),
        }
    }
}

impl<T: Send + 'static> LineQueue<T> {
    /// Starts the thread that renders and writes lines.
    pub(super) fn start(
        stream: StandardStream,
        bounds: QueueBounds,
        metrics: &Metrics,
        render: impl FnMut(&mut Vec<u8>, T) + Send + 'static,
    ) -> io::Result<LineQueue<T>> {
        let dropped = metrics
            .log_lines_dropped
            .with_label_values(&[stream.as_str()]);
        let sink = Sink {
            file: stream.open()?,
            dropped,
            ends_mid_line: false,
        };
        LineQueue::with_sink(sink, stream.as_str(), bounds, render)
    }

    fn with_sink(
        sink: Sink,
        name: &str,
        bounds: QueueBounds,
        render: impl FnMut(&mut Vec<u8>, T) + Send + 'static,
    ) -> io::Result<LineQueue<T>> {
        let dropped = sink.dropped.clone();
        let (items, queue) = sync_channel(bounds.lines);
        std::thread::Builder::new()
            .name(format!("log-{name}"))
            .spawn(move || write_lines(&queue, sink, bounds.batch_delay, render))?;
        Ok(LineQueue { items, dropped })
    }

    /// Queues a line without waiting.
    pub(super) fn push(&self, line: T) {
        if self.items.try_send(QueueItem::Line(line)).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits until all queued lines are written, at most until `deadline`.
    pub(super) fn flush(&self, deadline: Instant) {
        let (done, written) = sync_channel(1);
        let mut item = QueueItem::Flush(done);
        while let Err(TrySendError::Full(back)) = self.items.try_send(item) {
            if clock::monotonic() >= deadline {
                return;
            }
            item = back;
            std::thread::sleep(RETRY_DELAY);
        }
        // After the deadline, the process exits without the rest.
        let _ = written.recv_timeout(deadline.saturating_duration_since(clock::monotonic()));
    }
}

/// Writes queued lines in batches until the queue is closed.
fn write_lines<T>(
    queue: &Receiver<QueueItem<T>>,
    mut sink: Sink,
    batch_delay: Duration,
    mut render: impl FnMut(&mut Vec<u8>, T),
) {
    let mut lines = Vec::with_capacity(MAX_BATCH);
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                QueueItem::Line(line) => render(&mut lines, line),
                QueueItem::Flush(done) => {
                    sink.write(&mut lines);
                    let _ = done.try_send(());
                }
            }
            if lines.len() > MAX_BATCH {
                sink.write(&mut lines);
            }
            next = queue.try_recv().ok();
        }
        sink.write(&mut lines);
        if !batch_delay.is_zero() {
            std::thread::sleep(batch_delay);
        }
    }
}

/// The stream that the queue is written to.
struct Sink {
    file: File,
    dropped: IntCounter,
    /// Whether the stream failed in the middle of a line.
    ends_mid_line: bool,
}

impl Sink {
    /// Writes whole lines and clears the buffer. Lines that were not written are counted.
    fn write(&mut self, lines: &mut Vec<u8>) {
        let mut written = 0;
        if !self.ends_mid_line || self.write_all(b"\n") == 1 {
            written = self.write_all(lines);
            self.ends_mid_line = written > 0 && lines.get(written - 1) != Some(&b'\n');
        }
        let lost = lines.get(written..).unwrap_or_default();
        let lost = lost.iter().filter(|byte| **byte == b'\n').count();
        self.dropped.inc_by(lost as u64);
        lines.clear();
    }

    /// Writes until the stream fails, and returns the number of bytes.
    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest @ [_, ..]) = bytes.get(written..) {
            match self.file.write(rest) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(RETRY_DELAY)
                }
                Err(_) => break,
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io::{Read, Seek};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn sink(file: File) -> Sink {
        Sink {
            file,
            dropped: IntCounter::new("dropped", "lines").unwrap(),
            ends_mid_line: false,
        }
    }

    #[test]
    fn unwritten_lines_are_counted_as_dropped() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut sink = sink(full);
        let mut lines = b"one\ntwo\n".to_vec();
        sink.write(&mut lines);
        assert_eq!((sink.dropped.get(), lines.len()), (2, 0));
    }

    #[test]
    fn partial_line_does_not_swallow_the_next() {
        let mut file = tempfile::tempfile().unwrap();
        let mut sink = sink(file.try_clone().unwrap());
        sink.write_all(b"half");
        sink.ends_mid_line = true;
        sink.write(&mut b"whole\n".to_vec());
        sink.write(&mut b"more\n".to_vec());
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "half\nwhole\nmore\n");
        assert_eq!(sink.dropped.get(), 0);
    }

    #[test]
    fn unread_stream_drops_lines_without_blocking() {
        const LINES: u64 = 100;
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let sink = sink(File::from(OwnedFd::from(writer)));
        let bounds = QueueBounds {
            lines: 4,
            batch_delay: Duration::ZERO,
        };
        let render = |lines: &mut Vec<u8>, line: Vec<u8>| lines.extend(line);
        let queue = LineQueue::with_sink(sink, "test", bounds, render).unwrap();
        // Each is larger than the buffers of the socket and of one write together.
        let mut line = vec![b'a'; 1 << 20];
        line.push(b'\n');
        for _ in 0..LINES {
            queue.push(line.clone());
        }
        queue.flush(Instant::now());
        let dropped = queue.dropped.get();
        // Received are those in the queue, in the batch, and the one being written.
        assert!(dropped >= LINES - 8, "{dropped}");
        drop(queue);
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        assert_eq!(received.len() as u64, (LINES - dropped) * line.len() as u64);
    }
}
