//! The headers of every local response, and the rules about its body.

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::{LocalResponse, NOSNIFF};
use crate::telemetry::request_id::{RequestId, X_REQUEST_ID};

/// The facts about a request that complete its response.
#[derive(Debug, Clone, Copy)]
pub struct Completion<'a> {
    pub request_id: &'a RequestId,
    pub method: &'a Method,
    pub is_http2: bool,
    /// The value of `Strict-Transport-Security`, for a client that uses TLS: over plain HTTP browsers
    /// ignore it (RFC 6797, section 8.1).
    pub hsts: Option<&'a HeaderValue>,
}

impl LocalResponse {
    /// Adds the headers of every response and the length of the body, and removes a body that the
    /// client does not receive. An engine adds only what frames it on the connection.
    #[must_use]
    pub fn complete(mut self, request: &Completion<'_>) -> LocalResponse {
        self.headers.reserve(4);
        self.set(X_REQUEST_ID, || request.request_id.header());
        self.set(header::X_CONTENT_TYPE_OPTIONS, || NOSNIFF);
        if let Some(hsts) = request.hsts {
            self.set(header::STRICT_TRANSPORT_SECURITY, || hsts.clone());
        }
        let bodiless = self.status == StatusCode::NO_CONTENT || self.status.is_informational();
        let is_head_alone = self.is_trailers_only && request.is_http2;
        // The response to a HEAD has the length that a GET would have.
        if !bodiless && !is_head_alone {
            let length = self.body.len();
            self.set(header::CONTENT_LENGTH, || length.into());
        }
        if bodiless || request.method == Method::HEAD {
            self.body.clear();
        }
        self
    }

    /// Adds a header unless the response has it.
    fn set(&mut self, name: HeaderName, value: impl FnOnce() -> HeaderValue) {
        if !self.headers.iter().any(|(other, _)| *other == name) {
            self.headers.push((name, value()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn complete(response: LocalResponse, method: &Method, is_http2: bool) -> LocalResponse {
        let request_id = RequestId::keep_or_generate(Some(b"id-1"));
        response.complete(&Completion {
            request_id: &request_id,
            method,
            is_http2,
            hsts: Some(&HeaderValue::from_static("max-age=1")),
        })
    }

    fn text(response: &LocalResponse, name: &str) -> Option<String> {
        let mut headers = response.headers.iter();
        let (_, value) = headers.find(|(other, _)| *other == name)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn length_and_body_follow_status_and_method() {
        for (status, method, length, body) in [
            (200, Method::GET, Some("4"), "body"),
            (200, Method::HEAD, Some("4"), ""),
            (429, Method::POST, Some("4"), "body"),
            (204, Method::GET, None, ""),
            (204, Method::HEAD, None, ""),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let response = LocalResponse::new(status, Vec::new(), "body");
            let response = complete(response, &method, false);
            assert_eq!(
                text(&response, "content-length").as_deref(),
                length,
                "{status} {method}"
            );
            assert_eq!(response.body, body, "{status} {method}");
        }
    }

    #[test]
    fn every_response_has_the_common_headers_once() {
        let own = vec![
            (header::X_CONTENT_TYPE_OPTIONS, NOSNIFF),
            (header::CONTENT_LENGTH, HeaderValue::from_static("9")),
        ];
        let response = LocalResponse::new(StatusCode::OK, own, "");
        let response = complete(response, &Method::HEAD, false);
        assert_eq!(response.headers.len(), 4);
        for (name, value) in [
            ("x-request-id", "id-1"),
            ("x-content-type-options", "nosniff"),
            ("strict-transport-security", "max-age=1"),
            ("content-length", "9"),
        ] {
            assert_eq!(text(&response, name).as_deref(), Some(value));
        }
    }

    #[test]
    fn outcome_of_a_call_has_no_length_on_http2() {
        for (is_http2, length) in [(true, None), (false, Some("0"))] {
            let response = LocalResponse {
                is_trailers_only: true,
                ..LocalResponse::new(StatusCode::OK, Vec::new(), "")
            };
            let response = complete(response, &Method::POST, is_http2);
            assert_eq!(text(&response, "content-length").as_deref(), length);
        }
    }
}
