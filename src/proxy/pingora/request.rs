//! The story of a request, from its head to the permit.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use pingora::proxy::Session;

use super::{client_response, failure, header_map};
use crate::auth::credential;
use crate::clock;
use crate::pipeline::admission::{AuthRequest, CredentialKind, Identity, Permit};
use crate::pipeline::facts::{client_origin, host};
use crate::pipeline::{header_fields, hop_by_hop};
use crate::proxy::local_response::RefusalResponse;
use crate::proxy::open_streams::OpenStream;
use crate::proxy::request_context::{RequestContext, measure_wait};
use crate::proxy::{api_bridge, grpc, local_response, sign_in, unrouted};
use crate::rejection::{Reason, Refusal, Rejection};
use crate::routing::{Path, Route, cors, endpoints};
use crate::telemetry::request_id::{RequestId, X_REQUEST_ID};
use crate::{api, settings};

/// How long the end of a body that is declared empty may take to come.
const EMPTY_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Lets a request pass (`false`), or answers it (`true`).
///
/// # Errors
/// The client went away while it was answered.
pub(in crate::proxy) async fn decide(
    session: &mut Session,
    ctx: &mut RequestContext,
) -> pingora::Result<bool> {
    match process(session, ctx).await {
        Ok(answered) => Ok(answered),
        Err(EarlyExit::Respond(answer)) => {
            match sign_in::target(session, ctx, answer.refusal) {
                Some(target) => sign_in::send(session, ctx, *answer, target).await?,
                None => client_response::send_refusal(session, ctx, *answer).await?,
            }
            Ok(true)
        }
        Err(EarlyExit::Failed(error)) => Err(error),
    }
}

/// Why the steps end before a permit.
enum EarlyExit {
    Respond(Box<RefusalResponse>),
    Failed(Box<pingora::Error>),
}

impl From<Refusal> for EarlyExit {
    fn from(refusal: Refusal) -> EarlyExit {
        EarlyExit::Respond(Box::new(refusal.into()))
    }
}

impl From<Box<pingora::Error>> for EarlyExit {
    fn from(error: Box<pingora::Error>) -> EarlyExit {
        EarlyExit::Failed(error)
    }
}

async fn process(session: &mut Session, ctx: &mut RequestContext) -> Result<bool, EarlyExit> {
    collect_facts(session, ctx)?;
    let may_upgrade = is_upgradable(session);
    header_map::edit_request(session.req_header_mut(), |fields| {
        hop_by_hop::strip_unsupported_upgrade(fields, may_upgrade)?;
        hop_by_hop::strip_nominated(fields)
    })?
    .map_err(failure::from_header_error)?;
    reject_undeclared_body(session).await?;
    if unrouted::is_options_asterisk(session) {
        unrouted::respond_with_methods(session, ctx).await?;
        return Ok(true);
    }
    let current = Arc::clone(&ctx.snapshot);
    let raw_path = session.req_header().uri.path().to_owned();
    let path = Path::read(raw_path.as_bytes()).map_err(|fault| {
        tracing::debug!(request_id = %ctx.request_id, %fault, "the path is refused");
        ctx.reason = Some(Reason::AmbiguousPath);
        Refusal::BadRequest
    })?;
    if let Some(target) = unrouted::https_target(session, ctx) {
        unrouted::redirect(session, ctx, target).await?;
        return Ok(true);
    }
    if let Some(api) = &current.settings.api
        && let Some(below) = endpoints::find_below(&path, &api.prefix, api.users)
    {
        if path.ambiguities() != crate::routing::PathAmbiguities::NONE {
            return Err(Refusal::BadRequest.into());
        }
        // Boxed: every request would carry the space that the desk takes.
        let request_id = ctx.request_id.clone();
        Box::pin(request_id.scope(api_bridge::serve(session, ctx, below))).await?;
        return Ok(true);
    }
    let route = select(session, ctx, &path, &current.settings)?;
    if ctx.worker.via.is_in(&session.req_header().headers) {
        ctx.reason = Some(Reason::Loop);
        return Err(Refusal::LoopDetected.into());
    }
    if let Some(answer) = preflight(session, route) {
        let body = bytes::Bytes::new();
        local_response::write(session, ctx, StatusCode::NO_CONTENT, answer, body, true).await?;
        return Ok(true);
    }
    admit(session, ctx, route).await
}

/// Selects the route, which has to allow what the path has.
fn select<'l>(
    session: &Session,
    ctx: &mut RequestContext,
    path: &Path<'_>,
    live: &'l settings::Reloadable,
) -> Result<&'l Arc<Route>, Refusal> {
    let request = session.req_header();
    let route = live
        .routes
        .find(&ctx.host, path, &request.method, &request.headers);
    let Some(route) = route else {
        let odd = path.ambiguities() != crate::routing::PathAmbiguities::NONE;
        return Err(if odd {
            Refusal::BadRequest
        } else {
            Refusal::RouteNotFound
        });
    };
    ctx.route = Some(Arc::clone(route));
    let upstream = live.upstreams.get(route.upstream);
    ctx.is_grpc_stream = ctx.grpc.is_some()
        && local_response::is_http2(session)
        && upstream.is_some_and(|it| matches!(it.protocol, settings::Protocol::H2));
    if !route.allow_in_path.allows(path.ambiguities()) {
        ctx.reason = Some(Reason::ForbiddenPath);
        return Err(Refusal::BadRequest);
    }
    Ok(route)
}

/// Whether the request is one that can be upgraded to WebSocket (RFC 6455, section 4.1). The reader of
/// heads goes by the same rule (`Head::upgrade`).
fn is_upgradable(session: &Session) -> bool {
    let request = session.req_header();
    let length = request.headers.get(header::CONTENT_LENGTH);
    request.version == Version::HTTP_11
        && request.method == Method::GET
        && length.is_none_or(|_| declared_length(session) == Some(0))
        && !request.headers.contains_key(header::TRANSFER_ENCODING)
}

/// On HTTP/2 a request may say that it has no body and then send one. On HTTP/1.1 it cannot: what
/// follows is the next request.
async fn reject_undeclared_body(session: &mut Session) -> Result<(), Refusal> {
    // Pingora takes the word of the head for the end of the body: only reading tells.
    if !local_response::is_http2(session) || declared_length(session) != Some(0) {
        return Ok(());
    }
    let end = async {
        loop {
            match session.read_request_body().await {
                Ok(None) => return Ok(()),
                // The frame that ends a body may be empty.
                Ok(Some(part)) if part.is_empty() => {}
                Ok(Some(_)) | Err(_) => return Err(Refusal::BadRequest),
            }
        }
    };
    let ended = tokio::time::timeout(EMPTY_BODY_TIMEOUT, end).await;
    ended.unwrap_or(Err(Refusal::RequestTimeout))
}

/// Learns who speaks, to which host, and under which request id.
fn collect_facts(session: &mut Session, ctx: &mut RequestContext) -> Result<(), Refusal> {
    if let Some(seconds) = session.get_keepalive() {
        // What the client wished for in `Keep-Alive` is not followed.
        let own = ctx.keepalive_seconds().unwrap_or(seconds);
        session.set_keepalive(Some(own));
    }
    let request = session.req_header();
    ctx.method = request.method.clone();
    ctx.grpc = grpc::is_call(&request.method, &request.headers).then(grpc::Messages::default);
    let [host_field, request_id, page] = header_fields::first(
        &request.headers,
        [&header::HOST, &X_REQUEST_ID, &header::ORIGIN],
    );
    ctx.origin_header = page.cloned();
    ctx.request_id = RequestId::keep_or_generate(request_id);
    let (listener, live) = ctx.listener().ok_or(Refusal::Internal)?;
    let max_fields = listener.limits.fields;
    let origin = client_origin::resolve(
        ctx.arrival.peer.ip,
        ctx.arrival.peer.tls,
        &live.trusted_proxies,
        listener.client_ip_from,
        &request.headers,
    );
    ctx.client_origin = Some(origin);
    ctx.path = request.uri.path().to_owned();
    // Before anything is refused: the log names the host.
    let host = host::read(&request.uri, host_field, ctx.arrival.host.take());
    let host = host.map(|(field, name)| {
        ctx.host_header = Some(field);
        ctx.host = name;
    });
    // On HTTP/1.1 the reader of heads has counted.
    if local_response::is_http2(session) && field_count(&request.headers) > max_fields {
        ctx.reason = Some(Reason::TooManyFields);
        return Err(Refusal::HeadersTooLarge);
    }
    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::MethodNotAllowed);
    }
    // On HTTP/1.1 the reader of heads has looked at it.
    if request.uri.scheme_str().is_some_and(|it| !is_http(it)) {
        ctx.reason = Some(Reason::ForeignScheme);
        return Err(Refusal::BadRequest);
    }
    host
}

/// Header fields, as an HTTP/1.1 client would have sent them: HTTP/2 splits cookies (RFC 9113,
/// section 8.2.3).
fn field_count(headers: &http::HeaderMap) -> usize {
    let cookies = headers.get_all(header::COOKIE).iter().count();
    headers.len() - cookies.saturating_sub(1)
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// The answer to a CORS preflight, before authentication: a preflight carries no credential.
fn preflight(session: &Session, route: &Route) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let request = session.req_header();
    let cors = route.cors.as_ref()?;
    if !cors::is_preflight(&request.method, &request.headers) {
        return None;
    }
    let text = |name| {
        request
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let origin = request.headers.get(header::ORIGIN)?;
    let method = text(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Some(cors.preflight_headers(origin, method, text(header::ACCESS_CONTROL_REQUEST_HEADERS)))
}

async fn admit(
    session: &mut Session,
    ctx: &mut RequestContext,
    route: &Arc<Route>,
) -> Result<bool, EarlyExit> {
    let current = Arc::clone(&ctx.snapshot);
    let worker = Arc::clone(&ctx.worker);
    let asked = auth_request(session, ctx);
    // Nothing else in the decision waits; where it waited, it was for the store.
    let admission = worker.admission(&current, &ctx.request_id);
    let (outcome, waited) = measure_wait(admission.admit(route, asked)).await;
    ctx.store_time = waited;
    let permit = outcome.map_err(|refused| reject(ctx, refused))?;
    if let Some(identity) = &permit.identity {
        ctx.authenticated = true;
        if session.is_upgrade_req() && !is_upgrade_allowed(session, ctx, identity, route) {
            ctx.record_identity(identity);
            ctx.reason = Some(Reason::ForeignUpgrade);
            return Err(Refusal::CsrfRejected.into());
        }
    }
    // Of a gRPC stream it bounds each message.
    let too_large = !ctx.is_grpc_stream
        && declared_length(session).is_some_and(|length| length > route.max_body);
    let headers =
        too_large.then(|| client_response::limit_headers(&permit.decisions, &ctx.worker.store));
    register_request(ctx, permit);
    if let Some(headers) = headers {
        return Err(EarlyExit::Respond(Box::new(RefusalResponse {
            headers,
            ..Refusal::BodyTooLarge.into()
        })));
    }
    // A client may close its side after the request and still want the answer (RFC 9112, section 9.6).
    session.as_downstream_mut().set_abort_on_close(false);
    Ok(false)
}

/// What the decision reads of the request.
pub(in crate::proxy) fn auth_request<'a>(
    session: &'a Session,
    ctx: &'a RequestContext,
) -> AuthRequest<'a> {
    AuthRequest {
        headers: &session.req_header().headers,
        ip: ctx
            .client_origin
            .as_ref()
            .map_or(ctx.arrival.peer.ip, |origin| origin.ip),
        now: clock::millis_since_epoch(ctx.started_wall),
        certificate: ctx.arrival.peer.certificate.as_ref(),
    }
}

/// Turns the decision's refusal into its answer.
fn reject(ctx: &mut RequestContext, mut refused: Rejection) -> EarlyExit {
    ctx.reason = refused.reason;
    ctx.record_grounds(refused.take_details());
    ctx.record_refusing_limits(&refused.decisions);
    let mut headers = client_response::limit_headers(&refused.decisions, &ctx.worker.store);
    if refused.clear_cookie {
        let cookies = credential::clearing_cookies(&ctx.snapshot.settings.sessions.cookie);
        headers.extend(
            cookies
                .into_iter()
                .map(|cookie| (header::SET_COOKIE, cookie)),
        );
    }
    EarlyExit::Respond(Box::new(RefusalResponse {
        violated_limits: refused.violated_limits().map(str::to_owned).collect(),
        scope: refused.disclosed.and_then(|it| it.required_scope),
        retry_after: refused.retry_after,
        headers,
        ..refused.refusal.into()
    }))
}

/// A browser sends its cookie with any page's WebSocket; only our own origins may use it.
fn is_upgrade_allowed(
    session: &Session,
    ctx: &RequestContext,
    identity: &Identity,
    route: &Route,
) -> bool {
    if identity.credential_kind != CredentialKind::Cookie {
        return true;
    }
    let headers = &session.req_header().headers;
    let allowed = ctx
        .snapshot
        .settings
        .api
        .as_ref()
        .map_or(&[][..], |api| &api.allowed_origins);
    let by_route = ctx
        .origin_header
        .as_ref()
        .and_then(|origin| origin.to_str().ok())
        .is_some_and(|origin| {
            route
                .cors
                .as_ref()
                .is_some_and(|cors| cors.lists_origin(origin))
        });
    by_route || api::is_same_origin(headers, &ctx.client(), allowed)
}

/// Counts a use of the session; it is written later.
pub(in crate::proxy) fn record_session_use(ctx: &RequestContext, identity: &Identity) {
    if let (Some(session), Some(origin)) = (identity.session(), &ctx.client_origin) {
        ctx.worker
            .near_cache
            .record_request(session.id, identity.confirmed_at, origin.ip);
    }
}

/// Keeps the permit, counts the use, and makes the request closable from outside.
fn register_request(ctx: &mut RequestContext, permit: Permit) {
    if let Some(identity) = &permit.identity {
        record_session_use(ctx, identity);
    }
    let identity = permit.identity.as_ref();
    let open = OpenStream::new(
        Arc::clone(&ctx.arrival.control),
        ctx.arrival.at,
        identity
            .and_then(Identity::session)
            .map(|session| session.id),
        identity.and_then(|identity| identity.token.clone()),
        ctx.client_origin.as_ref().map(|origin| origin.ip),
    );
    ctx.registration = Some(ctx.worker.open_streams.register(ctx.worker.index, open));
    ctx.permit = Some(permit);
}

fn declared_length(session: &Session) -> Option<u64> {
    session
        .req_header()
        .headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
