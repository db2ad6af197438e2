//! Responses to bytes that never became a request.

use std::time::Duration;

use http::{HeaderMap, Method, Version};

use super::http1::{self, Persistence};
use crate::clock;
use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::Fields;
use crate::pipeline::local_response::{self, Completion, RejectedRequest};
use crate::rejection::Refusal;
use crate::telemetry::request_id::RequestId;

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
    let response = response.complete(&Completion {
        request_id: &request_id,
        method: request.head.method,
        is_http2: false,
        hsts: None,
    });
    let mut bytes = Vec::new();
    http1::serialize(
        &mut bytes,
        &response,
        Persistence::Close,
        clock::system_time(),
    );
    EarlyResponse {
        bytes,
        body_length: response.body.len(),
        request_id,
    }
}
