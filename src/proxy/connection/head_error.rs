//! Limits on reading a head, and the errors in its place.

use super::head::HeadRejection;
use crate::proxy::http1::timer_wheel::Ticks;
use crate::rejection::{Reason, Refusal};
use crate::settings::ConnectionLimits;

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
    pub timeout: Ticks,
    /// From the end of a request to the next head's first byte.
    pub idle: Ticks,
}

impl HeadLimits {
    pub fn new(limits: &ConnectionLimits) -> HeadLimits {
        HeadLimits {
            size: limits.head,
            fields: limits.fields,
            timeout: Ticks::of(limits.head_timeout),
            idle: Ticks::of(limits.keepalive),
        }
    }
}

impl HeadError {
    pub(in crate::proxy) fn too_large() -> HeadError {
        HeadError::Rejected(HeadRejection {
            refusal: Refusal::HeadersTooLarge,
            reason: Reason::Head("the head is larger than allowed"),
        })
    }

    pub(in crate::proxy) fn late() -> HeadError {
        HeadError::Rejected(HeadRejection {
            refusal: Refusal::RequestTimeout,
            reason: Reason::Head("the head was not complete in time"),
        })
    }

    pub(in crate::proxy) fn broken_off() -> HeadError {
        HeadError::Rejected(HeadRejection {
            refusal: Refusal::BadRequest,
            reason: Reason::Head("the head broke off"),
        })
    }
}
