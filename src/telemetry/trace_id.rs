//! The identifier of a trace, as logs and events carry it.

/// The identifier of a trace, in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// Takes 32 hexadecimal digits.
    pub fn read(hex: &[u8]) -> Option<TraceId> {
        hex.try_into().ok().map(TraceId)
    }

    /// `None` where it is the request's own identifier, which the log has already.
    pub fn unless_request_id(self, request_id: &[u8]) -> Option<TraceId> {
        (self.0 != *request_id).then_some(self)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}
