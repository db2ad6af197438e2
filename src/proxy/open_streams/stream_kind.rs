//! How long a response is expected to last.

/// The media type of an event stream (HTML, section 9.2).
pub(in crate::proxy) const EVENT_STREAM: &[u8] = b"text/event-stream";

/// How long a response is expected to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamKind {
    /// Expected to end soon.
    Short,
    /// May last long and ends by itself: a gRPC call.
    Call,
    /// Has no end of its own: a WebSocket, an event stream.
    Endless,
}

impl StreamKind {
    /// Derives the kind of a response from its media type. Case is insignificant (RFC 9110, section
    /// 8.3.1), and gRPC's may continue after a `+`.
    pub fn of_media_type(content: &[u8]) -> StreamKind {
        let begins = |name: &[u8]| {
            let start = content.get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let rest = content.get(EVENT_STREAM.len()..).unwrap_or_default();
        let whole = matches!(rest.trim_ascii_start().first(), None | Some(b';'));
        if begins(EVENT_STREAM) && whole {
            StreamKind::Endless
        } else if begins(b"application/grpc") {
            StreamKind::Call
        } else {
            StreamKind::Short
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_kind_follows_the_media_type() {
        for (content, kind) in [
            ("text/event-stream", StreamKind::Endless),
            ("Text/Event-Stream;charset=UTF-8", StreamKind::Endless),
            ("TEXT/EVENT-STREAM ; charset=utf-8", StreamKind::Endless),
            ("text/event-streams", StreamKind::Short),
            ("text/event", StreamKind::Short),
            ("application/grpc", StreamKind::Call),
            ("Application/GRPC+proto", StreamKind::Call),
            ("application/json", StreamKind::Short),
            ("", StreamKind::Short),
        ] {
            assert_eq!(
                StreamKind::of_media_type(content.as_bytes()),
                kind,
                "{content}"
            );
        }
    }
}
