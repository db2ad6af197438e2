//! Classification of upstream errors, for the metrics.

use pingora::{Error, ErrorType};

/// Why an attempt to get a response from a server failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamError {
    /// No connection could be made.
    Connect,
    /// The server took too long to accept the connection, to read the request, or to respond.
    Timeout,
    /// The response is invalid.
    Protocol,
    /// The server ended the connection or the stream before the response was complete.
    Reset,
    /// The TLS handshake failed or the certificate was not accepted.
    Tls,
}

impl UpstreamError {
    pub const ALL: [UpstreamError; 5] = [
        UpstreamError::Connect,
        UpstreamError::Timeout,
        UpstreamError::Protocol,
        UpstreamError::Reset,
        UpstreamError::Tls,
    ];

    /// The `kind` label.
    pub fn as_str(self) -> &'static str {
        match self {
            UpstreamError::Connect => "connect",
            UpstreamError::Timeout => "timeout",
            UpstreamError::Protocol => "protocol",
            UpstreamError::Reset => "reset",
            UpstreamError::Tls => "tls",
        }
    }

    /// Classifies an error of the connection to a server.
    pub fn of(error: &Error) -> UpstreamError {
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
}

/// Whether the server itself ended the HTTP/2 stream or the connection.
fn is_reset(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    cause.is_some_and(|cause| cause.is_remote() || cause.is_io())
}
