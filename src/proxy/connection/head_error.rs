//! Limits on reading a head, and the errors in its place.

use std::io;
use std::time::Duration;

use super::head::{HeadRejection, Outline};
use super::{DownstreamConnection, Window};
use crate::rejection::{Reason, Refusal};

/// Why no request head was read.
#[derive(Debug)]
pub enum HeadError {
    /// The client went away, or sent nothing for the keep-alive time.
    Closed,
    /// The HTTP/2 preface: the bytes are still unread.
    Http2,
    Rejected(HeadRejection),
}

/// Callback for requests that Pingora rejects before any of its hooks runs.
pub struct RefusalReport(Box<dyn Fn(HeadRejection) + Send + Sync>);

impl RefusalReport {
    /// `report` logs and counts the request.
    pub fn new(report: impl Fn(HeadRejection) + Send + Sync + 'static) -> RefusalReport {
        RefusalReport(Box::new(report))
    }

    pub(super) fn send(&self) {
        (self.0)(HeadRejection {
            refusal: Refusal::BadRequest,
            reason: Reason::Head("the authority is missing or ambiguous"),
        });
    }
}

impl std::fmt::Debug for RefusalReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RefusalReport")
    }
}

/// The deadlines and the size limits of a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    pub size: usize,
    /// Number of header fields.
    pub fields: usize,
    /// From the head's first byte.
    pub timeout: Duration,
    /// Until the head's first byte.
    pub idle: Duration,
}

impl HeadError {
    pub(super) fn too_large() -> HeadError {
        HeadError::Rejected(HeadRejection {
            refusal: Refusal::HeadersTooLarge,
            reason: Reason::Head("the head is larger than allowed"),
        })
    }

    pub(super) fn late() -> HeadError {
        HeadError::Rejected(HeadRejection {
            refusal: Refusal::RequestTimeout,
            reason: Reason::Head("the head was not complete in time"),
        })
    }

    pub(super) fn broken_off() -> HeadError {
        HeadError::Rejected(HeadRejection {
            refusal: Refusal::BadRequest,
            reason: Reason::Head("the head broke off"),
        })
    }
}

impl DownstreamConnection {
    /// The parts of a rejected head that can be parsed.
    pub fn outline(&self) -> Outline {
        Outline::read(&self.unread)
    }

    /// Sends the last response. Further bytes from the client are drained at the end of the
    /// connection.
    ///
    /// # Errors
    /// See [`DownstreamConnection::flush_coalesced`].
    pub async fn send_last(&mut self, response: &[u8]) -> io::Result<()> {
        self.window = Window::Everything;
        self.unsent.extend_from_slice(response);
        self.flush_coalesced().await
    }
}
