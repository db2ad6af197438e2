//! Failures of forwarded requests, for every engine: whether an attempt is repeated, and what a
//! failure means to the client, in the log, in the metrics, and for the health of the server.

use http::Method;

use crate::rejection::{Reason, Refusal};
use crate::upstream::{AttemptOutcome, UpstreamError};

/// The status in the log of a request whose client has gone before it received a response.
pub(super) const CLIENT_GONE: u16 = 499;

/// An attempt that failed on an established connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailedAttempt<'a> {
    pub method: &'a Method,
    pub processing: Processing,
    pub body: BodyProgress,
    /// The head of a final response has gone to the client. An interim one may be followed by any
    /// other.
    pub has_responded: bool,
    /// A timeout has expired, or the request was closed from outside.
    pub is_over: bool,
    /// How often the request has been sent over a connection.
    pub sent: usize,
    /// Maximum number of repetitions.
    pub retries: usize,
}

/// Whether the server may have processed the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Processing {
    Possible,
    /// A pooled connection turned out to be closed: it ended before a final response began.
    StaleConnection,
    /// The upstream has declared that it did not: the stream was refused, or is above the last one
    /// of a GOAWAY (RFC 9113, sections 6.8 and 8.7).
    DeclaredUnprocessed,
}

/// How much of the client's body an attempt has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyProgress {
    Untouched,
    /// Part of it, which is still at hand.
    Buffered,
    /// Part of it, which is not at hand any more.
    Lost,
}

impl FailedAttempt<'_> {
    /// Whether the request is sent again, to this server or another: only if no server can have
    /// processed it, and its body can be sent again as a whole.
    pub(super) fn may_repeat(self) -> bool {
        let is_repeatable = match (self.processing, self.body) {
            (Processing::Possible, _) | (_, BodyProgress::Lost) => false,
            (Processing::DeclaredUnprocessed, _) => true,
            (Processing::StaleConnection, body) => {
                body == BodyProgress::Untouched && self.method.is_safe()
            }
        };
        is_repeatable && !self.is_over && !self.has_responded && self.sent <= self.retries
    }
}

/// Why a forwarded request got no complete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    // The client.
    ClientGone,
    ClientTimeout,
    InvalidRequest,
    MalformedChunks,
    BodyTooLarge,
    BodyTooSlow,
    BodyStalled,

    // The connection to a server.
    NoServer,
    ConnectRefused,
    ConnectTimeout,
    NoRouteToServer,
    ConnectFailed,
    TlsTimeout,
    InvalidCertificate,
    TlsFailed,

    // The exchange with a server.
    ReadTimeout,
    StreamIdle,
    WriteTimeout,
    ConnectionEnded,
    /// The server has reset an HTTP/2 stream, or its connection.
    StreamReset,
    InvalidResponse,

    /// A malfunction of the gateway.
    Internal,
}

/// The stage at which an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Exchanging,
}

/// The meaning of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Classification {
    /// `None`: there is no recipient for a response.
    refusal: Option<Refusal>,
    reason: Option<Reason>,
    /// The metric; `None`: the upstream did not fail.
    error: Option<UpstreamError>,
}

impl Failure {
    /// The refusal that the client receives; `None`: the client has gone.
    pub(super) fn refusal(self) -> Option<Refusal> {
        self.classify().refusal
    }

    /// The reason in the log.
    pub(super) fn reason(self) -> Option<Reason> {
        self.classify().reason
    }

    /// The kind of upstream error in the metrics; `None`: the upstream did not fail.
    pub(super) fn upstream_error(self) -> Option<UpstreamError> {
        self.classify().error
    }

    /// What the failure says about the health of the server. Only a failed connection attempt
    /// shows that the server cannot be reached.
    pub(super) fn outcome(self, stage: Stage) -> AttemptOutcome {
        match (self.upstream_error(), stage) {
            (Some(UpstreamError::Timeout), _) => AttemptOutcome::Timeout,
            (_, Stage::Connecting) => AttemptOutcome::ConnectFailed,
            (_, Stage::Exchanging) => AttemptOutcome::ProtocolError,
        }
    }

    /// Whether the failure of an established connection counts against the health of its server. A
    /// pooled connection that had been closed does not, nor does a stream that the server has declared
    /// unprocessed.
    pub(super) fn is_fault(self, is_reused: bool, is_unprocessed: bool) -> bool {
        let is_stale = is_reused && self == Failure::ConnectionEnded;
        !is_stale && !is_unprocessed
    }

    fn classify(self) -> Classification {
        use UpstreamError::{Connect, Protocol, Reset, Timeout, Tls};
        use {Failure as F, Refusal as R};
        let own = |refusal| (Some(refusal), None, None);
        let known = |refusal, reason| (Some(refusal), Some(reason), None);
        let server = |refusal, reason, error| (Some(refusal), Some(reason), Some(error));
        let (refusal, reason, error) = match self {
            F::ClientGone => (None, None, None),
            F::ClientTimeout => own(R::RequestTimeout),
            F::InvalidRequest => own(R::BadRequest),
            F::MalformedChunks => known(R::BadRequest, Reason::MalformedChunks),
            F::BodyTooLarge => own(R::BodyTooLarge),
            F::BodyTooSlow => known(R::RequestTimeout, Reason::BodyTooSlow),
            F::BodyStalled => known(R::RequestTimeout, Reason::BodyStalled),
            F::NoServer => known(R::UpstreamUnavailable, Reason::NoServer),
            F::ConnectRefused => server(R::UpstreamUnreachable, Reason::ConnectRefused, Connect),
            F::ConnectTimeout => server(R::UpstreamTimeout, Reason::ConnectTimeout, Timeout),
            F::NoRouteToServer => server(R::UpstreamUnreachable, Reason::NoRouteToServer, Connect),
            F::ConnectFailed => server(R::UpstreamUnreachable, Reason::ConnectFailed, Connect),
            F::TlsTimeout => server(R::UpstreamTimeout, Reason::TlsTimeout, Timeout),
            F::InvalidCertificate => {
                server(R::UpstreamUnreachable, Reason::InvalidCertificate, Tls)
            }
            F::TlsFailed => server(R::UpstreamUnreachable, Reason::TlsFailed, Tls),
            F::ReadTimeout => server(R::UpstreamTimeout, Reason::ReadTimeout, Timeout),
            F::StreamIdle => server(R::UpstreamTimeout, Reason::StreamIdle, Timeout),
            F::WriteTimeout => server(R::UpstreamTimeout, Reason::WriteTimeout, Timeout),
            F::ConnectionEnded => server(R::UpstreamProtocolError, Reason::ConnectionEnded, Reset),
            F::StreamReset => server(R::UpstreamProtocolError, Reason::InvalidResponse, Reset),
            F::InvalidResponse => {
                server(R::UpstreamProtocolError, Reason::InvalidResponse, Protocol)
            }
            F::Internal => own(R::Internal),
        };
        Classification {
            refusal,
            reason,
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: FailedAttempt<'_> = FailedAttempt {
        method: &Method::GET,
        processing: Processing::StaleConnection,
        body: BodyProgress::Untouched,
        has_responded: false,
        is_over: false,
        sent: 1,
        retries: 1,
    };

    #[test]
    fn only_what_no_server_can_have_processed_is_sent_again() {
        use BodyProgress::{Buffered, Lost, Untouched};
        use Processing::{DeclaredUnprocessed, Possible, StaleConnection};
        for (processing, body, safe, unsafe_) in [
            (Possible, Untouched, false, false),
            (Possible, Buffered, false, false),
            (Possible, Lost, false, false),
            (StaleConnection, Untouched, true, false),
            (StaleConnection, Buffered, false, false),
            (StaleConnection, Lost, false, false),
            (DeclaredUnprocessed, Untouched, true, true),
            (DeclaredUnprocessed, Buffered, true, true),
            (DeclaredUnprocessed, Lost, false, false),
        ] {
            for (method, expected) in [
                (&Method::GET, safe),
                (&Method::HEAD, safe),
                (&Method::OPTIONS, safe),
                (&Method::POST, unsafe_),
                // Idempotent, but not safe: the contract repeats safe methods alone.
                (&Method::PUT, unsafe_),
                (&Method::DELETE, unsafe_),
            ] {
                let attempt = FailedAttempt {
                    method,
                    processing,
                    body,
                    ..ATTEMPT
                };
                let case = format!("{method} {processing:?} {body:?}");
                assert_eq!(attempt.may_repeat(), expected, "{case}");
            }
        }
    }

    #[test]
    fn nothing_is_sent_again_after_a_response_or_beyond_retries() {
        for (has_responded, is_over, sent, retries, expected) in [
            (false, false, 1, 1, true),
            (false, false, 2, 1, false),
            (false, false, 2, 3, true),
            (false, false, 1, 0, false),
            (true, false, 1, 1, false),
            (false, true, 1, 1, false),
        ] {
            for processing in [Processing::StaleConnection, Processing::DeclaredUnprocessed] {
                let attempt = FailedAttempt {
                    processing,
                    has_responded,
                    is_over,
                    sent,
                    retries,
                    ..ATTEMPT
                };
                assert_eq!(attempt.may_repeat(), expected, "{attempt:?}");
            }
        }
    }

    #[test]
    fn failures_become_statuses_reasons_and_metrics() {
        for (failure, status, reason, error) in [
            (Failure::ClientGone, None, "", ""),
            (Failure::ClientTimeout, Some(408), "", ""),
            (Failure::InvalidRequest, Some(400), "", ""),
            (Failure::MalformedChunks, Some(400), "chunks", ""),
            (Failure::BodyTooLarge, Some(413), "", ""),
            (Failure::BodyTooSlow, Some(408), "body_rate", ""),
            (Failure::BodyStalled, Some(408), "timeouts.read", ""),
            (Failure::NoServer, Some(503), "in rotation", ""),
            (Failure::ConnectRefused, Some(502), "refused", "connect"),
            (
                Failure::ConnectTimeout,
                Some(504),
                "timeouts.connect",
                "timeout",
            ),
            (Failure::NoRouteToServer, Some(502), "no route", "connect"),
            (Failure::ConnectFailed, Some(502), "could not", "connect"),
            (
                Failure::TlsTimeout,
                Some(504),
                "timeouts.connect",
                "timeout",
            ),
            (Failure::InvalidCertificate, Some(502), "certificate", "tls"),
            (Failure::TlsFailed, Some(502), "TLS", "tls"),
            (Failure::ReadTimeout, Some(504), "timeouts.read", "timeout"),
            (Failure::StreamIdle, Some(504), "stream_idle", "timeout"),
            (
                Failure::WriteTimeout,
                Some(504),
                "timeouts.write",
                "timeout",
            ),
            (Failure::ConnectionEnded, Some(502), "ended", "reset"),
            (Failure::StreamReset, Some(502), "not valid", "reset"),
            (Failure::InvalidResponse, Some(502), "not valid", "protocol"),
            (Failure::Internal, Some(500), "", ""),
        ] {
            let actual = failure.refusal().map(|it| it.status().as_u16());
            assert_eq!(actual, status, "{failure:?}");
            let text = failure.reason().map_or("", Reason::as_str);
            assert!(text.contains(reason), "{failure:?}: {text}");
            assert_eq!(text.is_empty(), reason.is_empty(), "{failure:?}");
            let kind = failure.upstream_error().map_or("", UpstreamError::as_str);
            assert_eq!(kind, error, "{failure:?}");
        }
    }

    #[test]
    fn only_a_failed_connection_attempt_means_an_unreachable_server() {
        use AttemptOutcome::{ConnectFailed, ProtocolError, Timeout};
        for (failure, connecting, exchanging) in [
            (Failure::ConnectRefused, ConnectFailed, ProtocolError),
            (Failure::ConnectTimeout, Timeout, Timeout),
            (Failure::TlsTimeout, Timeout, Timeout),
            (Failure::TlsFailed, ConnectFailed, ProtocolError),
            (Failure::ReadTimeout, Timeout, Timeout),
            (Failure::StreamIdle, Timeout, Timeout),
            (Failure::WriteTimeout, Timeout, Timeout),
            (Failure::ConnectionEnded, ConnectFailed, ProtocolError),
            (Failure::InvalidResponse, ConnectFailed, ProtocolError),
        ] {
            assert_eq!(
                failure.outcome(Stage::Connecting),
                connecting,
                "{failure:?}"
            );
            assert_eq!(
                failure.outcome(Stage::Exchanging),
                exchanging,
                "{failure:?}"
            );
        }
    }

    #[test]
    fn stale_connections_and_unprocessed_streams_are_no_faults() {
        for (failure, is_reused, is_unprocessed, is_fault) in [
            (Failure::ConnectionEnded, false, false, true),
            (Failure::ConnectionEnded, true, false, false),
            (Failure::InvalidResponse, true, false, true),
            (Failure::ReadTimeout, true, false, true),
            (Failure::StreamReset, true, false, true),
            (Failure::StreamReset, false, true, false),
        ] {
            let actual = failure.is_fault(is_reused, is_unprocessed);
            assert_eq!(actual, is_fault, "{failure:?} {is_reused}");
        }
    }
}
