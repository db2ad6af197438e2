//! Flow control of an HTTP/2 connection, followed from its frames (RFC 9113, section 5.2).
//!
//! A response waits while the client grants no window, and neither Pingora nor h2 bounds this wait:
//! for both, the response may even be complete while it waits in h2's buffer. This module tracks
//! every stalled response, from an upstream or local, and resets its stream after the write
//! deadline.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::http2_frames::{FrameEvent, FrameReader, RST_STREAM};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
/// Initial size of a window (RFC 9113, section 6.9.2).
const INITIAL_WINDOW: i64 = 65_535;
/// RST_STREAM with CANCEL.
const RESET_SIZE: usize = 13;
/// Number of checks of stalled responses within the deadline.
const CHECKS_PER_TIMEOUT: u32 = 8;
/// Maximum number of tracked streams per connection. h2 ends a connection that opens this many
/// streams beyond its limit.
const MAX_STREAMS: usize = 20_000;

/// The send windows of one connection.
#[derive(Debug)]
pub(super) struct Http2Flow {
    timeout: Duration,
    inbound: FrameReader,
    outbound: FrameReader,
    windows: Windows,
    timer: Option<Pin<Box<Sleep>>>,
    /// Requests that Pingora has rejected without a hook.
    bare_refusals: usize,
    /// Streams to reset, toward h2 first and then toward the client.
    overdue: Vec<u32>,
    cut: Vec<u32>,
    /// Checks since a stream became overdue that could not be reset yet.
    waited: u32,
}

#[derive(Debug)]
struct Windows {
    initial: i64,
    connection: i64,
    connection_stalled: Option<Instant>,
    streams: HashMap<u32, StreamWindow, foldhash::fast::RandomState>,
    last_opened: u32,
    /// A response may be stalled.
    suspect: bool,
}

#[derive(Debug, Default)]
struct StreamWindow {
    /// The credit granted beyond the initial window, less the bytes sent.
    balance: i64,
    /// The response has begun.
    responding: bool,
    stalled: Option<Instant>,
}

impl Http2Flow {
    pub(super) fn new(timeout: Duration) -> Http2Flow {
        Http2Flow {
            timeout,
            inbound: FrameReader::after_preface(),
            outbound: FrameReader::default(),
            windows: Windows {
                initial: INITIAL_WINDOW,
                connection: INITIAL_WINDOW,
                connection_stalled: None,
                streams: HashMap::default(),
                last_opened: 0,
                suspect: false,
            },
            timer: None,
            bare_refusals: 0,
            overdue: Vec::new(),
            cut: Vec::new(),
            waited: 0,
        }
    }

    /// Parses bytes that the client sent.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.inbound
            .read(bytes, |event| self.windows.receive(event));
    }

    /// Parses bytes that h2 wrote.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let (windows, refusals) = (&mut self.windows, &mut self.bare_refusals);
        self.outbound.read(bytes, |event| {
            *refusals += usize::from(windows.is_bare_refusal(event));
            windows.send(event);
        });
    }

    /// Returns the number of requests that Pingora has rejected without a hook since the last call.
    pub(super) fn take_bare_refusals(&mut self) -> usize {
        std::mem::take(&mut self.bare_refusals)
    }

    /// Whether a response waits for a window.
    pub(super) fn is_stalled(&mut self) -> bool {
        self.windows.suspect = self.windows.suspect && self.windows.is_stalled();
        self.windows.suspect
    }

    /// Returns a reset for h2 to read, as if the client had sent it, when the client has taken
    /// nothing of a response for the deadline.
    ///
    /// # Errors
    /// The client has stopped in the middle of a frame for another deadline, so no other frame can
    /// be inserted before its rest.
    pub(super) fn poll_reset(
        &mut self,
        cx: &mut Context<'_>,
    ) -> io::Result<Option<[u8; RESET_SIZE]>> {
        if self.windows.suspect {
            self.poll_stalled(cx)?;
        }
        if !self.inbound.is_between_frames() {
            return Ok(None);
        }
        Ok(self.overdue.pop().map(|stream| {
            self.windows.streams.remove(&stream);
            self.cut.push(stream);
            reset_of(stream)
        }))
    }

    /// The number of bytes that one read may take: while a reset is pending, no more than to the
    /// end of a frame, because a client that sends without a pause need not end a frame where a
    /// read ends.
    pub(super) fn room(&self) -> usize {
        if self.overdue.is_empty() {
            return usize::MAX;
        }
        self.inbound.until_next_part()
    }

    /// Continues to measure after a write.
    ///
    /// # Errors
    /// As [`Http2Flow::poll_reset`].
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.windows.suspect {
            self.poll_stalled(cx)?;
            if !self.overdue.is_empty() {
                // h2 has to read again.
                cx.waker().wake_by_ref();
            }
        }
        Ok(())
    }

    /// Returns the resets for the client, once h2 has written every frame that it had begun.
    pub(super) fn resets(&mut self) -> impl Iterator<Item = [u8; RESET_SIZE]> {
        let ready = self.outbound.is_between_frames();
        let count = if ready { self.cut.len() } else { 0 };
        self.cut.drain(..count).map(reset_of)
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let step = self.timeout / CHECKS_PER_TIMEOUT;
        let timer = &mut self.timer;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep(step)));
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if !self.overdue.is_empty() {
                self.waited += 1;
                if self.waited >= CHECKS_PER_TIMEOUT {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                timer.as_mut().reset(now + step);
                continue;
            }
            self.waited = 0;
            self.windows
                .collect_overdue(now, self.timeout, &mut self.overdue);
            if !self.windows.suspect {
                self.timer = None;
                return Ok(());
            }
            timer.as_mut().reset(now + step);
        }
        Ok(())
    }
}

impl Windows {
    fn receive(&mut self, event: FrameEvent) {
        match event {
            FrameEvent::Frame {
                kind: HEADERS,
                stream,
                ..
            } if stream > self.last_opened => {
                self.last_opened = stream;
                if self.streams.len() < MAX_STREAMS {
                    self.streams.insert(stream, StreamWindow::default());
                }
            }
            FrameEvent::Frame {
                kind: RST_STREAM,
                stream,
                ..
            } => {
                self.streams.remove(&stream);
            }
            FrameEvent::Setting {
                name: SETTINGS_INITIAL_WINDOW_SIZE,
                value,
            } => {
                // Open windows change with it (RFC 9113, section 6.9.2).
                self.suspect |= i64::from(value) < self.initial;
                self.initial = i64::from(value);
            }
            FrameEvent::WindowUpdate {
                stream: 0,
                increment,
            } => self.connection += i64::from(increment),
            FrameEvent::WindowUpdate { stream, increment } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.balance += i64::from(increment);
                }
            }
            FrameEvent::Frame { .. } | FrameEvent::Setting { .. } => {}
        }
    }

    fn send(&mut self, event: FrameEvent) {
        let FrameEvent::Frame {
            kind,
            flags,
            stream,
            length,
        } = event
        else {
            return;
        };
        if kind == DATA && length > 0 {
            self.connection -= i64::from(length);
            self.connection_stalled = stalled_since(self.connection);
            self.suspect |= self.connection <= 0;
        }
        let ends = match kind {
            DATA | HEADERS => flags & END_STREAM != 0,
            RST_STREAM => true,
            _ => return,
        };
        if ends {
            self.streams.remove(&stream);
        } else if let Some(stream) = self.streams.get_mut(&stream) {
            stream.responding = true;
            if kind == HEADERS || length > 0 {
                stream.balance -= i64::from(if kind == DATA { length } else { 0 });
                stream.stalled = stalled_since(self.initial + stream.balance);
            }
            self.suspect |= self.initial + stream.balance <= 0 || self.connection <= 0;
        }
    }

    /// Whether this is the response that Pingora makes, before any hook runs, to a request whose
    /// authority is missing or ambiguous: a status alone, one byte. Every other response has a
    /// date.
    fn is_bare_refusal(&self, event: FrameEvent) -> bool {
        let FrameEvent::Frame {
            kind: HEADERS,
            flags,
            stream,
            length: 1,
        } = event
        else {
            return false;
        };
        // Trailers can be as short.
        let begins = self.streams.get(&stream).is_some_and(|it| !it.responding);
        begins && flags & END_STREAM != 0
    }

    fn is_stalled(&self) -> bool {
        let all = self.connection <= 0;
        let mut streams = self.streams.values();
        streams.any(|it| it.responding && (all || self.initial + it.balance <= 0))
    }

    /// Finds the responses of which the client has taken nothing for the timeout.
    fn collect_overdue(&mut self, now: Instant, timeout: Duration, overdue: &mut Vec<u32>) {
        let late = |since: &mut Option<Instant>, stalled: bool| {
            *since = stalled.then(|| since.unwrap_or(now));
            since.is_some_and(|since| now.saturating_duration_since(since) >= timeout)
        };
        let all = self.connection <= 0;
        let all_late = late(&mut self.connection_stalled, all);
        self.suspect = false;
        for (id, stream) in &mut self.streams {
            let waits = stream.responding && self.initial + stream.balance <= 0;
            if late(&mut stream.stalled, waits) || (all_late && stream.responding) {
                overdue.push(*id);
            }
            self.suspect |= waits || (all && stream.responding);
        }
    }
}

/// Returns the start of a stall, if data that was just sent has used up the window.
fn stalled_since(window: i64) -> Option<Instant> {
    (window <= 0).then(Instant::now)
}

fn reset_of(stream: u32) -> [u8; RESET_SIZE] {
    let [a, b, c, d] = stream.to_be_bytes();
    // Length 4, no flags, CANCEL (RFC 9113, section 6.4).
    [0, 0, 4, RST_STREAM, 0, a, b, c, d, 0, 0, 0, 8]
}
