//! Calls of the gateway's own endpoints over Pingora's session.

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::proxy::Session;
use tokio::time::{Instant, timeout_at};

use super::{header_map, local_response};
use crate::pipeline::EndpointCall;
use crate::pipeline::fields::Fields;
use crate::proxy::api_bridge::{ApiCall, BODY_TIMEOUT};
use crate::proxy::local_response::reject;
use crate::proxy::request_context::RequestContext;
use crate::rejection::Refusal;

/// Serves a call of an endpoint.
///
/// # Errors
/// The client went away.
pub(super) async fn serve(
    session: &mut Session,
    ctx: &mut RequestContext,
    call: EndpointCall,
) -> pingora::Result<()> {
    let call = {
        let head = session.req_header();
        let list = header_map::list(&head.headers);
        ApiCall::prepare(ctx, header_map::head(head, Fields::new(&list)), call).await
    };
    let body = match &call {
        Ok(ApiCall {
            max_body: Some(most),
            ..
        }) => read_body(session, *most).await?,
        Ok(_) => Ok(Bytes::new()),
        Err(refusal) => Err(*refusal),
    };
    let head = session.req_header();
    let list = header_map::list(&head.headers);
    let head = header_map::head(head, Fields::new(&list));
    let response = match (call, body) {
        (Ok(call), Ok(body)) => call.run(ctx, head, body).await,
        (Err(refusal), _) | (_, Err(refusal)) => reject(ctx, head, refusal.into(), None),
    };
    drop(list);
    local_response::send(session, ctx, response).await
}

/// Reads the body of a call, up to `most` bytes.
///
/// # Errors
/// The client went away.
pub(super) async fn read_body(
    session: &mut Session,
    most: usize,
) -> pingora::Result<Result<Bytes, Refusal>> {
    let headers = &session.req_header().headers;
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > most) {
        return Ok(Err(Refusal::BodyTooLarge));
    }
    if headers.get(header::EXPECT).is_some() {
        session.write_continue_response().await?;
    }
    let mut body = BytesMut::new();
    let deadline = Instant::now() + BODY_TIMEOUT;
    loop {
        let Ok(part) = timeout_at(deadline, session.read_request_body()).await else {
            return Ok(Err(Refusal::RequestTimeout));
        };
        let Some(part) = part? else { break };
        if body.len() + part.len() > most {
            return Ok(Err(Refusal::BodyTooLarge));
        }
        body.extend_from_slice(&part);
    }
    Ok(Ok(body.freeze()))
}
