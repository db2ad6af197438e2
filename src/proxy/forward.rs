//! The way to the upstream: which server, and what it gets to see.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::context::Context;
use super::control::Closing;
use super::{fields, headers, trace};
use crate::admission::Permit;
use crate::refusal::Refusal;
use crate::routing::{Auth, strip_prefix};
use crate::settings::{Balance, HashKey, TimeoutOverrides, Timeouts};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Chooses a server for a request that holds a permit.
///
/// # Errors
/// 503 when no server is healthy.
pub(super) fn choose(session: &mut Session, ctx: &mut Context) -> pingora::Result<Box<HttpPeer>> {
    let current = Arc::clone(&ctx.current);
    let Some(permit) = &ctx.permit else {
        // Without a permit nothing is forwarded.
        return Err(Error::new(ErrorType::HTTPStatus(500)));
    };
    let route = Arc::clone(&permit.route);
    let hash = hash_of(
        session,
        ctx,
        permit,
        &current
            .live
            .upstreams
            .get(route.upstream)
            .map(|u| u.balance.clone()),
    );
    let upstream = current.upstreams.get(route.upstream);
    let chosen = upstream.and_then(|upstream| upstream.choose(hash.as_deref(), &ctx.tried));
    let Some(chosen) = chosen else {
        ctx.reason = "no other server of the upstream is in rotation";
        ctx.refusal = ctx.failed;
        return Err(Error::new(ErrorType::HTTPStatus(503)));
    };
    let timeouts = ctx.timeouts();
    let streams = is_streaming(session);
    let overrides =
        Some(&route.timeouts).filter(|timeouts| **timeouts != TimeoutOverrides::default());
    let mut peer = chosen.peer(overrides);
    if ctx.fresh {
        // A key in the pool that no connection has.
        peer.group_key = rand::random();
    }
    if session.is_upgrade_req() {
        // WebSocket is HTTP/1.1 only.
        peer.options.set_http_version(1, 1);
    }
    if streams {
        peer.options.read_timeout = timeouts.and_then(|timeouts| timeouts.stream_idle);
    }
    ctx.attempts += 1;
    ctx.tried.push(chosen.server());
    ctx.chosen = Some(chosen);
    ctx.upstream_started = Some(Instant::now());
    Ok(peer)
}

fn hash_of(
    session: &Session,
    ctx: &Context,
    permit: &Permit,
    balance: &Option<Balance>,
) -> Option<Vec<u8>> {
    let Some(Balance::ConsistentHash(key)) = balance else {
        return None;
    };
    let identity = permit.identity.as_ref();
    let found = match key {
        HashKey::Ip => None,
        HashKey::User => identity.map(|identity| identity.user.clone().into_bytes()),
        HashKey::Session => identity
            .and_then(|identity| identity.session.as_ref())
            .map(|session| session.id.0.to_vec()),
        HashKey::Header(name) => session
            .req_header()
            .headers
            .get(name)
            .map(|value| value.as_bytes().to_vec()),
    };
    // What a request lacks falls back to its address, as for limits.
    found.or_else(|| Some(ctx.origin.as_ref()?.ip.to_string().into_bytes()))
}

/// Writes what the upstream gets: the client's claims out, ours in, last.
///
/// # Errors
/// A header that does not fit.
pub(super) fn prepare(request: &mut RequestHeader, ctx: &mut Context) -> pingora::Result<()> {
    let Some(permit) = &ctx.permit else {
        return Err(Error::new(ErrorType::HTTPStatus(500)));
    };
    fields::of_request(request, |fields| vouch(fields, ctx, permit))??;
    let route = &permit.route;
    if route.strip_prefix {
        let path = request.uri.path().to_owned();
        let mut stripped = strip_prefix(&path, &route.matches.path).to_owned();
        if let Some(query) = request.uri.query() {
            stripped = format!("{stripped}?{query}");
        }
        request.set_raw_path(stripped.as_bytes())?;
    }
    Ok(())
}

fn vouch(fields: &mut HeaderMap, ctx: &Context, permit: &Permit) -> pingora::Result<()> {
    let (Some(origin), Some(host)) = (&ctx.origin, &ctx.host_header) else {
        return Err(Error::new(ErrorType::HTTPStatus(500)));
    };
    let (route, live) = (&permit.route, &ctx.current.live);
    let names = &live.identity_headers;
    // Once, for all that is written below.
    fields.reserve(10);
    headers::strip(fields, names, origin.peer_trusted);
    let bearer_passes = route.auth == Auth::None || route.forward_credentials;
    headers::strip_credentials(fields, &live.sessions.cookie.name, bearer_passes);
    headers::edit(fields, &route.request_headers);
    if let Some(identity) = &permit.identity {
        headers::write_identity(fields, names, identity)?;
    }
    headers::write_origin(fields, origin, host)?;
    let id = HeaderValue::from_str(&ctx.request_id).map_err(headers::not_ours)?;
    fields.insert(X_REQUEST_ID, id);
    trace::write(fields)?;
    let chosen = ctx.chosen.as_ref().and_then(super::upstream::Chosen::host);
    match chosen.and_then(|host| HeaderValue::from_str(host).ok()) {
        Some(host) => {
            fields.insert(header::HOST, host);
        }
        // On HTTP/2 the host is no header.
        None if !fields.contains_key(header::HOST) => {
            fields.insert(header::HOST, host.clone());
        }
        None => {}
    }
    Ok(())
}

/// Cuts a request body off at the route's limit.
///
/// # Errors
/// 413 once more than that has come.
pub(super) fn count_body(
    session: &mut Session,
    body: Option<&Bytes>,
    ctx: &mut Context,
) -> pingora::Result<()> {
    let Some(body) = body else { return Ok(()) };
    if session.was_upgraded() {
        return Ok(());
    }
    ctx.body_received += body.len() as u64;
    let limit = ctx.route.as_ref().map_or(0, |route| route.max_body);
    if ctx.body_received > limit {
        ctx.refusal = Some(Refusal::BodyTooLarge);
        return Err(Error::new_down(ErrorType::HTTPStatus(413)));
    }
    Ok(())
}

/// Sets the downstream deadlines of a request, and for one that asks for a stream a deadline of its
/// own for the answer's head: the upstream's read timeout does not apply to streams.
pub(super) fn set_timeouts(session: &mut Session, ctx: &Context) {
    let Some(timeouts) = ctx.timeouts() else {
        return;
    };
    session.set_write_timeout(Some(timeouts.write));
    if is_streaming(session) {
        let control = Arc::clone(&ctx.arrival.control);
        let deadline = timeouts.read + timeouts.connect;
        tokio::spawn(async move {
            tokio::time::sleep(deadline).await;
            if !control.is_answered() {
                control.close(Closing::Ended);
            }
        });
    }
}

/// Whether a request asks for an answer that may stay silent for long.
fn is_streaming(session: &Session) -> bool {
    let headers = &session.req_header().headers;
    let names = |name: HeaderName, wanted: &[u8]| {
        headers
            .get(name)
            .is_some_and(|value| memchr::memmem::find(value.as_bytes(), wanted).is_some())
    };
    session.is_upgrade_req() || names(header::ACCEPT, b"text/event-stream")
}

impl Context {
    /// The timeouts in force for the request's route.
    pub(super) fn timeouts(&self) -> Option<Timeouts> {
        let route = self.route.as_ref()?;
        let upstream = self.current.live.upstreams.get(route.upstream)?;
        Some(upstream.timeouts.with(&route.timeouts))
    }
}
