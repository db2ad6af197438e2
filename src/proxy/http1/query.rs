//! One call of a front proxy by HTTP/1.1: the request that it names is decided, and the decision is the
//! response.

use std::sync::Arc;

use http::Method;

use super::request::{After, request_head, respond};
use super::request_body::RequestBody;
use super::serve::Connection;
use crate::forward_auth;
use crate::pipeline::local_response::LocalResponse;
use crate::proxy::authorize;
use crate::proxy::connection::head::Head;
use crate::proxy::local_response::reject;
use crate::proxy::request_context::{Arrival, RequestContext};
use crate::rejection::{Reason, Refusal, Rejection};
use crate::telemetry::metrics::Dialect;

/// Serves one call. Its log line is written when it is over, and has the status that the client of the
/// original request is meant to receive.
pub(super) async fn serve_call(connection: &mut Connection) -> After {
    let Connection {
        client,
        head,
        proxy,
        ..
    } = connection;
    let Some(head) = head else {
        return After::Gone;
    };
    let arrival = Arrival::next(&client.peer, &client.control);
    let mut ctx = RequestContext::new(arrival, Arc::clone(&proxy.worker));
    let mut response = decide(head, &mut ctx).await;
    let status = response.status.as_u16();
    if let Some(dialect) = ctx.dialect {
        forward_auth::adapt(&mut response, dialect);
    }
    let body = RequestBody::new(head.body);
    let after = respond(client, head, &mut ctx, response, body).await;
    ctx.status = status;
    after
}

async fn decide(head: &Head, ctx: &mut RequestContext) -> LocalResponse {
    // Its bytes are those of a token.
    let method = Method::from_bytes(head.method()).unwrap_or_default();
    let call = request_head(head, &method);
    ctx.record_call(call, head.host_and_name());
    let dialect = match admit_call(ctx, call.path) {
        Ok(dialect) => dialect,
        Err(rejection) => return reject(ctx, call, rejection, None),
    };
    ctx.dialect = Some(dialect);
    let snapshot = Arc::clone(&ctx.snapshot);
    let settings = &snapshot.settings;
    let trusted = settings.forward_auth.as_ref();
    let trusted = trusted.map_or(&[][..], |it| &it.listener.trusted_proxies);
    let identity = &settings.identity_header_names;
    let request = forward_auth::read_call(dialect, &call, identity, trusted);
    authorize::decide(ctx, request, call).await.into_response()
}

/// The dialect of a call of a peer that may query.
fn admit_call(ctx: &RequestContext, path: &str) -> Result<Dialect, Rejection> {
    authorize::check_peer(ctx)?;
    let unknown = || Rejection::new(Refusal::NotFound, Reason::UnknownCall);
    forward_auth::dialect_of(path).ok_or_else(unknown)
}
