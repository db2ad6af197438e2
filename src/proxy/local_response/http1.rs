//! A local response as bytes of HTTP/1.1.

use std::time::SystemTime;

use crate::pipeline::local_response::LocalResponse;

/// What a response announces about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Persistence {
    /// It ends after the response.
    Close,
    /// It continues; for an HTTP/1.0 client that has to be said (RFC 9112, appendix C.2.2).
    Keep { is_http10: bool },
}

/// Writes a complete response to `bytes`. Its body is empty where the client expects none.
pub(in crate::proxy) fn serialize(
    bytes: &mut Vec<u8>,
    response: &LocalResponse,
    persistence: Persistence,
    now: SystemTime,
) {
    bytes.reserve(512 + response.body.len());
    let mut push = |parts: &[&[u8]]| parts.iter().for_each(|it| bytes.extend_from_slice(it));
    let phrase = response.status.canonical_reason().unwrap_or_default();
    push(&[b"HTTP/1.1 ", response.status.as_str().as_bytes(), b" "]);
    push(&[phrase.as_bytes(), b"\r\n"]);
    for (name, value) in &response.headers {
        push(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    let date = httpdate::fmt_http_date(now);
    push(&[b"date: ", date.as_bytes(), b"\r\n"]);
    push(&[match persistence {
        Persistence::Close => &b"connection: close\r\n"[..],
        Persistence::Keep { is_http10: true } => b"connection: keep-alive\r\n",
        Persistence::Keep { is_http10: false } => b"",
    }]);
    push(&[b"\r\n", &response.body]);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use http::header::{self, HeaderValue};
    use http::{Method, StatusCode};

    use super::*;
    use crate::pipeline::local_response::Completion;
    use crate::telemetry::request_id::RequestId;

    fn written(status: u16, method: &Method, persistence: Persistence) -> String {
        let status = StatusCode::from_u16(status).unwrap();
        let cookies = ["a=1", "b=2"].map(|it| (header::SET_COOKIE, HeaderValue::from_static(it)));
        let response = LocalResponse::new(status, cookies.to_vec(), "body");
        let request_id = RequestId::keep_or_generate(Some(b"id-1"));
        let response = response.complete(&Completion {
            request_id: &request_id,
            method,
            is_http2: false,
            hsts: None,
        });
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let mut bytes = Vec::new();
        serialize(&mut bytes, &response, persistence, now);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn response_is_written_with_all_its_parts() {
        let expected = "HTTP/1.1 429 Too Many Requests\r\n\
             set-cookie: a=1\r\n\
             set-cookie: b=2\r\n\
             x-request-id: id-1\r\n\
             x-content-type-options: nosniff\r\n\
             content-length: 4\r\n\
             date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
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
