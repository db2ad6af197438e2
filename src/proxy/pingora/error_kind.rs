//! Translation of Pingora's errors.

use pingora::{Error, ErrorSource, ErrorType};

use crate::proxy::retry::Failure;

/// Translates an error of Pingora's.
pub(in crate::proxy) fn failure_of(error: &Error) -> Failure {
    use ErrorType as E;
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, kind) => match kind {
            E::ReadTimedout => Failure::ClientTimeout,
            E::ConnectionClosed | E::ReadError | E::WriteError => Failure::ClientGone,
            E::WriteTimedout | E::H2Error => Failure::ClientGone,
            _ => Failure::InvalidRequest,
        },
        (_, E::HTTPStatus(503)) => Failure::NoServer,
        (_, E::ConnectRefused) => Failure::ConnectRefused,
        (_, E::ConnectTimedout) => Failure::ConnectTimeout,
        (_, E::ConnectNoRoute) => Failure::NoRouteToServer,
        (_, E::ConnectError | E::SocketError | E::BindError) => Failure::ConnectFailed,
        (_, E::TLSHandshakeTimedout) => Failure::TlsTimeout,
        (_, E::InvalidCert) => Failure::InvalidCertificate,
        (_, E::TLSHandshakeFailure | E::HandshakeError) => Failure::TlsFailed,
        (_, E::ReadTimedout) => Failure::ReadTimeout,
        (_, E::WriteTimedout) => Failure::WriteTimeout,
        (ErrorSource::Internal | ErrorSource::Unset, _) => Failure::Internal,
        (_, E::ConnectionClosed | E::ReadError | E::WriteError) => Failure::ConnectionEnded,
        (_, E::H2Error) if is_reset(error) => Failure::StreamReset,
        // Among others, `InvalidChunk`.
        _ => Failure::InvalidResponse,
    }
}

/// The error of h2 from which this one arises.
pub(in crate::proxy) fn http2_cause_of(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}

/// Whether the server itself ended the HTTP/2 stream or the connection.
fn is_reset(error: &Error) -> bool {
    http2_cause_of(error).is_some_and(|cause| cause.is_remote() || cause.is_io())
}

/// Whether the upstream has declared that it did not process the request: the stream was refused,
/// or is above the last one of a GOAWAY (RFC 9113, sections 6.8 and 8.7). Streams at or below it
/// end with another error.
pub(in crate::proxy) fn is_unprocessed(cause: &h2::Error) -> bool {
    let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    cause.is_remote() && (cause.is_go_away() || refused)
}

/// Whether the upstream closes the connection gracefully.
pub(super) fn is_graceful(cause: &h2::Error) -> bool {
    cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_translated_by_source_and_type() {
        use ErrorType as E;
        let errors = [
            (Error::new_down(E::ReadTimedout), Failure::ClientTimeout),
            (Error::new_down(E::ConnectionClosed), Failure::ClientGone),
            (Error::new_down(E::WriteTimedout), Failure::ClientGone),
            (Error::new_down(E::H2Error), Failure::ClientGone),
            (
                Error::new_down(E::InvalidHTTPHeader),
                Failure::InvalidRequest,
            ),
            (Error::new(E::HTTPStatus(503)), Failure::NoServer),
            (Error::new(E::HTTPStatus(500)), Failure::Internal),
            (Error::new_in(E::InternalError), Failure::Internal),
            (Error::new_up(E::ConnectRefused), Failure::ConnectRefused),
            (Error::new(E::ConnectTimedout), Failure::ConnectTimeout),
            (Error::new_up(E::TLSHandshakeTimedout), Failure::TlsTimeout),
            (Error::new_up(E::InvalidCert), Failure::InvalidCertificate),
            (Error::new_up(E::ReadTimedout), Failure::ReadTimeout),
            (Error::new_up(E::WriteTimedout), Failure::WriteTimeout),
            (Error::new_up(E::ReadError), Failure::ConnectionEnded),
            (Error::new_up(E::H2Error), Failure::InvalidResponse),
            (
                Error::new_up(E::InvalidHTTPHeader),
                Failure::InvalidResponse,
            ),
            (
                Error::new_up(E::new("InvalidChunk")),
                Failure::InvalidResponse,
            ),
        ];
        for (error, expected) in errors {
            assert_eq!(failure_of(&error), expected, "{error}");
        }
    }
}
