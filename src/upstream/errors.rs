//! Kinds of upstream errors, for the metrics.

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
}
