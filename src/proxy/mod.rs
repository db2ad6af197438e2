//! The wire. The only room that names Pingora.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;

pub mod connection;
pub mod connection_auth;
pub mod listener;
pub mod local_response;
pub mod open_streams;
pub mod request_context;
pub mod worker;

mod api_bridge;
mod client_response;
mod failure;
mod forward;
mod grpc;
mod header_map;
mod http10;
mod pipeline;
mod sign_in;
mod unrouted;

use request_context::{REQUEST, RequestContext};
pub use worker::{Worker, WorkerProxy};

/// Pingora's hooks, in the order in which a request meets them.
pub struct Proxy {
    pub worker: Arc<Worker>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    // Boxed: Pingora moves it on into each of its stages.
    type CTX = Box<RequestContext>;

    fn new_ctx(&self) -> Box<RequestContext> {
        // Every request is handed to Pingora inside the scope (`listener::serve`).
        let arrival = REQUEST.with(Clone::clone);
        Box::new(RequestContext::new(arrival, Arc::clone(&self.worker)))
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {
        // None: the default one compresses, which is the upstream's business.
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut Box<RequestContext>,
    ) -> pingora::Result<bool> {
        let decided = pipeline::decide(session, ctx).await;
        decided.map_err(failure::attribute_early_error)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Box<RequestContext>,
    ) -> pingora::Result<Box<HttpPeer>> {
        forward::choose(session, ctx)
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        descriptor: RawFd,
        _: Option<&Digest>,
        ctx: &mut Box<RequestContext>,
    ) -> pingora::Result<()> {
        forward::begin(session, peer, descriptor, reused, ctx);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Box<RequestContext>,
    ) -> pingora::Result<()> {
        http10::prepare(session);
        forward::prepare(session, request, ctx)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<RequestContext>,
    ) -> pingora::Result<()> {
        if end {
            ctx.arrival.control.body_rate.end();
        }
        forward::count_body(session, body.as_ref(), end, ctx)?;
        forward::end_body(body, end);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<RequestContext>,
    ) -> pingora::Result<()> {
        client_response::complete(session, response, ctx)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<RequestContext>,
    ) -> pingora::Result<Option<Duration>> {
        client_response::observe_body(session, body, end, ctx)?;
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        _: &mut HeaderMap,
        ctx: &mut Box<RequestContext>,
    ) -> pingora::Result<Option<Bytes>> {
        client_response::observe_trailers(ctx);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Box<RequestContext>,
        error: Box<pingora::Error>,
    ) -> Box<pingora::Error> {
        failure::handle_connect_error(ctx, error)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<pingora::Error>,
        ctx: &mut Box<RequestContext>,
        reused: bool,
    ) -> Box<pingora::Error> {
        failure::handle_proxy_error(session, ctx, error, reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &pingora::Error,
        ctx: &mut Box<RequestContext>,
    ) -> FailToProxy {
        failure::respond_with_error(session, ctx, error).await
    }

    async fn logging(
        &self,
        session: &mut Session,
        _: Option<&pingora::Error>,
        ctx: &mut Box<RequestContext>,
    ) {
        client_response::record_outcome(session, ctx);
        local_response::linger(session, ctx).await;
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Box<RequestContext>,
        _: &pingora::Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        // `failure` reports what is tried again, with the request's identifier.
        true
    }

    fn suppress_error_log(&self, _: &Session, _: &Box<RequestContext>, _: &pingora::Error) -> bool {
        // The access log says it, once.
        true
    }
}
