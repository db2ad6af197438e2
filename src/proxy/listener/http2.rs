//! A connection that speaks HTTP/2, from its preface to its last stream.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Door, Peer, drain, serve};
use crate::proxy::Lane;
use crate::proxy::connection::{Connection, RefusalReport};
use crate::proxy::context::Arrival;
use crate::proxy::control::Control;
use crate::proxy::grpc::{self, GrpcSession};
use crate::request_id::RequestId;

/// How long a draining connection has to be quiet before it is closed: what the client sent before
/// it read the GOAWAY is still on its way (RFC 9113, section 6.8).
const QUIET: Duration = Duration::from_secs(1);

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
            worker.log_refused_head(&of, fault, request_id);
        }));
        let http2 = &self.settings.http2;
        let mut options = default_h2_options();
        options
            .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
            .max_concurrent_streams(http2.streams)
            .initial_window_size(http2.stream_window)
            .initial_connection_window_size(http2.connection_window)
            .max_send_buffer_size(SEND_BUFFER);
        let mut server = HttpServerOptions::default();
        server.h2_idle_timeout = Some(limits.keepalive);
        let gate = Arc::new(Http2Gate {
            peer,
            lane,
            options,
            server,
            in_flight: watch::Sender::new(0),
        });
        let control = connection.control();
        tokio::select! {
            _ = gate.process_new(connection, &shutdown) => {}
            // A client may take no notice of the GOAWAY that Pingora sends.
            () = gate.drained(&control, shutdown.clone()) => {}
        }
    }
}

/// One HTTP/2 connection; Pingora drives it and hands over each stream.
struct Http2Gate {
    peer: Arc<Peer>,
    lane: Arc<Lane>,
    options: H2Options,
    server: HttpServerOptions,
    in_flight: watch::Sender<usize>,
}

impl Http2Gate {
    /// Waits until the gateway drains and the connection has been quiet for [`QUIET`].
    async fn drained(&self, control: &Control, mut shutdown: ShutdownWatch) {
        // Its sender outlives the connection.
        let _ = shutdown.wait_for(|stop| *stop).await;
        let mut in_flight = self.in_flight.subscribe();
        loop {
            let _ = in_flight.wait_for(|requests| *requests == 0).await;
            let quiet = timeout(QUIET, in_flight.changed()).await.is_err();
            // The end of an answer may still wait for the client to read it.
            if quiet && !control.silence.is_blocked() {
                return;
            }
        }
    }
}

/// Counts a request for as long as it is served.
struct InFlight<'a>(&'a watch::Sender<usize>);

impl<'a> InFlight<'a> {
    fn count(requests: &'a watch::Sender<usize>) -> InFlight<'a> {
        requests.send_modify(|requests| *requests += 1);
        InFlight(requests)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

#[async_trait]
impl HttpServerApp for Http2Gate {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let _served = InFlight::count(&self.in_flight);
        let arrival = Arrival::new(Arc::clone(&self.peer), None);
        let session = match session {
            ServerSession::H2(stream) if grpc::is_call(stream.req_header()) => {
                let control = Arc::clone(&arrival.control);
                ServerSession::new_custom(Box::new(GrpcSession::new(stream, control)))
            }
            session => session,
        };
        serve(arrival, &self.lane, session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.options.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.server)
    }
}
