//! The sole writer of answers that the gateway makes itself.
//!
//! Pingora runs no response filter for them, so everything they have in common is here: the error
//! shape in its three forms, challenges, CORS, limit headers, the cleared cookie, and whether the
//! connection may be kept.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

use super::request_context::RequestContext;
use super::sign_in;
use crate::pipeline::facts::trace_context;
use crate::pipeline::html_page;
use crate::rejection::Refusal;
use crate::telemetry::request_id::{RequestId, X_REQUEST_ID};

mod early;
mod error_body;
mod grpc_response;

pub use early::render_early_response;
use error_body::ErrorFormat;
pub(super) use grpc_response::{end_call, is_http2};

/// The methods that `Allow` lists where no single resource is meant.
pub(super) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A request body that nobody read is read off up to this size, so that the connection can be kept;
/// a larger one costs the connection.
const DRAIN_UP_TO: u64 = 64 * 1024;
/// How long it may take to arrive where the answer waits for it, and where it has gone out already.
const DRAIN_TIMEOUT_BEFORE_RESPONSE: Duration = Duration::from_millis(500);
const DRAIN_TIMEOUT_AFTER_RESPONSE: Duration = Duration::from_secs(5);

/// How long a client may go on sending a body whose response it has, before its stream is reset.
const LINGER: Duration = Duration::from_secs(1);
/// A body up to this size waits in h2's buffer for the client to grant a window.
const MAX_QUEUED_BODY: usize = 16 * 1024;

/// An answer that says no.
#[derive(Debug, Clone)]
pub struct RefusalResponse {
    pub refusal: Refusal,
    /// In the place of the refusal's own message.
    pub message: Option<&'static str>,
    /// `VALIDATION_FAILED`: which fields, and what is wrong with each.
    pub fields: Vec<(String, String)>,
    /// The names of the limits that refused.
    pub violated_limits: Vec<String>,
    /// `insufficient_scope`: what it would take.
    pub scope: Option<String>,
    pub retry_after: Option<Duration>,
    /// Limit headers, CORS headers, cookies, `Allow`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl From<Refusal> for RefusalResponse {
    fn from(refusal: Refusal) -> RefusalResponse {
        RefusalResponse {
            refusal,
            message: None,
            fields: Vec::new(),
            violated_limits: Vec::new(),
            scope: None,
            retry_after: None,
            headers: Vec::new(),
        }
    }
}

impl RefusalResponse {
    fn message(&self) -> &'static str {
        self.message.unwrap_or(self.refusal.message())
    }
}

/// The challenge of RFC 6750, section 3, for a 401 or a missing scope. An error is named only where
/// a bearer token was presented and is what was wrong.
fn challenge(answer: &RefusalResponse, request: &HeaderMap) -> Option<HeaderValue> {
    let refusal = answer.refusal;
    let text = match refusal {
        Refusal::InsufficientScope => format!(
            "Bearer realm=\"portcullis\", error=\"insufficient_scope\", scope=\"{}\"",
            answer.scope.as_deref().unwrap_or_default(),
        ),
        refusal if refusal.status() != StatusCode::UNAUTHORIZED => return None,
        // These are not about a bearer token, whether or not one came along.
        Refusal::Unauthenticated | Refusal::InvalidCredentials | Refusal::RefreshTokenReused => {
            "Bearer realm=\"portcullis\"".to_owned()
        }
        _ if !has_bearer_token(request) => "Bearer realm=\"portcullis\"".to_owned(),
        refusal => format!(
            "Bearer realm=\"portcullis\", error=\"invalid_token\", error_description=\"{}\"",
            refusal.message(),
        ),
    };
    HeaderValue::from_str(&text).ok()
}

fn has_bearer_token(request: &HeaderMap) -> bool {
    let is_bearer = |value: &HeaderValue| {
        let scheme = value.as_bytes().get(.."bearer ".len());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
    };
    request.get_all(header::AUTHORIZATION).iter().any(is_bearer)
}

/// How long a client should wait before it tries again.
fn retry_delay(answer: &RefusalResponse) -> Option<Duration> {
    answer.retry_after.or(match answer.refusal {
        Refusal::StoreUnavailable | Refusal::Overloaded | Refusal::UpstreamUnavailable => {
            Some(Duration::from_secs(1))
        }
        _ => None,
    })
}

fn retry_after(answer: &RefusalResponse) -> Option<HeaderValue> {
    let mut headers = answer.headers.iter();
    if let Some((_, given)) = headers.find(|(name, _)| name == header::RETRY_AFTER) {
        return Some(given.clone());
    }
    let wait = retry_delay(answer)?;
    Some(HeaderValue::from(
        wait.as_millis().div_ceil(1000).max(1) as u64
    ))
}

/// Everything but the framing.
fn response_headers(
    answer: &RefusalResponse,
    form: ErrorFormat,
    request: &HeaderMap,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(8 + answer.headers.len());
    headers.extend([
        (header::CONTENT_TYPE, form.content_type()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::VARY, HeaderValue::from_static("Accept")),
        (header::X_CONTENT_TYPE_OPTIONS, NOSNIFF),
    ]);
    if form == ErrorFormat::Html
        && let Ok(policy) = HeaderValue::try_from(html_page::content_security_policy("'none'"))
    {
        headers.push((header::CONTENT_SECURITY_POLICY, policy));
    }
    if let Some(challenge) = challenge(answer, request) {
        headers.push((header::WWW_AUTHENTICATE, challenge));
    }
    let told = answer
        .headers
        .iter()
        .any(|(name, _)| name == header::RETRY_AFTER);
    if !told && let Some(wait) = retry_after(answer) {
        headers.push((header::RETRY_AFTER, wait));
    }
    if answer.refusal == Refusal::MethodNotAllowed
        && !answer.headers.iter().any(|(name, _)| name == header::ALLOW)
    {
        headers.push((header::ALLOW, HeaderValue::from_static(METHODS)));
    }
    headers.extend(answer.headers.iter().cloned());
    headers
}

/// Whether a client would rather have a page than anything else.
pub(super) fn wants_page(request: &HeaderMap) -> bool {
    ErrorFormat::negotiate(request) == ErrorFormat::Html
}

/// Renders a refusal for a listener that Pingora does not serve: its headers go into `headers`, its
/// body is returned.
pub fn render(
    answer: &RefusalResponse,
    request: &HeaderMap,
    request_id: &RequestId,
    headers: &mut HeaderMap,
) -> String {
    let form = ErrorFormat::negotiate(request);
    for (name, value) in response_headers(answer, form, request) {
        // The router names the methods of a path, where nobody did before it.
        if name != header::ALLOW {
            headers.insert(name, value);
        }
    }
    form.body(answer, request_id.as_str(), None)
}

/// Writes a refusal.
///
/// # Errors
/// The client went away.
pub async fn write_refusal(
    session: &mut Session,
    ctx: &mut RequestContext,
    answer: &RefusalResponse,
) -> pingora::Result<()> {
    if ctx.grpc.is_some() {
        return grpc_response::write_refusal(session, ctx, answer).await;
    }
    let request = &session.req_header().headers;
    let form = ErrorFormat::negotiate(request);
    let unauthenticated = answer.refusal.status() == StatusCode::UNAUTHORIZED;
    let sign_in =
        (form == ErrorFormat::Html && unauthenticated).then(|| sign_in::address(session, ctx));
    let body = form.body(
        answer,
        ctx.request_id.as_str(),
        sign_in.flatten().as_deref(),
    );
    let headers = response_headers(answer, form, request);
    // A head that was misunderstood may have a body that is misunderstood too.
    let keep = answer.refusal != Refusal::BadRequest;
    let status = answer.refusal.status();
    write(session, ctx, status, headers, body.into(), keep).await
}

/// Writes a whole answer with its body.
///
/// # Errors
/// The client went away.
pub async fn write(
    session: &mut Session,
    ctx: &mut RequestContext,
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    keep: bool,
) -> pingora::Result<()> {
    ctx.status = status.as_u16();
    ctx.arrival.control.set_response_finished();
    let bodiless = status == StatusCode::NO_CONTENT || status.is_informational();
    let length = (!bodiless).then_some(body.len());
    let head = build_head(status, headers, ctx, length);
    if ctx.trace_id.is_none() {
        ctx.trace_id =
            trace_context::of_client(&session.req_header().headers, ctx.request_id.as_str());
    }
    let keep = decide_keepalive(session, keep);
    if ctx.worker.readiness.is_draining() {
        session.set_keepalive(None);
    }
    if is_http2(session) {
        drain_request_body(session, DRAIN_TIMEOUT_BEFORE_RESPONSE).await;
    }
    let silent = bodiless || body.is_empty() || session.req_header().method == Method::HEAD;
    session
        .write_response_header(Box::new(head), silent)
        .await?;
    if !silent && queue_small_body(session, &body) {
        ctx.body_sent = body.len() as u64;
    } else if !silent {
        session.write_response_body(Some(body), true).await?;
    } else if is_http2(session) {
        // On HTTP/2 the end of the stream goes with the last write only.
        session.write_response_body(None, true).await?;
    }
    if keep && !is_http2(session) && !session.is_body_done() {
        drain_request_body(session, DRAIN_TIMEOUT_AFTER_RESPONSE).await;
        if !session.is_body_done() {
            session.set_keepalive(None);
        }
    }
    Ok(())
}

/// Leaves a small body to h2, which sends it when the client grants a window: the request and all
/// that it holds would otherwise wait for that. `false`: the session writes it.
fn queue_small_body(session: &mut Session, body: &Bytes) -> bool {
    if body.len() > MAX_QUEUED_BODY {
        return false;
    }
    let ServerSession::H2(stream) = session.as_downstream_mut() else {
        return false;
    };
    // An error is the client's reset, which ends the request anyway.
    let writer = stream.take_response_body_writer();
    writer.is_some_and(|mut writer| writer.send_data(body.clone(), true).is_ok())
}

/// Keeps an HTTP/2 stream open for a moment whose response is complete and whose request is not.
/// Without that the reset that ends it arrives with the response, and some clients look at the reset
/// first.
pub(super) async fn linger(session: &mut Session, ctx: &RequestContext) {
    if !is_http2(session) || !ctx.arrival.control.is_response_finished() || session.is_body_done() {
        return;
    }
    let reading = async { while let Ok(Some(_)) = session.read_request_body().await {} };
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// A head with these fields, and with the length of its body where it has one.
fn build_head(
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    ctx: &RequestContext,
    length: Option<usize>,
) -> ResponseHeader {
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    parts.headers.reserve(headers.len() + 4);
    for (name, value) in headers {
        parts.headers.append(name, value);
    }
    add_common_headers(&mut parts.headers, ctx);
    // A HEAD is told the length of what a GET would have got.
    if let Some(length) = length {
        let told = parts.headers.entry(header::CONTENT_LENGTH);
        told.or_insert_with(|| length.into());
    }
    ResponseHeader::from(parts)
}

/// Adds what every response of the gateway's own has.
fn add_common_headers(headers: &mut HeaderMap, ctx: &RequestContext) {
    headers.insert(X_REQUEST_ID, ctx.request_id.header());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    // Over plain HTTP browsers ignore it (RFC 6797, section 8.1).
    let over_tls = ctx
        .client_origin
        .as_ref()
        .is_some_and(|origin| origin.https);
    if let (true, Some(hsts)) = (over_tls, &ctx.snapshot.settings.hsts) {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
}

/// Decides whether the connection is kept: not for a body that is known to be large.
fn decide_keepalive(session: &mut Session, keep: bool) -> bool {
    let length = session
        .req_header()
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // Whether a client that waits for `100 Continue` still sends its body, nobody can know.
    let waits =
        session.req_header().headers.contains_key(header::EXPECT) && !session.is_body_done();
    let keep = keep && !waits && length.is_none_or(|length| length <= DRAIN_UP_TO);
    if keep {
        session.set_close_on_response_before_downstream_finish(false);
    } else {
        session.set_keepalive(None);
    }
    keep
}

/// Reads a small body off. On HTTP/1.1 the next request begins behind it; on HTTP/2 some clients take
/// an answer that comes before they have sent everything for a broken stream (RFC 9113, section 8.1,
/// allows it).
async fn drain_request_body(session: &mut Session, patience: Duration) {
    let reading = async {
        let mut left = DRAIN_UP_TO as usize;
        while let Ok(Some(part)) = session.read_request_body().await {
            left = left.saturating_sub(part.len());
            if left == 0 {
                break;
            }
        }
    };
    // What does not come in time is waited for no longer.
    let _ = tokio::time::timeout(patience, reading).await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn challenge_names_error_only_for_presented_bearer_token() {
        let text = |refusal: Refusal, presented: Option<&'static str>| {
            let presented = presented.map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
            let request = HeaderMap::from_iter(presented);
            challenge(&refusal.into(), &request).map(|v| v.to_str().unwrap().to_owned())
        };
        let (plain, bearer) = ("Bearer realm=\"portcullis\"", Some("bearer x"));
        for refusal in [
            Refusal::Unauthenticated,
            Refusal::InvalidCredentials,
            Refusal::RefreshTokenReused,
        ] {
            assert_eq!(text(refusal, bearer).unwrap(), plain);
        }
        for presented in [None, Some("Session x"), Some("Bearer")] {
            assert_eq!(text(Refusal::TokenExpired, presented).unwrap(), plain);
            assert_eq!(text(Refusal::SessionRevoked, presented).unwrap(), plain);
        }
        for refusal in [Refusal::TokenExpired, Refusal::SessionRevoked] {
            let named = text(refusal, bearer).unwrap();
            assert!(named.contains("error=\"invalid_token\""), "{named}");
        }
        assert!(
            text(Refusal::InsufficientScope, bearer)
                .unwrap()
                .contains("insufficient_scope")
        );
        assert_eq!(text(Refusal::Forbidden, bearer), None);
    }
}
