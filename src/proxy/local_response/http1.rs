//! A local response as bytes of HTTP/1.1.

use crate::pipeline::local_response::{LocalResponse, ResponseContext};
use crate::proxy::http1::{buffer_pool, date};

/// Bytes of most heads.
const TYPICAL_HEAD: usize = 1024;

/// What a response announces about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Persistence {
    /// It ends after the response.
    Close,
    /// It continues; for an HTTP/1.0 client that has to be said (RFC 9112, appendix C.2.2).
    Keep { is_http10: bool },
}

/// Writes a response, and returns how many bytes of a body it has.
pub(in crate::proxy) fn write(
    out: &mut Vec<u8>,
    response: &LocalResponse,
    context: &ResponseContext<'_>,
    persistence: Persistence,
) -> usize {
    let mut buffer = buffer_pool::take();
    let body = response.body(context.request_id, &mut buffer);
    out.reserve(TYPICAL_HEAD + body.len());
    let phrase = response.status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(phrase.as_bytes());
    out.extend_from_slice(b"\r\n");
    response.write_fields(context, body.len(), out);
    date::write(out);
    out.extend_from_slice(match persistence {
        Persistence::Close => b"connection: close\r\n",
        Persistence::Keep { is_http10: true } => b"connection: keep-alive\r\n",
        Persistence::Keep { is_http10: false } => b"",
    });
    out.extend_from_slice(b"\r\n");
    let body = match response.sends_body(context.method) {
        true => body,
        false => &[],
    };
    out.extend_from_slice(body);
    let sent = body.len();
    buffer_pool::give(buffer);
    sent
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use http::header::{self, HeaderValue};
    use http::{Method, StatusCode};

    use super::*;
    use crate::telemetry::request_id::RequestId;

    /// A response without its date.
    fn written(status: u16, method: &Method, persistence: Persistence) -> String {
        let status = StatusCode::from_u16(status).unwrap();
        let cookies = ["a=1", "b=2"].map(|it| (header::SET_COOKIE, HeaderValue::from_static(it)));
        let response = LocalResponse::new(status, cookies.to_vec(), "body");
        let context = ResponseContext {
            request_id: &RequestId::keep_or_generate(Some(b"id-1")),
            method,
            is_http2: false,
            settings: None,
            services: None,
            hsts: None,
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &response, &context, persistence);
        let text = String::from_utf8(bytes).unwrap();
        let (before, rest) = text.split_once("date: ").unwrap();
        format!("{before}{}", rest.split_once("\r\n").unwrap().1)
    }

    #[test]
    fn response_is_written_with_all_its_parts() {
        let expected = "HTTP/1.1 429 Too Many Requests\r\n\
             set-cookie: a=1\r\n\
             set-cookie: b=2\r\n\
             x-request-id: id-1\r\n\
             x-content-type-options: nosniff\r\n\
             content-length: 4\r\n\
             connection: close\r\n\
             \r\n\
             body";
        assert_eq!(written(429, &Method::GET, Persistence::Close), expected);
    }

    #[test]
    fn response_to_a_head_has_a_length_and_no_body() {
        let keep = Persistence::Keep { is_http10: false };
        let head = written(200, &Method::HEAD, keep);
        assert!(head.contains("content-length: 4\r\n"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        let empty = written(204, &Method::GET, keep);
        assert!(!empty.contains("content-length"), "{empty}");
        assert!(empty.ends_with("\r\n\r\n"), "{empty}");
    }

    #[test]
    fn connection_is_named_only_where_the_default_differs() {
        for (persistence, expected) in [
            (Persistence::Close, Some("connection: close\r\n")),
            (Persistence::Keep { is_http10: false }, None),
            (
                Persistence::Keep { is_http10: true },
                Some("connection: keep-alive\r\n"),
            ),
        ] {
            let text = written(200, &Method::GET, persistence);
            let line = text
                .split_inclusive("\r\n")
                .find(|line| line.starts_with("connection"));
            assert_eq!(line, expected, "{persistence:?}");
        }
    }
}
