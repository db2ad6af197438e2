//! What bounds the reading of a head, and what may come instead of one.

use std::io;
use std::time::Duration;

use super::head::{HeadRejection, Outline};
use super::{DownstreamConnection, Window};
use crate::rejection::{Reason, Refusal};

/// What came instead of a request head.
#[derive(Debug)]
pub enum HeadError {
    /// The client went away, or stayed silent past the keep-alive.
    Closed,
    /// The HTTP/2 preface: the bytes are still unread.
    Http2,
    Rejected(HeadRejection),
}

/// Reports a request that Pingora refused before any of its hooks ran.
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

/// The deadlines and the size of a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    pub size: usize,
    /// Header fields.
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
    /// What can be parsed of a head that was refused.
    pub fn outline(&self) -> Outline {
        Outline::read(&self.unread)
    }

    /// Sends the last response. What the client still sends is read off at the end of the connection.
    ///
    /// # Errors
    /// See [`Connection::deliver`].
    pub async fn send_last(&mut self, response: &[u8]) -> io::Result<()> {
        self.window = Window::Everything;
        self.unsent.extend_from_slice(response);
        self.flush_coalesced().await
    }
}
