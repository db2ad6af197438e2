//! The engine on Pingora's `HttpProxy`: its hooks, and the adapters that it needs.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::apps::HttpServerApp as _;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{FailToProxy, HttpProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::watch;

use super::http1::pool::UpstreamConnections;
use super::open_streams::stream_control::StreamControl;
use super::request_context::Arrival;
use super::worker::Worker;

mod api_call;
pub(super) mod client_response;
mod context;
mod error_kind;
mod failure;
mod forward;
mod grpc_session;
pub(super) mod header_map;
mod http2;
mod local_response;
mod peer;
mod probe;
mod query;
mod request;
mod stream;

use context::Context;
pub(super) use error_kind::{failure_of, http2_cause_of, is_unprocessed};
use grpc_session::GrpcSession;
pub(super) use peer::of as peer_of;
pub(super) use pingora::protocols::l4::ext::get_tcp_info;
pub use probe::probe_sender;

/// A worker with Pingora's proxy in front of it.
pub struct WorkerProxy {
    pub worker: Arc<Worker>,
    /// Those of the gateway's own engine.
    pub(super) connections: Arc<UpstreamConnections>,
    http: Arc<HttpProxy<Proxy>>,
}

impl WorkerProxy {
    pub fn new(worker: Arc<Worker>, connections: Arc<UpstreamConnections>) -> WorkerProxy {
        let conf = ServerConf {
            threads: 1,
            // `failure` decides below this cap: by `retries`, and by the servers that are left.
            max_retries: 100,
            ..ServerConf::default()
        };
        let proxy = Proxy {
            worker: Arc::clone(&worker),
        };
        WorkerProxy {
            worker,
            connections,
            http: Arc::new(pingora::proxy::http_proxy(&Arc::new(conf), proxy)),
        }
    }
}

tokio::task_local! {
    /// The request that the current task is about to hand to Pingora: the only way for
    /// `new_ctx` to learn which request it is for.
    static REQUEST: Arrival;
}

/// Serves one request, unless it is closed from outside first.
fn serve<'r>(
    arrival: Arrival,
    proxy: &'r WorkerProxy,
    session: ServerSession,
    shutdown: &'r watch::Receiver<bool>,
) -> impl Future<Output = ()> + 'r {
    let control = Arc::clone(&arrival.control);
    // Boxed, before the future of the request begins, so that the session is no part of it.
    let processing = proxy.http.process_new_http(session, shutdown);
    REQUEST.scope(arrival, async move {
        tokio::select! {
            biased;
            () = StreamControl::drop_requested(&control) => {}
            _ = processing => {}
        }
    })
}

/// Pingora's hooks, in the order in which they run for a request.
struct Proxy {
    worker: Arc<Worker>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    // Boxed: Pingora moves it into each of its stages.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        // Every request is handed to Pingora inside the scope ([`serve`]).
        let arrival = REQUEST.with(Arrival::clone);
        Box::new(Context::new(arrival, Arc::clone(&self.worker)))
    }

    fn init_downstream_modules(&self, _: &mut HttpModules) {
        // None: the default modules compress responses, which is the upstream's task.
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<bool> {
        let decided = request::filter(session, &mut ctx.request).await;
        let admitted = decided.map_err(failure::attribute_early_error)?;
        Ok(ctx.settle(admitted))
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<Box<HttpPeer>> {
        let (request, admitted) = ctx.admitted()?;
        forward::choose(session, request, admitted)
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        peer: &HttpPeer,
        descriptor: RawFd,
        _: Option<&Digest>,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        let (request, admitted) = ctx.admitted()?;
        forward::begin(session, peer, (descriptor, reused), request, admitted);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        let (ctx, admitted) = ctx.admitted()?;
        forward::prepare(session, request, ctx, admitted)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        let (request, admitted) = ctx.admitted()?;
        if end {
            request.arrival.control.body_rate.end();
        }
        forward::count_body(session, body.as_ref(), end, request, admitted)?;
        forward::end_body(body, end);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<()> {
        let (request, admitted) = ctx.admitted()?;
        client_response::complete(session, response, request, admitted)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<Option<Duration>> {
        let (request, admitted) = ctx.admitted()?;
        client_response::observe_body(body, end, request, admitted)?;
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        _: &mut HeaderMap,
        ctx: &mut Box<Context>,
    ) -> pingora::Result<Option<Bytes>> {
        let (request, admitted) = ctx.admitted()?;
        client_response::observe_trailers(request, admitted);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Box<Context>,
        error: Box<pingora::Error>,
    ) -> Box<pingora::Error> {
        match ctx.admitted() {
            Ok((request, admitted)) => failure::handle_connect_error(request, admitted, error),
            Err(missing) => missing,
        }
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<pingora::Error>,
        ctx: &mut Box<Context>,
        reused: bool,
    ) -> Box<pingora::Error> {
        match ctx.admitted() {
            Ok((request, admitted)) => {
                failure::handle_proxy_error(session, request, admitted, error, reused)
            }
            Err(missing) => missing,
        }
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &pingora::Error,
        ctx: &mut Box<Context>,
    ) -> FailToProxy {
        failure::respond_with_error(session, ctx, error).await
    }

    async fn logging(
        &self,
        session: &mut Session,
        _: Option<&pingora::Error>,
        ctx: &mut Box<Context>,
    ) {
        client_response::record_outcome(session, &mut ctx.request);
        local_response::linger(session, &ctx.request).await;
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Box<Context>,
        _: &pingora::Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        // `failure` reports retries, with the request's identifier.
        true
    }

    fn suppress_error_log(&self, _: &Session, _: &Box<Context>, _: &pingora::Error) -> bool {
        // The access log reports it, once.
        true
    }
}
