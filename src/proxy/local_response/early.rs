//! Responses to bytes that never became a request.

use http::{Method, Version};

use super::http1::{self, Persistence};
use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::Fields;
use crate::pipeline::local_response::{self, RejectedRequest, ResponseContext};
use crate::rejection::Refusal;
use crate::telemetry::request_id::RequestId;

/// Writes a refusal of bytes that never became a request, for a connection that is closed after it,
/// and returns how many bytes of a body it has. Nothing is known about the client's preferences, so
/// the body is JSON.
pub fn write_early_response(out: &mut Vec<u8>, refusal: Refusal, request_id: &RequestId) -> usize {
    let context = ResponseContext {
        request_id,
        method: &Method::GET,
        is_http2: false,
        settings: None,
        services: None,
        hsts: None,
    };
    let request = RejectedRequest {
        head: RequestHead {
            method: context.method,
            version: Version::HTTP_11,
            path: "/",
            query: None,
            fields: Fields::new(&[]),
        },
        context,
        is_grpc: false,
        is_api_call: false,
        route: None,
        client: None,
        host: None,
        front_proxy: None,
    };
    let response = local_response::respond(refusal.into(), &request, None);
    http1::write(out, &response, &context, Persistence::Close)
}
