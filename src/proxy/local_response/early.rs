//! Responses to bytes that never became a request.

use std::time::Duration;

use http::{HeaderMap, Method, Version};

use crate::clock;
use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::Fields;
use crate::pipeline::local_response::{self, RejectedRequest};
use crate::rejection::Refusal;
use crate::telemetry::request_id::{RequestId, X_REQUEST_ID};

/// A response to bytes that never became a request.
pub struct EarlyResponse {
    pub request_id: RequestId,
    pub bytes: Vec<u8>,
    /// Bytes of the body.
    pub body_length: usize,
}

/// Renders a refusal as HTTP/1.1, for a connection that is closed after it. Nothing is known about
/// the client's preferences, so the body is JSON.
pub fn render_early_response(refusal: Refusal) -> EarlyResponse {
    let request_id = RequestId::generate();
    let request = RejectedRequest {
        head: RequestHead {
            method: &Method::GET,
            version: Version::HTTP_11,
            path: "/",
            query: None,
            fields: Fields::new(&[]),
        },
        request_id: &request_id,
        is_grpc: false,
        is_api_call: false,
        route: None,
        settings: None,
        store_clock: Duration::ZERO,
    };
    let response = local_response::respond(&refusal.into(), &request, &HeaderMap::new());
    let (status, body) = (response.status, response.body);
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default()
    )
    .into_bytes();
    let mut headers = response.headers;
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
