//! Calls of front proxies over HTTP/2: those of Envoy by gRPC, and those of the other dialects, which
//! some front proxies send over HTTP/2 where TLS offers it.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{HeaderName, StatusCode};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::api_call::read_body;
use super::{header_map, local_response, request};
use crate::forward_auth;
use crate::forward_auth::ext_authz_grpc::{CHECK, CHECK_HEALTH, health};
use crate::pipeline::facts::host;
use crate::pipeline::fields::{Field, FieldList, Fields};
use crate::pipeline::local_response::{GRPC, LocalResponse};
use crate::pipeline::own_field::{CACHE_CONTROL_NO_STORE, PORTCULLIS_CODE};
use crate::proxy::local_response::reject;
use crate::proxy::request_context::RequestContext;
use crate::proxy::{authorize, grpc, grpc_query};
use crate::rejection::{Refusal, Rejection};
use crate::telemetry::request_id::X_REQUEST_ID;

/// Maximum size of a call by gRPC, in bytes. It has room for a head of the largest size several times.
const MAX_CALL: usize = 1024 * 1024;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Serves one call.
///
/// # Errors
/// The front proxy went away.
pub(super) async fn serve(session: &mut Session, ctx: &mut RequestContext) -> pingora::Result<()> {
    let head = session.req_header();
    let content_type = head.headers.get(header::CONTENT_TYPE);
    let is_grpc = grpc::is_call(&head.method, content_type.map(HeaderValue::as_bytes));
    match head.uri.path() {
        CHECK if is_grpc => serve_check(session, ctx).await,
        CHECK_HEALTH if is_grpc => serve_health(session, ctx).await,
        _ => serve_http(session, ctx).await,
    }
}

async fn serve_check(session: &mut Session, ctx: &mut RequestContext) -> pingora::Result<()> {
    record_call(session.req_header(), ctx);
    let body = match authorize::check_peer(ctx) {
        Ok(()) => read_body(session, MAX_CALL).await?.map_err(Rejection::from),
        Err(rejection) => Err(rejection),
    };
    ctx.body_received = body.as_ref().map_or(0, |body| body.len() as u64);
    let message = grpc_query::decide(ctx, body).await;
    send_message(session, ctx, message).await
}

/// Reports whether the gateway serves further calls, so that no gateway that drains is queried.
async fn serve_health(session: &mut Session, ctx: &mut RequestContext) -> pingora::Result<()> {
    record_call(session.req_header(), ctx);
    if let Err(rejection) = authorize::check_peer(ctx) {
        return local_response::send_rejection(session, ctx, rejection).await;
    }
    ctx.status = StatusCode::OK.as_u16();
    ctx.arrival.control.set_response_finished();
    let message = health(ctx.worker.readiness.is_serving());
    send_message(session, ctx, message).await
}

async fn serve_http(session: &mut Session, ctx: &mut RequestContext) -> pingora::Result<()> {
    let mut response = decide_http(session.req_header(), ctx).await;
    let status = response.status.as_u16();
    if let Some(dialect) = ctx.dialect {
        forward_auth::adapt(&mut response, dialect);
    }
    let sent = local_response::send(session, ctx, response).await;
    ctx.status = status;
    sent
}

async fn decide_http(head: &Parts, ctx: &mut RequestContext) -> LocalResponse {
    let host = host::read(&head.uri, head.headers.get(header::HOST));
    let host = host.as_ref().ok();
    let host = host.and_then(|(field, name)| Some((field.to_str().ok()?, &**name)));
    let list = list_with_host(head);
    let call = header_map::head(head, Fields::new(&list));
    if let Err(rejection) = request::check_values(head) {
        ctx.record_call(call, host);
        return reject(ctx, call, rejection, None);
    }
    authorize::decide_call(ctx, call, host).await
}

/// The fields of a head, and the host, which need not be one of them.
fn list_with_host(head: &Parts) -> FieldList<'_> {
    let mut list = header_map::list(&head.headers);
    if let (None, Some(authority)) = (head.headers.get(header::HOST), head.uri.authority()) {
        list.push(Field::new(b"host", authority.as_str().as_bytes()));
    }
    list
}

/// Records a call whose message is not read yet. A function of its own, so that the list is no part of
/// the call's future.
fn record_call(head: &Parts, ctx: &mut RequestContext) {
    let list = header_map::list(&head.headers);
    let authority = head.uri.authority().map(|authority| authority.as_str());
    let host = authority.map(|authority| (authority, authority));
    ctx.record_call(header_map::head(head, Fields::new(&list)), host);
}

/// Responds with a message. A refused or failed call has one, too, and the status of success.
async fn send_message(
    session: &mut Session,
    ctx: &mut RequestContext,
    message: Bytes,
) -> pingora::Result<()> {
    let code = ctx.refusal.map_or("OK", Refusal::code);
    let mut parts = http::Response::new(()).into_parts().0;
    parts.headers.extend([
        (header::CONTENT_TYPE, HeaderValue::from_static(GRPC)),
        (X_REQUEST_ID, ctx.request_id.header()),
        (PORTCULLIS_CODE.name.clone(), HeaderValue::from_static(code)),
        (header::CACHE_CONTROL, CACHE_CONTROL_NO_STORE.value.clone()),
    ]);
    let head = Box::new(ResponseHeader::from(parts));
    session.write_response_header(head, false).await?;
    ctx.body_sent = message.len() as u64;
    session.write_response_body(Some(message), false).await?;
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    let stream = session.as_downstream_mut();
    stream.write_response_trailers(trailers).await
}
