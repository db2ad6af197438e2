//! A connection that speaks HTTP/2, from its preface to its last stream.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Door, Peer, drain, serve};
use crate::proxy::Lane;
use crate::proxy::connection::head::Outline;
use crate::proxy::connection::{Connection, RefusalReport};
use crate::proxy::context::Arrival;
use crate::proxy::grpc::{self, GrpcSession};
use crate::proxy::live::control::Control;
use crate::telemetry::request_id::RequestId;

/// How long a draining connection has to be quiet before it is closed: what the client sent before
/// it read the GOAWAY is still on its way (RFC 9113, section 6.8).
const QUIET: Duration = Duration::from_secs(1);

/// How long a draining connection waits for a moment without an open stream, at most half the grace
/// period. The next stream that the client opens then begins a GOAWAY in two steps.
const PAUSE: Duration = Duration::from_secs(5);

/// How many malformed requests end a connection.
const MOST_REJECTED: usize = 32;

/// What h2 keeps of one response that the socket does not accept.
const SEND_BUFFER: usize = 32 * 1024;

impl Door {
    /// Serves streams until the client goes, is idle for too long, or a drain has nothing left to do.
    pub(super) async fn serve_http2(
        &self,
        mut connection: Box<Connection>,
        peer: Arc<Peer>,
        lane: Arc<Lane>,
        mut shutdown: ShutdownWatch,
    ) {
        let limits = &self.settings.limits;
        let preface = tokio::select! {
            biased;
            preface = timeout(limits.handshake_timeout, connection.read_preface()) => preface,
            () = drain::began_before(drain::IDLE, &mut shutdown) => return,
        };
        match preface {
            Ok(true) => {}
            Ok(false) => return lane.worker.refused("http2_preface"),
            Err(_) => return lane.worker.refused("handshake_timeout"),
        }
        let (worker, of) = (Arc::clone(&lane.worker), Arc::clone(&peer));
        connection.report_refusals(RefusalReport::new(move |fault| {
            // The client has not been told it.
            let request_id = RequestId::generate();
            worker.log_refused_head(&of, fault, request_id, Outline::default(), 0);
        }));
        let http2 = &self.settings.http2;
        let mut options = default_h2_options();
        options
            .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
            .max_concurrent_streams(http2.streams)
            .initial_window_size(http2.stream_window)
            .initial_connection_window_size(http2.connection_window)
            .max_send_buffer_size(SEND_BUFFER);
        let gate = Arc::new(Http2Gate {
            peer,
            lane,
            keepalive: limits.keepalive,
            in_flight: watch::Sender::new(0),
        });
        let control = connection.control();
        if let Ok(streams) = handshake(connection, Some(options)).await {
            gate.serve(streams, &control, shutdown).await;
        }
    }
}

/// One HTTP/2 connection, apart from its streams.
struct Http2Gate {
    peer: Arc<Peer>,
    lane: Arc<Lane>,
    keepalive: Duration,
    in_flight: watch::Sender<usize>,
}

/// Why a connection is not kept.
enum Leave {
    /// It has been closed, or has failed.
    Ended,
    /// It has no open stream.
    Unused,
    /// The gateway drains, and the client has had open streams for [`PAUSE`].
    Busy,
}

impl Http2Gate {
    /// Serves streams until the connection ends.
    async fn serve(
        self: &Arc<Self>,
        mut streams: h2::server::Connection<Stream, Bytes>,
        control: &Control,
        shutdown: ShutdownWatch,
    ) {
        let mut accepted = Accepted::default();
        let mut stop = shutdown.clone();
        let leave = loop {
            let used = accepted.any;
            tokio::select! {
                // What has come before the drain is served.
                biased;
                more = self.accept(&mut streams, &mut accepted, &shutdown) => if !more {
                    break Leave::Ended;
                },
                () = drain_of(&mut stop, used) => {
                    break self.drain(&mut streams, &mut accepted, &shutdown).await;
                }
                () = self.idle() => break Leave::Unused,
            }
        };
        match leave {
            Leave::Ended => return,
            // Some clients accept no frame after a GOAWAY, so it is the only one where that is possible.
            Leave::Unused => streams.abrupt_shutdown(h2::Reason::NO_ERROR),
            Leave::Busy => streams.graceful_shutdown(),
        }
        let rest = async { while self.accept(&mut streams, &mut accepted, &shutdown).await {} };
        tokio::select! {
            () = rest => {}
            // A client may take no notice of the GOAWAY.
            () = self.quiet(control) => {}
        }
    }

    /// Serves streams until none is open, or the client opens one after [`PAUSE`]. Python's h2 and
    /// others take any GOAWAY for the end of the connection, and fail the streams that are open.
    async fn drain(
        self: &Arc<Self>,
        streams: &mut h2::server::Connection<Stream, Bytes>,
        accepted: &mut Accepted,
        shutdown: &ShutdownWatch,
    ) -> Leave {
        let grace = self.lane.worker.current().live.shutdown.grace;
        let deadline = Instant::now() + PAUSE.min(grace / 2);
        loop {
            // Only accepting makes the connection progress; its state is looked at in between.
            let more = poll_fn(|cx| {
                let accepting = pin!(self.accept(streams, accepted, shutdown)).poll(cx);
                match accepting {
                    Poll::Ready(more) => Poll::Ready(Some(more)),
                    Poll::Pending if !streams.has_streams() => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                }
            });
            match more.await {
                None => return Leave::Unused,
                Some(false) => return Leave::Ended,
                Some(true) if Instant::now() >= deadline => return Leave::Busy,
                Some(true) => {}
            }
        }
    }

    /// Accepts a stream and begins to serve it; `false` when the connection has ended.
    async fn accept(
        self: &Arc<Self>,
        streams: &mut h2::server::Connection<Stream, Bytes>,
        accepted: &mut Accepted,
        shutdown: &ShutdownWatch,
    ) -> bool {
        match HttpSession::from_h2_conn(streams, Arc::clone(&accepted.digest)).await {
            Ok(Some(H2Accept::Session(session))) => {
                accepted.any = true;
                let in_flight = InFlight::count(self);
                let shutdown = shutdown.clone();
                tokio::spawn(async move {
                    in_flight.0.serve_stream(session, &shutdown).await;
                });
                true
            }
            Ok(Some(H2Accept::Rejected)) => {
                accepted.any = true;
                accepted.rejected += 1;
                accepted.rejected < MOST_REJECTED
            }
            Ok(None) | Err(_) => false,
        }
    }

    async fn serve_stream(&self, stream: HttpSession, shutdown: &ShutdownWatch) {
        let arrival = Arrival::new(Arc::clone(&self.peer), None);
        let session = if grpc::is_call(stream.req_header()) {
            let control = Arc::clone(&arrival.control);
            ServerSession::new_custom(Box::new(GrpcSession::new(stream, control)))
        } else {
            ServerSession::new_http2(stream)
        };
        serve(arrival, &self.lane, session, shutdown).await;
    }

    /// Waits until no request has been in flight for the keep-alive time.
    async fn idle(&self) {
        let mut in_flight = self.in_flight.subscribe();
        let _ = in_flight.wait_for(|requests| *requests == 0).await;
        pingora_timeout::sleep(self.keepalive).await;
    }

    /// Waits until the connection has been quiet for [`QUIET`].
    async fn quiet(&self, control: &Control) {
        let mut in_flight = self.in_flight.subscribe();
        loop {
            let _ = in_flight.wait_for(|requests| *requests == 0).await;
            let quiet = timeout(QUIET, in_flight.changed()).await.is_err();
            // The end of a response may still wait for the client to read it.
            if quiet && !control.silence.is_blocked() {
                return;
            }
        }
    }
}

/// Resolves when the gateway drains; for a connection that has carried no request, [`drain::IDLE`]
/// later: its first one is probably on its way.
async fn drain_of(shutdown: &mut ShutdownWatch, used: bool) {
    if used {
        // Its sender outlives the connection.
        let _ = shutdown.wait_for(|stop| *stop).await;
    } else {
        drain::began_before(drain::IDLE, shutdown).await;
    }
}

/// What has been accepted on a connection.
#[derive(Default)]
struct Accepted {
    any: bool,
    /// Streams that Pingora has rejected by itself.
    rejected: usize,
    /// Pingora asks for one.
    digest: Arc<Digest>,
}

/// Counts a request for as long as it is served.
struct InFlight(Arc<Http2Gate>);

impl InFlight {
    fn count(gate: &Arc<Http2Gate>) -> InFlight {
        gate.in_flight.send_modify(|requests| *requests += 1);
        InFlight(Arc::clone(gate))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|requests| *requests -= 1);
    }
}
