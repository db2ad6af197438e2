//! Classification of Pingora's errors.

use pingora::{Error, ErrorType};

use crate::upstream::UpstreamError;

/// Classifies an error of the connection to a server.
pub(super) fn upstream_error(error: &Error) -> UpstreamError {
    use ErrorType as E;
    match error.etype() {
        E::ConnectTimedout | E::TLSHandshakeTimedout | E::ReadTimedout | E::WriteTimedout => {
            UpstreamError::Timeout
        }
        E::ConnectRefused | E::ConnectNoRoute | E::ConnectError => UpstreamError::Connect,
        E::SocketError | E::BindError | E::ConnectProxyFailure => UpstreamError::Connect,
        E::TLSHandshakeFailure | E::InvalidCert | E::HandshakeError => UpstreamError::Tls,
        E::TLSWantX509Lookup => UpstreamError::Tls,
        E::ConnectionClosed | E::ReadError | E::WriteError => UpstreamError::Reset,
        E::H2Error if is_reset(error) => UpstreamError::Reset,
        _ => UpstreamError::Protocol,
    }
}

/// Whether the server itself ended the HTTP/2 stream or the connection.
fn is_reset(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    cause.is_some_and(|cause| cause.is_remote() || cause.is_io())
}
