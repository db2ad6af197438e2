//! One call of Envoy by gRPC: the request that it names is decided, and the decision is a message.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, Version};

use super::authorize::{self, QueryOutcome};
use super::local_response::{record, reject};
use super::request_context::RequestContext;
use crate::forward_auth::ext_authz_grpc::{self, CHECK, Call};
use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::{FieldKind, FieldList, Fields};
use crate::pipeline::header_fields::FieldBuffer;
use crate::pipeline::local_response::{AllowedRequest, LocalResponse};
use crate::rejection::{Refusal, Rejection};
use crate::telemetry::metrics::Dialect;
use crate::telemetry::request_id::{RequestId, X_REQUEST_ID};

/// Decides a call with this body, or rejects it. Returns the body of the response, which is never an
/// error of gRPC: Envoy may let a request pass whose call fails.
pub(super) async fn decide(ctx: &mut RequestContext, body: Result<Bytes, Rejection>) -> Bytes {
    ctx.dialect = Some(Dialect::ExtAuthzGrpc);
    let call = body.and_then(|body| Ok(Call::read(&body)?));
    let call = match call {
        Ok(call) => call,
        Err(rejection) => return reject_call(ctx, rejection),
    };
    let read = call.fields().map_err(Rejection::from);
    let list = match read.and_then(|list| check_size(ctx, list)) {
        Ok(list) => list,
        Err(rejection) => return reject_call(ctx, rejection),
    };
    let fields = Fields::new(&list);
    ctx.request_id = RequestId::keep_or_generate(fields.first(FieldKind::XRequestId));
    let snapshot = Arc::clone(&ctx.snapshot);
    let trusted = authorize::trusted_proxies(&snapshot.settings);
    let request = call.original_request(fields, trusted);
    match authorize::decide(ctx, request, call_head(fields)).await {
        QueryOutcome::Allowed(request) => allow(ctx, &request, fields),
        QueryOutcome::Denied(response) => deny(ctx, &response),
    }
}

/// The head of a call, with the fields of the original request.
fn call_head(fields: Fields<'_>) -> RequestHead<'_> {
    RequestHead {
        method: &Method::POST,
        version: Version::HTTP_2,
        path: CHECK,
        query: None,
        fields,
    }
}

/// Rejects a call whose fields cannot be read.
fn reject_call(ctx: &mut RequestContext, rejection: Rejection) -> Bytes {
    let response = reject(ctx, call_head(Fields::new(&[])), rejection, None);
    deny(ctx, &response)
}

/// Rejects the head of an original request that is larger than that of a call by HTTP may be.
fn check_size<'m>(ctx: &RequestContext, list: FieldList<'m>) -> Result<FieldList<'m>, Rejection> {
    let Some((listener, _)) = ctx.listener() else {
        return Err(Refusal::Internal.into());
    };
    let size: usize = list.iter().map(|it| it.name.len() + it.value.len()).sum();
    match size > listener.limits.head {
        true => Err(Refusal::HeadersTooLarge.into()),
        false => Ok(list),
    }
}

fn allow(ctx: &mut RequestContext, request: &AllowedRequest, fields: Fields<'_>) -> Bytes {
    ctx.status = StatusCode::OK.as_u16();
    ctx.arrival.control.set_response_finished();
    let request_id = (X_REQUEST_ID, ctx.request_id.header());
    let mut edits = request.request_edits(fields, &ctx.snapshot.settings);
    edits.set.push(request_id.clone());
    let mut response = vec![request_id];
    request.write_response_fields(&ctx.response_context(), &mut response);
    ext_authz_grpc::allow(&edits, &response)
}

fn deny(ctx: &mut RequestContext, response: &LocalResponse) -> Bytes {
    record(ctx, response);
    let body = response.body_bytes(&ctx.request_id);
    let mut headers = FieldBuffer::new();
    response.write_fields(&ctx.response_context(), body.len(), &mut headers);
    ext_authz_grpc::deny(response.status, &headers, &body)
}
