//! Standard stream behind bounded buffers and a thread. Logging never waits for the stream and
//! never fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::sink::{Sink, StandardStream};
use crate::clock;
use crate::telemetry::metrics::{IntCounter, Metrics};

/// Size from which a buffer is written without delay, in bytes.
const MAX_BATCH: usize = 64 * 1024;

/// A standard stream that a thread of its own writes; clones share it.
#[derive(Clone)]
pub(super) struct LogStream {
    shared: Arc<SharedBuffers>,
    signals: Sender<Signal>,
}

/// What the thread of a stream shares with its users.
struct SharedBuffers {
    buffers: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    /// Whether the thread has found all buffers empty and waits for a signal.
    is_idle: AtomicBool,
    dropped: IntCounter,
}

enum Signal {
    /// Lines are to be written now.
    Wake,
    /// Requests that all previous lines are written, and then signals.
    Flush(SyncSender<()>),
}

impl LogStream {
    /// Starts the thread that writes lines. It collects them for `batch_delay`, because waking it
    /// for each line would cost more than the line.
    pub(super) fn start(
        stream: StandardStream,
        batch_delay: Duration,
        metrics: &Metrics,
    ) -> io::Result<LogStream> {
        let dropped = metrics
            .log_lines_dropped
            .with_label_values(&[stream.as_str()]);
        let sink = Sink::new(stream.open()?, dropped);
        LogStream::with_sink(sink, stream.as_str(), batch_delay)
    }

    fn with_sink(sink: Sink, name: &str, batch_delay: Duration) -> io::Result<LogStream> {
        let shared = Arc::new(SharedBuffers {
            buffers: Mutex::default(),
            is_idle: AtomicBool::new(false),
            dropped: sink.dropped().clone(),
        });
        let (signals, received) = channel();
        let writer = StreamWriter {
            shared: Arc::clone(&shared),
            signals: received,
            sink,
            batch_delay,
            lines: Vec::new(),
        };
        std::thread::Builder::new()
            .name(format!("log-{name}"))
            .spawn(move || writer.run())?;
        Ok(LogStream { shared, signals })
    }

    /// Adds a buffer of at most `capacity` bytes. Its lines stay in order.
    pub(super) fn buffer(&self, capacity: usize) -> LineBuffer {
        let lines = Arc::default();
        self.shared.buffers.lock().push(Arc::clone(&lines));
        LineBuffer {
            lines,
            capacity,
            stream: self.clone(),
        }
    }

    /// Waits until all buffered lines are written, at most until `deadline`.
    pub(super) fn flush(&self, deadline: Instant) {
        let (done, written) = sync_channel(1);
        if self.signals.send(Signal::Flush(done)).is_ok() {
            // After the deadline, the process exits without the rest.
            let _ = written.recv_timeout(deadline.saturating_duration_since(clock::monotonic()));
        }
    }

    /// Wakes the thread after a line was buffered, if it is idle or `is_full`.
    fn wake(&self, is_full: bool) {
        // The lock of the buffer orders this after the thread's last look into it.
        let is_idle = &self.shared.is_idle;
        let was_idle = is_idle.load(Ordering::Relaxed) && is_idle.swap(false, Ordering::Relaxed);
        if was_idle || is_full {
            // Without the thread, nothing can be written.
            let _ = self.signals.send(Signal::Wake);
        }
    }
}

/// Lines that wait for the thread of their stream; clones share them.
#[derive(Clone)]
pub(super) struct LineBuffer {
    lines: Arc<Mutex<Vec<u8>>>,
    /// Maximum size in bytes; further lines are dropped and counted.
    capacity: usize,
    stream: LogStream,
}

impl LineBuffer {
    /// Appends the whole line that `write` writes, without waiting for the stream.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = self.lines.lock();
        let before = lines.len();
        write(&mut lines);
        if lines.len() > self.capacity {
            lines.truncate(before);
            self.stream.shared.dropped.inc();
            return;
        }
        let is_full = before < MAX_BATCH && lines.len() >= MAX_BATCH;
        drop(lines);
        self.stream.wake(is_full);
    }
}

/// The thread of a stream.
struct StreamWriter {
    shared: Arc<SharedBuffers>,
    signals: Receiver<Signal>,
    sink: Sink,
    batch_delay: Duration,
    /// Empty; exchanged for the lines of a buffer.
    lines: Vec<u8>,
}

impl StreamWriter {
    /// Writes buffered lines until the stream has no user left.
    fn run(mut self) {
        loop {
            let signal = if self.write_buffered() {
                self.signals.recv_timeout(self.batch_delay)
            } else {
                self.wait_for_line()
            };
            match signal {
                Ok(Signal::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Signal::Flush(done)) => {
                    self.write_buffered();
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.write_buffered();
                    return;
                }
            }
        }
    }

    fn wait_for_line(&mut self) -> Result<Signal, RecvTimeoutError> {
        self.shared.is_idle.store(true, Ordering::Relaxed);
        // A line that was appended before this store has not woken the thread.
        let signal = if self.write_buffered() {
            Ok(Signal::Wake)
        } else {
            let signal = self.signals.recv();
            signal.map_err(|_| RecvTimeoutError::Disconnected)
        };
        self.shared.is_idle.store(false, Ordering::Relaxed);
        signal
    }

    /// Writes all buffered lines; returns whether there were any.
    fn write_buffered(&mut self) -> bool {
        let buffers = self.shared.buffers.lock().clone();
        let mut has_lines = false;
        for buffer in buffers {
            std::mem::swap(&mut *buffer.lock(), &mut self.lines);
            has_lines |= !self.lines.is_empty();
            self.sink.write(&mut self.lines);
        }
        has_lines
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::fs::File;
    use std::io::{Read, Seek};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn sink(file: File) -> Sink {
        Sink::new(file, IntCounter::new("dropped", "lines").unwrap())
    }

    impl LogStream {
        pub(in super::super) fn to_file(file: File) -> LogStream {
            LogStream::with_sink(sink(file), "test", Duration::ZERO).unwrap()
        }
    }

    impl LineBuffer {
        /// Waits until all lines are written.
        pub(in super::super) fn flush(&self) {
            self.stream
                .flush(clock::monotonic() + Duration::from_secs(10));
        }
    }

    fn push(buffer: &LineBuffer, line: &[u8]) {
        buffer.append(|lines| lines.extend_from_slice(line));
    }

    #[test]
    fn unread_stream_drops_lines_without_blocking() {
        const LINES: u64 = 100;
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let sink = sink(File::from(OwnedFd::from(writer)));
        let stream = LogStream::with_sink(sink, "test", Duration::ZERO).unwrap();
        let buffer = stream.buffer(5 << 20);
        // Each is larger than the buffers of the socket and of one write together.
        let mut line = vec![b'a'; 1 << 20];
        line.push(b'\n');
        for _ in 0..LINES {
            push(&buffer, &line);
        }
        stream.flush(Instant::now());
        let dropped = stream.shared.dropped.get();
        // Received are those in the buffer and those being written.
        assert!(dropped >= LINES - 8, "{dropped}");
        drop((stream, buffer));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        assert_eq!(received.len() as u64, (LINES - dropped) * line.len() as u64);
    }

    #[test]
    fn lines_of_all_buffers_are_written_whole_and_in_order() {
        const LINES: usize = 2_000;
        for batch_delay in [Duration::ZERO, Duration::from_millis(1)] {
            let mut file = tempfile::tempfile().unwrap();
            let sink = sink(file.try_clone().unwrap());
            let stream = LogStream::with_sink(sink, "test", batch_delay).unwrap();
            let threads = ["a", "b", "c"].map(|name| {
                let buffer = stream.buffer(1 << 20);
                std::thread::spawn(move || {
                    for n in 0..LINES {
                        push(&buffer, format!("{name} {n}\n").as_bytes());
                        if n % 100 == 0 {
                            // Lets the thread become idle.
                            std::thread::sleep(Duration::from_millis(3));
                        }
                    }
                })
            });
            // A buffer outlives its user.
            for thread in threads {
                thread.join().unwrap();
            }
            stream.flush(clock::monotonic() + Duration::from_secs(10));
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            for name in ["a", "b", "c"] {
                let lines = text.lines().filter(|line| line.starts_with(name));
                let expected = (0..LINES).map(|n| format!("{name} {n}"));
                assert!(lines.eq(expected), "{name}");
            }
            assert_eq!(text.lines().count(), 3 * LINES);
        }
    }

    #[test]
    fn single_line_is_written_without_flush() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let sink = sink(File::from(OwnedFd::from(writer)));
        let stream = LogStream::with_sink(sink, "test", Duration::from_secs(3600)).unwrap();
        let buffer = stream.buffer(1 << 20);
        push(&buffer, b"first\n");
        let mut line = [0; 6];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"first\n");
        // Within the delay, a full buffer is written at once.
        let mut batch = vec![b'a'; MAX_BATCH];
        push(&buffer, &batch);
        reader.read_exact(&mut batch).unwrap();
    }
}
