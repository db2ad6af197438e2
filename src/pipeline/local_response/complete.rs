//! The headers of every local response, and the rules about its body.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::{Content, LocalResponse};
use crate::limits::{Decision, LimitHeaders};
use crate::pipeline::admission::AdmissionServices;
use crate::pipeline::header_fields::{FieldSink, add_number};
use crate::pipeline::own_field::{CONTENT_LENGTH, NOSNIFF, X_REQUEST_ID};
use crate::settings::Reloadable;
use crate::telemetry::request_id::RequestId;

/// The facts about a request on which its response depends, beside the response's own content.
#[derive(Clone, Copy)]
pub struct ResponseContext<'a> {
    pub request_id: &'a RequestId,
    pub method: &'a Method,
    pub is_http2: bool,
    /// Absent on the admin listener, and where no request was read.
    pub settings: Option<&'a Reloadable>,
    /// Absent where no limit is evaluated.
    pub services: Option<&'a AdmissionServices>,
    /// The value of `Strict-Transport-Security`, for a client that uses TLS: over plain HTTP browsers
    /// ignore it (RFC 6797, section 8.1).
    pub hsts: Option<&'a HeaderValue>,
}

impl<'a> ResponseContext<'a> {
    /// The limit headers; none where no limit was evaluated. Limits are counted by the store's clock,
    /// and so is the time at which they are reset.
    pub fn limit_headers(&self, decisions: &'a [Decision]) -> Option<LimitHeaders<'a>> {
        let services = self.services;
        let clock = || services.map_or(Duration::ZERO, AdmissionServices::store_clock);
        LimitHeaders::of(decisions, clock)
    }
}

impl LocalResponse {
    /// The body that a GET would receive. `buffer` holds one that is rendered for this request.
    pub fn body<'b>(&'b self, request_id: &RequestId, buffer: &'b mut Vec<u8>) -> &'b [u8] {
        match &self.content {
            Content::Complete(body) => body,
            Content::Allowed(_) => &[],
            Content::Error(error) => {
                error.write_body(request_id, buffer);
                buffer
            }
        }
    }

    /// The same body, for an engine that takes it over.
    pub fn body_bytes(&self, request_id: &RequestId) -> Bytes {
        match &self.content {
            Content::Complete(body) => body.clone(),
            Content::Allowed(_) => Bytes::new(),
            Content::Error(error) => {
                let mut buffer = Vec::new();
                error.write_body(request_id, &mut buffer);
                buffer.into()
            }
        }
    }

    /// Whether the client receives the body.
    pub fn sends_body(&self, method: &Method) -> bool {
        !self.is_bodiless() && *method != Method::HEAD
    }

    /// Writes all headers: those of the content, those of every response, and the length of the body.
    /// An engine adds only what frames it on the connection.
    pub fn write_fields(
        &self,
        context: &ResponseContext<'_>,
        body_length: usize,
        sink: &mut dyn FieldSink,
    ) {
        self.write_content_fields(context, sink);
        if self.lacks(&X_REQUEST_ID.name) {
            sink.add_checked(&X_REQUEST_ID, context.request_id.as_bytes());
        }
        if self.lacks(&NOSNIFF.name) {
            sink.add_own(&NOSNIFF);
        }
        if let Some(hsts) = context.hsts
            && self.lacks(&header::STRICT_TRANSPORT_SECURITY)
        {
            sink.add(&header::STRICT_TRANSPORT_SECURITY, hsts);
        }
        let is_head_alone = self.is_trailers_only && context.is_http2;
        // The response to a HEAD has the length that a GET would have.
        if !self.is_bodiless() && !is_head_alone && self.lacks(&CONTENT_LENGTH.name) {
            add_number(sink, &CONTENT_LENGTH, body_length as u64);
        }
    }

    /// Writes the headers of the content.
    pub fn write_content_fields(&self, context: &ResponseContext<'_>, sink: &mut dyn FieldSink) {
        match &self.content {
            Content::Complete(_) => {}
            Content::Error(error) => error.write_fields(context, sink),
            Content::Allowed(request) => request.write_fields(context, sink),
        }
        for (name, value) in &self.headers {
            sink.add(name, value);
        }
    }

    fn is_bodiless(&self) -> bool {
        self.status == StatusCode::NO_CONTENT || self.status.is_informational()
    }

    fn lacks(&self, name: &HeaderName) -> bool {
        !self.headers.iter().any(|(other, _)| other == name)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::pipeline::header_fields::FieldBuffer;

    /// The headers, and the body that is sent.
    fn written(
        response: &LocalResponse,
        method: &Method,
        is_http2: bool,
    ) -> (HeaderMap, &'static str) {
        let request_id = RequestId::keep_or_generate(Some(b"id-1"));
        let context = ResponseContext {
            request_id: &request_id,
            method,
            is_http2,
            settings: None,
            services: None,
            hsts: Some(&HeaderValue::from_static("max-age=1")),
        };
        let (mut headers, mut buffer) = (HeaderMap::new(), Vec::new());
        let body = response.body(&request_id, &mut buffer);
        response.write_fields(&context, body.len(), &mut headers);
        (
            headers,
            if response.sends_body(method) {
                "body"
            } else {
                ""
            },
        )
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name)?.to_str().ok()
    }

    #[test]
    fn length_and_body_follow_status_and_method() {
        for (status, method, length, body) in [
            (StatusCode::OK, Method::GET, Some("4"), "body"),
            (StatusCode::OK, Method::HEAD, Some("4"), ""),
            (
                StatusCode::TOO_MANY_REQUESTS,
                Method::POST,
                Some("4"),
                "body",
            ),
            (StatusCode::NO_CONTENT, Method::GET, None, ""),
            (StatusCode::NO_CONTENT, Method::HEAD, None, ""),
        ] {
            let response = LocalResponse::new(status, FieldBuffer::new(), "body");
            let (headers, sent) = written(&response, &method, false);
            assert_eq!(
                text(&headers, "content-length"),
                length,
                "{status} {method}"
            );
            assert_eq!(sent, body, "{status} {method}");
        }
    }

    #[test]
    fn every_response_has_the_common_headers_once() {
        let own = vec![
            (NOSNIFF.name.clone(), NOSNIFF.value.clone()),
            (header::CONTENT_LENGTH, HeaderValue::from_static("9")),
        ];
        let response = LocalResponse::new(StatusCode::OK, own, "");
        let (headers, _) = written(&response, &Method::HEAD, false);
        assert_eq!(headers.len(), 4);
        for (name, value) in [
            ("x-request-id", "id-1"),
            ("x-content-type-options", "nosniff"),
            ("strict-transport-security", "max-age=1"),
            ("content-length", "9"),
        ] {
            assert_eq!(text(&headers, name), Some(value));
        }
    }

    #[test]
    fn outcome_of_a_call_has_no_length_on_http2() {
        for (is_http2, length) in [(true, None), (false, Some("0"))] {
            let response = LocalResponse {
                is_trailers_only: true,
                ..LocalResponse::new(StatusCode::OK, FieldBuffer::new(), "")
            };
            let (headers, _) = written(&response, &Method::POST, is_http2);
            assert_eq!(text(&headers, "content-length"), length);
        }
    }
}
