//! Serves the admin endpoints, with the limits of public listeners, or calls them in the process.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tower::ServiceExt;

use super::{AdminState, Readiness, router};
use crate::pipeline::facts::RequestHead;
use crate::pipeline::fields::{Field, FieldList, Fields};
use crate::pipeline::header_fields::FieldBuffer;
use crate::pipeline::local_response::{self, RejectedRequest, ResponseContext};
use crate::pipeline::own_field::NOSNIFF;
use crate::rejection::{Refusal, Rejection};
use crate::settings::ConnectionLimits;
use crate::telemetry::metrics::{ConnectionRefusal, Metrics};
use crate::telemetry::request_id::{RequestId, X_REQUEST_ID};

mod stall_limit;

use stall_limit::StallLimit;

/// Connections at once: monitoring, probes and operators.
const MAX_CONNECTIONS: usize = 256;
/// Bytes of a request body.
const MAX_BODY: usize = 64 * 1024;
/// The smallest buffer that the HTTP library allows.
const MIN_HEAD: usize = 8 * 1024;

/// Starts serving on the current runtime. The handle stops accepting connections.
///
/// # Errors
/// The runtime does not take the socket.
pub fn serve(
    socket: StdListener,
    state: AdminState,
    limits: ConnectionLimits,
) -> io::Result<AbortHandle> {
    let (readiness, metrics) = (state.readiness.clone(), Arc::clone(&state.metrics));
    let body_timeout = limits.head_timeout;
    let router = router(state)
        .layer(from_fn(move |request, next| {
            read_body(body_timeout, request, next)
        }))
        .layer(from_fn(render_rejection))
        .layer(from_fn_with_state(readiness, close_while_draining));
    let listener = TcpListener::from_std(socket)?;
    Ok(tokio::spawn(accept(listener, router, limits, metrics)).abort_handle())
}

/// The admin endpoints without a listener, for a command that runs on the gateway's store.
pub struct LocalEndpoints(Router);

impl LocalEndpoints {
    pub fn new(state: AdminState) -> LocalEndpoints {
        LocalEndpoints(router(state).layer(from_fn(render_rejection)))
    }

    /// Calls an endpoint; returns the body of its response.
    ///
    /// # Errors
    /// The body is longer than `max_body`.
    pub async fn call(
        &self,
        request: http::Request<String>,
        max_body: usize,
    ) -> Result<Bytes, BodyTooLong> {
        let Ok(response) = self.0.clone().oneshot(request.map(Body::from)).await;
        let body = axum::body::to_bytes(response.into_body(), max_body).await;
        body.map_err(|_| BodyTooLong)
    }
}

/// The body of a response is longer than the caller accepts.
#[derive(Debug, thiserror::Error)]
#[error("the response is too long")]
pub struct BodyTooLong;

/// Accepts connections until the process ends.
async fn accept(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: waiting a moment beats spinning.
                tracing::warn!(%error, "a connection to the admin listener could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            metrics.count_refused_connection(ConnectionRefusal::AdminConnections);
            continue;
        };
        let connection = serve_connection(stream, router.clone(), limits.clone());
        tokio::spawn(async move {
            let _slot = slot;
            connection.await;
        });
    }
}

/// Serves one connection under the head and write deadlines that public listeners have. Between
/// requests it may be idle as long as a head may take.
async fn serve_connection(stream: TcpStream, router: Router, limits: ConnectionLimits) {
    let _ = stream.set_nodelay(true);
    let router = router.map_request(|request: http::Request<Incoming>| request.map(Body::new));
    let stream = TokioIo::new(StallLimit::new(stream, limits.write_timeout));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head.max(MIN_HEAD))
        .serve_connection(stream, TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the admin listener failed");
    }
}

/// Announces the end of the connection while the gateway drains: the next one is for a successor.
async fn close_while_draining(
    State(readiness): State<Readiness>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if readiness.is_draining() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Reads the body before the request is served, and rejects a client that is too slow.
async fn read_body(deadline: Duration, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let read = timeout(deadline, axum::body::to_bytes(body, MAX_BODY)).await;
    match read {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        Ok(Err(_)) => Rejection::from(Refusal::BodyTooLarge).into_response(),
        Err(_) => Rejection::from(Refusal::RequestTimeout).into_response(),
    }
}

/// Renders a rejection.
async fn render_rejection(request: Request, next: Next) -> Response {
    let (method, target) = (request.method().clone(), request.uri().clone());
    let version = request.version();
    let headers = request.headers().clone();
    let request_id =
        RequestId::keep_or_generate(headers.get(X_REQUEST_ID).map(HeaderValue::as_bytes));
    let mut response = request_id.clone().scope(next.run(request)).await;
    if let Some(rejection) = response.extensions_mut().remove::<Rejection>() {
        let list: FieldList<'_> = headers.iter().map(Field::from).collect();
        let context = ResponseContext {
            request_id: &request_id,
            method: &method,
            is_http2: false,
            settings: None,
            services: None,
            hsts: None,
        };
        let request = RejectedRequest {
            head: RequestHead {
                method: &method,
                version,
                path: target.path(),
                query: target.query(),
                fields: Fields::new(&list),
            },
            context,
            is_grpc: false,
            is_api_call: true,
            route: None,
            client: None,
            host: None,
            front_proxy: None,
        };
        let named = response.headers().contains_key(header::ALLOW);
        let rendered = local_response::respond(rejection, &request, Some(response.headers()));
        response = Response::new(Body::from(rendered.body_bytes(&request_id)));
        *response.status_mut() = rendered.status;
        let mut headers = FieldBuffer::new();
        rendered.write_content_fields(&context, &mut headers);
        // The router names the methods of a path afterwards, where there is no `Allow` yet.
        let headers = headers.into_iter();
        for (name, value) in headers.filter(|(name, _)| named || *name != header::ALLOW) {
            response.headers_mut().append(name, value);
        }
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id.header());
    headers.insert(NOSNIFF.name.clone(), NOSNIFF.value.clone());
    response
}
