//! A client connection that speaks HTTP/2, from its preface to its last stream.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, Stream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{GrpcSession, WorkerProxy, serve};
use crate::clock;
use crate::proxy::connection::head::Outline;
use crate::proxy::connection::{DownstreamConnection, RefusalReport};
use crate::proxy::grpc;
use crate::proxy::http1::timer_wheel::{Deadline, Ticks};
use crate::proxy::listener::{ListenerState, Peer, drain};
use crate::proxy::local_response::RejectedHead;
use crate::proxy::open_streams::stream_control::StreamControl;
use crate::proxy::request_context::Arrival;
use crate::settings::ListenerId;
use crate::telemetry::metrics::ConnectionRefusal;
use crate::telemetry::request_id::RequestId;

/// How long a draining connection has to be quiet before it is closed: frames that the client sent
/// before it read the GOAWAY are still on their way (RFC 9113, section 6.8).
const QUIET: Duration = Duration::from_secs(1);

const QUIET_CHECK: Duration = Duration::from_millis(50);

/// How long a draining connection waits for a moment without an open stream, at most half the grace
/// period. After that, the next stream that the client opens starts a GOAWAY in two steps.
const PAUSE: Duration = Duration::from_secs(5);

/// Number of malformed requests that ends a connection.
const MAX_REJECTED_STREAMS: usize = 32;

/// Number of calls that a front proxy may have given up before they are accepted. Its clients cause
/// that by resetting their requests, which must not end the connection that carries the calls about
/// those of others. Of other clients h2 accepts 20.
const MAX_RESET_CALLS: usize = 4096;

/// Bytes of one response that h2 buffers while the socket is blocked.
const SEND_BUFFER: usize = 32 * 1024;

impl ListenerState {
    /// Serves streams until the client goes, is idle for too long, or the drain is complete.
    pub(in crate::proxy) async fn serve_http2(
        &self,
        mut connection: Box<DownstreamConnection>,
        peer: Arc<Peer>,
        proxy: Arc<WorkerProxy>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let limits = &self.settings.limits;
        let preface = tokio::select! {
            biased;
            preface = timeout(limits.handshake_timeout, connection.read_preface()) => preface,
            () = drain::wait_for_grace(drain::IDLE, &mut shutdown) => return,
        };
        match preface {
            Ok(true) => {}
            Ok(false) => {
                return proxy
                    .worker
                    .count_refused_connection(ConnectionRefusal::Http2Preface);
            }
            Err(_) => {
                return proxy
                    .worker
                    .count_refused_connection(ConnectionRefusal::HandshakeTimeout);
            }
        }
        let (worker, of) = (Arc::clone(&proxy.worker), Arc::clone(&peer));
        connection.report_refusals(RefusalReport::new(move |fault| {
            // The client has not received it.
            let request_id = RequestId::generate();
            let head = RejectedHead {
                fault,
                request_id: &request_id,
                front_proxy: None,
                dialect: None,
            };
            worker.log_rejected_head(&of, &head, &Outline::default(), 0);
        }));
        let http2 = &self.settings.http2;
        let mut options = default_h2_options();
        options
            .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
            .max_concurrent_streams(http2.streams)
            .initial_window_size(http2.stream_window)
            .initial_connection_window_size(http2.connection_window)
            .max_send_buffer_size(SEND_BUFFER);
        if peer.listener == ListenerId::ForwardAuth {
            options.max_pending_accept_reset_streams(MAX_RESET_CALLS);
        }
        let gate = Arc::new(Http2Connection {
            peer,
            worker_proxy: proxy,
            keepalive: Ticks::of(limits.keepalive),
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            idle: Deadline::default(),
        });
        let control = connection.control();
        if let Ok(streams) = handshake(connection, Some(options)).await {
            gate.serve(streams, &control, shutdown).await;
        }
    }
}

/// State of one HTTP/2 connection, apart from its streams.
struct Http2Connection {
    peer: Arc<Peer>,
    worker_proxy: Arc<WorkerProxy>,
    keepalive: Ticks,
    /// Numbers of requests.
    begun: AtomicUsize,
    ended: AtomicUsize,
    /// Armed while no request is in flight.
    idle: Deadline,
}

/// Why a connection is not kept.
enum ConnectionEnd {
    /// It has been closed, or has failed.
    Ended,
    /// It has no open stream.
    Unused,
    /// The gateway drains, and the client has had open streams for [`PAUSE`].
    Busy,
}

impl Http2Connection {
    /// Serves streams until the connection ends.
    async fn serve(
        self: &Arc<Self>,
        mut streams: h2::server::Connection<Stream, Bytes>,
        control: &StreamControl,
        shutdown: watch::Receiver<bool>,
    ) {
        let mut accepted = AcceptedStreams::default();
        self.idle.arm(self.keepalive);
        let mut stop = shutdown.clone();
        let leave = loop {
            let used = accepted.any;
            tokio::select! {
                // Frames that arrived before the drain are served.
                biased;
                more = self.accept(&mut streams, &mut accepted, &shutdown) => if !more {
                    break ConnectionEnd::Ended;
                },
                () = wait_for_drain(&mut stop, used) => {
                    break self.drain(&mut streams, &mut accepted, &shutdown).await;
                }
                () = poll_fn(|cx| self.idle.poll_passed(cx)) => break ConnectionEnd::Unused,
            }
        };
        match leave {
            ConnectionEnd::Ended => return,
            // Some clients accept no frame after a GOAWAY, so only one is sent where possible.
            ConnectionEnd::Unused => streams.abrupt_shutdown(h2::Reason::NO_ERROR),
            ConnectionEnd::Busy => streams.graceful_shutdown(),
        }
        let rest = async { while self.accept(&mut streams, &mut accepted, &shutdown).await {} };
        tokio::select! {
            () = rest => {}
            // A client may ignore the GOAWAY.
            () = self.wait_until_quiet(control) => {}
        }
    }

    /// Serves streams until none is open, or the client opens one after [`PAUSE`]. Python's h2 and
    /// others take any GOAWAY for the end of the connection, and fail the open streams.
    async fn drain(
        self: &Arc<Self>,
        streams: &mut h2::server::Connection<Stream, Bytes>,
        accepted: &mut AcceptedStreams,
        shutdown: &watch::Receiver<bool>,
    ) -> ConnectionEnd {
        let grace = self.worker_proxy.worker.snapshot().settings.shutdown.grace;
        let deadline = clock::monotonic() + PAUSE.min(grace / 2);
        loop {
            // Only accepting makes the connection progress; its state is checked in between.
            let more = poll_fn(|cx| {
                let accepting = pin!(self.accept(streams, accepted, shutdown)).poll(cx);
                match accepting {
                    Poll::Ready(more) => Poll::Ready(Some(more)),
                    Poll::Pending if !streams.has_streams() => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            });
            match more.await {
                None => return ConnectionEnd::Unused,
                Some(false) => return ConnectionEnd::Ended,
                Some(true) if clock::monotonic() >= deadline => return ConnectionEnd::Busy,
                Some(true) => {}
            }
        }
    }

    /// Accepts a stream and begins to serve it; `false` when the connection has ended.
    async fn accept(
        self: &Arc<Self>,
        streams: &mut h2::server::Connection<Stream, Bytes>,
        accepted: &mut AcceptedStreams,
        shutdown: &watch::Receiver<bool>,
    ) -> bool {
        match HttpSession::from_h2_conn(streams, Arc::clone(&accepted.digest)).await {
            Ok(Some(H2Accept::Session(session))) => {
                accepted.any = true;
                let in_flight = InFlight::count(self);
                let shutdown = shutdown.clone();
                // Boxed: the runtime moves it several times.
                tokio::spawn(Box::pin(async move {
                    in_flight.0.serve_stream(session, &shutdown).await;
                }));
                true
            }
            Ok(Some(H2Accept::Rejected)) => {
                accepted.any = true;
                accepted.rejected += 1;
                accepted.rejected < MAX_REJECTED_STREAMS
            }
            Ok(None) | Err(_) => false,
        }
    }

    fn serve_stream<'r>(
        &'r self,
        stream: HttpSession,
        shutdown: &'r watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + 'r {
        let arrival = Arrival::new(Arc::clone(&self.peer));
        let head = stream.req_header();
        let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let session = if grpc::is_call(&head.method, content_type) {
            let control = Arc::clone(&arrival.control);
            ServerSession::new_custom(Box::new(GrpcSession::new(stream, control)))
        } else {
            ServerSession::new_http2(stream)
        };
        serve(arrival, &self.worker_proxy, session, shutdown)
    }

    /// Waits until the connection has been quiet for [`QUIET`].
    async fn wait_until_quiet(&self, control: &StreamControl) {
        let count = || {
            let (begun, ended) = (&self.begun, &self.ended);
            (begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed))
        };
        let mut quiet_since = (count(), clock::monotonic());
        loop {
            tokio::time::sleep(QUIET_CHECK).await;
            let ((begun, ended), since) = quiet_since;
            // The end of a response may still wait for the client to read it.
            if begun != ended || count() != (begun, ended) || control.idle_timer.is_blocked() {
                quiet_since = (count(), clock::monotonic());
            } else if since.elapsed() >= QUIET {
                return;
            }
        }
    }
}

/// Resolves when the gateway drains; for a connection that has carried no request, [`drain::IDLE`]
/// later: its first one is probably on its way.
async fn wait_for_drain(shutdown: &mut watch::Receiver<bool>, used: bool) {
    if used {
        // Its sender outlives the connection.
        let _ = shutdown.wait_for(|stop| *stop).await;
    } else {
        drain::wait_for_grace(drain::IDLE, shutdown).await;
    }
}

/// State of the streams accepted on a connection.
#[derive(Default)]
struct AcceptedStreams {
    any: bool,
    /// Streams that Pingora has rejected without a hook.
    rejected: usize,
    /// Required by Pingora.
    digest: Arc<Digest>,
}

/// Counts a request while it is served.
struct InFlight(Arc<Http2Connection>);

impl InFlight {
    fn count(gate: &Arc<Http2Connection>) -> InFlight {
        gate.begun.fetch_add(1, Ordering::Relaxed);
        gate.idle.disarm();
        InFlight(Arc::clone(gate))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let ended = self.0.ended.fetch_add(1, Ordering::Relaxed) + 1;
        if ended == self.0.begun.load(Ordering::Relaxed) {
            self.0.idle.arm(self.0.keepalive);
        }
    }
}
