//! Writes whole lines to a standard stream.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::telemetry::metrics::IntCounter;

/// Time between attempts at a full non-blocking stream.
const RETRY_DELAY: Duration = Duration::from_millis(5);
/// Maximum memory of a buffer that is used again, in bytes.
const MAX_KEPT: usize = 256 * 1024;

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
    pub(super) fn open(self) -> io::Result<File> {
        let descriptor = match self {
            StandardStream::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            StandardStream::Stderr => io::stderr().as_fd().try_clone_to_owned(),
        };
        descriptor.map(File::from)
    }
}

/// The stream, as its thread writes it.
pub(super) struct Sink {
    file: File,
    dropped: IntCounter,
    /// Whether the stream failed in the middle of a line.
    ends_mid_line: bool,
}

impl Sink {
    pub(super) fn new(file: File, dropped: IntCounter) -> Sink {
        Sink {
            file,
            dropped,
            ends_mid_line: false,
        }
    }

    /// Counts the lines that are not written.
    pub(super) fn dropped(&self) -> &IntCounter {
        &self.dropped
    }

    /// Writes whole lines and clears the buffer. Lines that were not written are counted.
    pub(super) fn write(&mut self, lines: &mut Vec<u8>) {
        let mut written = 0;
        if !self.ends_mid_line || self.write_all(b"\n") == 1 {
            written = self.write_all(lines);
            self.ends_mid_line = written > 0 && lines.get(written - 1) != Some(&b'\n');
        }
        let lost = lines.get(written..).unwrap_or_default();
        let lost = lost.iter().filter(|byte| **byte == b'\n').count();
        self.dropped.inc_by(lost as u64);
        lines.clear();
        // A stream that was not read for a time has left large buffers.
        lines.shrink_to(MAX_KEPT);
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

    use super::*;

    fn sink(file: File) -> Sink {
        Sink::new(file, IntCounter::new("dropped", "lines").unwrap())
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
}
