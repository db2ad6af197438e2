//! One call of a front proxy by HTTP/1.1: the request that it names is decided, and the decision is the
//! response.

use std::sync::Arc;

use http::Method;

use super::request::{After, request_head, respond};
use super::request_body::RequestBody;
use super::serve::Connection;
use crate::forward_auth;
use crate::proxy::authorize;
use crate::proxy::request_context::{Arrival, RequestContext};

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
    // Its bytes are those of a token.
    let method = Method::from_bytes(head.method()).unwrap_or_default();
    let call = request_head(head, &method);
    let mut response = authorize::decide_call(&mut ctx, call, head.host_and_name()).await;
    let status = response.status.as_u16();
    if let Some(dialect) = ctx.dialect {
        forward_auth::adapt(&mut response, dialect);
    }
    let body = RequestBody::new(head.body);
    let after = respond(client, head, &mut ctx, response, body).await;
    ctx.status = status;
    after
}
