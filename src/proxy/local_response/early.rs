//! Responses to bytes that never became a request.

use http::{Method, Version};

use super::http1::{self, Persistence};
use crate::forward_auth;
use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::Fields;
use crate::pipeline::local_response::{self, RejectedRequest, ResponseContext};
use crate::proxy::connection::head::HeadRejection;
use crate::settings::forward_auth::ForwardAuth;
use crate::telemetry::metrics::Dialect;
use crate::telemetry::request_id::RequestId;

/// A head that never became a request.
#[derive(Debug)]
pub struct RejectedHead<'a> {
    pub fault: HeadRejection,
    pub request_id: &'a RequestId,
    /// Present on the listener of front proxies.
    pub front_proxy: Option<&'a ForwardAuth>,
    /// That of a front proxy's call, as far as it could be read.
    pub dialect: Option<Dialect>,
}

/// Writes the refusal of a head, for a connection that is closed after it, and returns how many bytes
/// of a body it has. Nothing is known about the client's preferences, so the body is JSON.
pub fn write_early_response(out: &mut Vec<u8>, head: &RejectedHead<'_>) -> usize {
    let context = ResponseContext {
        request_id: head.request_id,
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
        front_proxy: head.front_proxy,
    };
    let mut response = local_response::respond(head.fault.refusal.into(), &request, None);
    if let Some(dialect) = head.dialect {
        forward_auth::adapt(&mut response, dialect);
    }
    http1::write(out, &response, &context, Persistence::Close)
}
