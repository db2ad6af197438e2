//! Heads of HTTP/2 responses, written like those of HTTP/1.1.

use http::{HeaderMap, StatusCode};

use super::{MAX_SIZE, MalformedResponse, ResponseHead, TOO_LARGE};

impl ResponseHead {
    /// Takes over the head of an HTTP/2 response.
    ///
    /// # Errors
    /// A client of HTTP/1.1 could not delimit the response.
    pub fn of_http2(
        status: StatusCode,
        fields: &HeaderMap,
    ) -> Result<ResponseHead, MalformedResponse> {
        let mut head = ResponseHead {
            status: status.as_u16(),
            is_http2: true,
            ..ResponseHead::default()
        };
        let reason = status.canonical_reason().unwrap_or_default();
        head.write(&["HTTP/1.1 ", status.as_str(), " ", reason].map(str::as_bytes));
        head.lines.first_end = head.lines.bytes.len() as u32;
        for (name, value) in fields {
            let start = head.lines.bytes.len();
            head.write(&[name.as_str().as_bytes(), b": ", value.as_bytes()]);
            let end = head.lines.bytes.len();
            if end > MAX_SIZE {
                return Err(MalformedResponse(TOO_LARGE));
            }
            head.field(start, end - 2)?;
        }
        head.lines.bytes.extend_from_slice(b"\r\n");
        head.complete(head.lines.bytes.len())?;
        Ok(head)
    }

    /// Writes one line.
    fn write(&mut self, parts: &[&[u8]]) {
        for part in parts.iter().chain(&[&b"\r\n"[..]]) {
            self.lines.bytes.extend_from_slice(part);
        }
        self.complete_lines += 1;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use http::header::HeaderName;

    use super::*;
    use crate::pipeline::client_response::framing::ResponseFraming;

    fn head(status: u16, fields: &[(&str, &str)]) -> Result<ResponseHead, MalformedResponse> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        ResponseHead::of_http2(StatusCode::from_u16(status).unwrap(), &map)
    }

    #[test]
    fn head_is_written_like_one_of_http_1_1() {
        let received = head(200, &[("a", "1"), ("b", ""), ("a", "2")]).unwrap();
        let text = String::from_utf8(received.lines.bytes.clone()).unwrap();
        assert_eq!(text, "HTTP/1.1 200 OK\r\na: 1\r\na: 2\r\nb: \r\n\r\n");
        assert_eq!(received.lines.first_line(), b"HTTP/1.1 200 OK\r\n");
        assert_eq!(received.lines.fields().count(), 3);
        assert_eq!(received.status, 200);
    }

    #[test]
    fn length_delimits_the_body_or_the_end_of_the_stream_does() {
        for (status, fields, expected) in [
            (200, &[][..], Some(ResponseFraming::UntilClose)),
            (
                200,
                &[("content-length", "5")],
                Some(ResponseFraming::Length(5)),
            ),
            (
                200,
                &[("content-length", "5, 5")],
                Some(ResponseFraming::Length(5)),
            ),
            (204, &[("content-length", "0")], Some(ResponseFraming::None)),
            (304, &[("content-length", "5")], Some(ResponseFraming::None)),
            (200, &[("content-length", "5, 6")], None),
            (200, &[("content-length", "x")], None),
        ] {
            let received = head(status, fields).ok();
            let framing = received.map(|head| head.framing(false));
            assert_eq!(framing, expected, "{status} {fields:?}");
        }
    }

    #[test]
    fn head_that_is_too_large_is_an_error() {
        let value = "x".repeat(MAX_SIZE);
        assert!(head(200, &[("a", &value)]).is_err());
    }
}
