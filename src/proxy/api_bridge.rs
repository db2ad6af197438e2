//! The way from the wire to the front desk and back: the gateway's own endpoints on a public
//! listener.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{Method, header};
use http_body_util::BodyExt;
use pingora::proxy::Session;
use tower::ServiceExt;

use super::local_response::{self, RefusalResponse};
use super::pingora::client_response;
use super::request_context::{RequestContext, measure_wait};
use crate::api::{ApiRejection, Caller, LapsedClaims, ResponseInfo};
use crate::auth::credential;
use crate::rejection::{Reason, Refusal};
use crate::routing::endpoints;

/// Bytes of a body that is read whoever sends it.
const MAX_BODY: usize = 64 * 1024;
/// How long the whole of it may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers a call to an endpoint.
///
/// # Errors
/// The client went away.
pub(super) async fn serve(
    session: &mut Session,
    ctx: &mut RequestContext,
    below: String,
) -> pingora::Result<()> {
    ctx.is_api_call = true;
    let call = match build_call(session, ctx, &below).await? {
        Ok(call) => call,
        Err(refusal) => return client_response::send_refusal(session, ctx, refusal.into()).await,
    };
    // The router never fails.
    let response = match ctx.worker.api.clone().oneshot(call).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (mut head, body) = response.into_parts();
    if let Some(refused) = head.extensions.remove::<ApiRejection>() {
        return send_rejection(session, ctx, refused, &head.headers).await;
    }
    let noted = head.extensions.remove::<ResponseInfo>().unwrap_or_default();
    if let Some(user) = noted.user {
        ctx.user = Some(user);
        ctx.session = noted.session;
    }
    // A page says itself what went wrong; log and metrics have it as that of any other endpoint.
    ctx.refusal = noted.refusal;
    note_reason(ctx, noted.reason);
    ctx.record_refusing_limits(&noted.limits);
    let Ok(body) = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
    else {
        return client_response::send_refusal(session, ctx, Refusal::Internal.into()).await;
    };
    let mut headers: Vec<_> = owned_headers(&head.headers)
        .filter(|(name, _)| ctx.method == Method::HEAD || name != header::CONTENT_LENGTH)
        .collect();
    headers.extend(client_response::limit_headers(
        &noted.limits,
        &ctx.worker.store,
    ));
    local_response::write(session, ctx, head.status, headers, body, true).await
}

/// Builds the call: the head as it came, the prefix taken off, the body read, the caller found out.
async fn build_call(
    session: &mut Session,
    ctx: &mut RequestContext,
    below: &str,
) -> pingora::Result<Result<http::Request<Body>, Refusal>> {
    let head = session.req_header();
    let target = match head.uri.query() {
        Some(query) => format!("{below}?{query}"),
        None => below.to_owned(),
    };
    let Ok(uri) = target.parse::<http::Uri>() else {
        return Ok(Err(Refusal::BadRequest));
    };
    let mut call = http::Request::new(Body::empty());
    *call.method_mut() = head.method.clone();
    *call.uri_mut() = uri;
    *call.headers_mut() = head.headers.clone();
    let extensions = call.extensions_mut();
    if let Some(facts) = ctx.facts(head) {
        extensions.insert(facts.client());
    }
    extensions.insert(Arc::clone(&ctx.snapshot));
    extensions.insert(ctx.request_id.clone());
    let known =
        endpoints::needs_caller(&ctx.method, below) && identify(session, ctx, extensions).await;
    let most = endpoints::max_body_bytes(below);
    // Nobody's large body is read.
    if known || most <= MAX_BODY {
        match read_body(session, most).await? {
            Ok(body) => *call.body_mut() = Body::from(body),
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    Ok(Ok(call))
}

/// Finds out who calls, and tells whether it is somebody.
async fn identify(
    session: &Session,
    ctx: &mut RequestContext,
    extensions: &mut http::Extensions,
) -> bool {
    let current = Arc::clone(&ctx.snapshot);
    let worker = Arc::clone(&ctx.worker);
    let admission = worker.admission(&current, &ctx.request_id);
    let Some(facts) = ctx.facts(session.req_header()) else {
        return false;
    };
    let (found, waited) = measure_wait(admission.identify(facts.auth_request())).await;
    ctx.store_time = waited;
    match found {
        Ok(identity) => {
            let known = identity.is_some();
            if let Some(identity) = &identity {
                ctx.record_identity(identity);
                ctx.record_session_use(identity);
            }
            extensions.insert(Caller(Ok(identity)));
            known
        }
        Err(mut refused) => {
            ctx.reason = refused.reason;
            ctx.record_grounds(refused.take_details());
            if let Some(claims) = refused.lapsed_claims {
                extensions.insert(LapsedClaims(claims));
            }
            extensions.insert(Caller(Err(refused.refusal)));
            false
        }
    }
}

async fn read_body(session: &mut Session, most: usize) -> pingora::Result<Result<Bytes, Refusal>> {
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
    let deadline = tokio::time::Instant::now() + BODY_TIMEOUT;
    loop {
        let Ok(part) = tokio::time::timeout_at(deadline, session.read_request_body()).await else {
            session.set_keepalive(None);
            return Ok(Err(Refusal::RequestTimeout));
        };
        let Some(part) = part? else { break };
        if body.len() + part.len() > most {
            session.set_keepalive(None);
            return Ok(Err(Refusal::BodyTooLarge));
        }
        body.extend_from_slice(&part);
    }
    Ok(Ok(body.freeze()))
}

async fn send_rejection(
    session: &mut Session,
    ctx: &mut RequestContext,
    refused: ApiRejection,
    headers: &http::HeaderMap,
) -> pingora::Result<()> {
    // Its own content type belongs to the body that is written now.
    let mut kept: Vec<_> = owned_headers(headers)
        .filter(|(name, _)| {
            !matches!(
                *name,
                header::CONTENT_TYPE | header::CONTENT_LENGTH | header::CACHE_CONTROL
            )
        })
        .collect();
    if refused.clear_cookie {
        let cookies = credential::clearing_cookies(&ctx.snapshot.settings.sessions.cookie);
        kept.extend(
            cookies
                .into_iter()
                .map(|cookie| (header::SET_COOKIE, cookie)),
        );
    }
    kept.extend(client_response::limit_headers(
        &refused.limits,
        &ctx.worker.store,
    ));
    ctx.record_refusing_limits(&refused.limits);
    note_reason(ctx, refused.reason);
    ctx.user = refused.user.map(String::from).or_else(|| ctx.user.take());
    let answer = RefusalResponse {
        violated_limits: client_response::violated_limits(&refused.limits),
        fields: refused.fields.into_vec(),
        retry_after: refused.retry_after,
        headers: kept,
        ..refused.refusal.into()
    };
    client_response::send_refusal(session, ctx, answer).await
}

fn note_reason(ctx: &mut RequestContext, reason: Option<Reason>) {
    if reason.is_some() {
        ctx.reason = reason;
    }
}

/// Every header with its name, also the further values of a repeated one.
fn owned_headers(
    headers: &http::HeaderMap,
) -> impl Iterator<Item = (http::HeaderName, http::HeaderValue)> + '_ {
    headers
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
}
