//! Responses to bytes that never became a request.

use http::HeaderMap;

use super::error_body::ErrorFormat;
use super::{RefusalResponse, response_headers};
use crate::clock;
use crate::rejection::Refusal;
use crate::telemetry::request_id::{RequestId, X_REQUEST_ID};

/// An answer to bytes that never became a request.
pub struct EarlyResponse {
    pub request_id: RequestId,
    pub bytes: Vec<u8>,
    /// Bytes of the body.
    pub body_length: usize,
}

/// Renders a refusal as HTTP/1.1, for a connection that closes after it. Nothing that the client
/// sent was understood, so it is JSON.
pub fn render_early_response(refusal: Refusal) -> EarlyResponse {
    let request_id = RequestId::generate();
    let answer = RefusalResponse::from(refusal);
    let body = ErrorFormat::Json.body(&answer, request_id.as_str(), None);
    let status = refusal.status();
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default()
    )
    .into_bytes();
    let mut headers = response_headers(&answer, ErrorFormat::Json, &HeaderMap::new());
    headers.push((X_REQUEST_ID, request_id.header()));
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(
        format!(
            "date: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            httpdate::fmt_http_date(clock::system_time()),
            body.len(),
        )
        .as_bytes(),
    );
    EarlyResponse {
        request_id,
        bytes,
        body_length: body.len(),
    }
}
