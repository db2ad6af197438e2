//! State of one request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Version};
use smallvec::SmallVec;

use self::text::RequestText;
use super::connection_auth::Slot;
use super::grpc::{self, Messages};
use super::listener::Peer;
use super::open_streams::stream_control::StreamControl;
use super::open_streams::{OpenStream, StreamRegistration};
use super::retry::Failure;
use super::worker::Worker;
use crate::auth::api_key::ApiKeyId;
use crate::auth::credential::CredentialType;
use crate::auth::principal::Principal;
use crate::auth::session::SessionId;
use crate::clock;
use crate::pipeline::admission::{Identity, Permit};
use crate::pipeline::facts::{ClientOrigin, RequestFacts, RequestHead, RequestHost, client_origin};
use crate::pipeline::fields::FieldKind;
use crate::pipeline::local_response::{RejectedRequest, ResponseContext};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Reason, Refusal, Rejection, RejectionDetails};
use crate::routing::Route;
use crate::settings;
use crate::telemetry::metrics::Dialect;
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace_id::TraceId;
use crate::upstream::ChosenServer;

mod query;
mod recorded;
mod text;
mod wait;

pub(super) use wait::measure_wait;

/// The facts about a request before its head is parsed.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub peer: Arc<Peer>,
    pub control: Arc<StreamControl>,
    pub at: Instant,
}

impl Arrival {
    /// A request whose control is its own.
    pub fn new(peer: Arc<Peer>) -> Arrival {
        Arrival {
            peer,
            control: Arc::default(),
            at: clock::monotonic(),
        }
    }

    /// The next request of a connection that has one control for all of them.
    pub fn next(peer: &Arc<Peer>, control: &Arc<StreamControl>) -> Arrival {
        control.reset();
        Arrival {
            peer: Arc::clone(peer),
            control: Arc::clone(control),
            at: clock::monotonic(),
        }
    }
}

/// One request. Dropping it writes the access log and the metrics, also when the request is aborted
/// and none of Pingora's hooks runs any more.
pub struct RequestContext {
    pub arrival: Arrival,
    pub worker: Arc<Worker>,
    /// One configuration for the whole request.
    pub snapshot: Arc<Snapshot>,
    pub request_id: RequestId,
    /// The trace that the request belongs to, where its identifier is not the request's.
    pub trace_id: Option<TraceId>,
    pub method: Method,
    pub is_http2: bool,
    /// By which a front proxy queries about the request.
    pub dialect: Option<Dialect>,
    pub text: RequestText,
    pub client_origin: Option<ClientOrigin>,
    pub origin_header: Option<HeaderValue>,
    pub route: Option<Arc<Route>>,
    /// The index of the upstream to which an admitted request goes.
    pub upstream: Option<usize>,
    /// The caller of an admitted request.
    pub identity: Option<Identity>,
    pub refusal: Option<Refusal>,
    /// The reason for the log.
    pub reason: Option<Reason>,
    /// The grounds of the rejection, for the log.
    pub grounds: Option<Box<RejectionDetails>>,
    /// The limits that were exceeded, or that could not be checked.
    pub limit: Option<Arc<str>>,
    pub status: u16,
    pub authenticated: bool,
    /// Served by the gateway's own endpoints.
    pub is_api_call: bool,
    /// The type of the credential that decided, for the log.
    pub credential: Option<CredentialType>,
    /// The caller of a request without a permit, for the log.
    pub caller: Option<Principal>,
    /// The user of such a request where there is no caller, or where the request concerned another.
    pub user: Option<String>,
    pub session: Option<SessionId>,
    /// The API key of a refused request.
    pub api_key: Option<ApiKeyId>,
    pub is_grpc: bool,
    pub store_time: Duration,
    pub upstream_time: Option<Duration>,
    /// When the whole response was written, if the clock was read then.
    pub ended_at: Option<Instant>,
    pub body_received: u64,
    pub body_sent: u64,
    /// The part of the upstream's response that was passed on, for a request that is aborted.
    pub forwarded: ForwardedResponse,
    /// The wall clock at its arrival, since the epoch.
    pub started_wall: Duration,
}

/// The state of a request that may go to an upstream. Only admission makes one.
pub struct Admitted {
    pub permit: Permit,
    /// Lets the request be closed from outside.
    pub registration: StreamRegistration,
    /// The messages of a gRPC call over HTTP/2 on both sides, which may last as long as the client
    /// wants. The media type alone is the client's claim, and lifts no limit.
    pub grpc_stream: Option<Box<Messages>>,
    pub attempts: UpstreamAttempts,
}

impl Admitted {
    pub(super) fn is_grpc_stream(&self) -> bool {
        self.grpc_stream.is_some()
    }
}

/// The attempts to send a request to a server of its upstream.
#[derive(Default)]
pub struct UpstreamAttempts {
    /// The server of the current attempt.
    pub server: Option<ChosenServer>,
    /// The servers of all attempts.
    pub tried: SmallVec<[usize; 2]>,
    /// How often the request was sent over a connection.
    pub sent: usize,
    /// When the current attempt started.
    pub started: Option<Instant>,
    /// The last failure: the response if no other server is left.
    pub(super) last_failure: Option<Failure>,
    /// The pooled connection was stale: the next one has to be new.
    pub needs_new_connection: bool,
    /// The upstream connection serves no other client connection.
    pub is_exclusive: bool,
    /// The slot of such a connection that is being made.
    pub(super) pending_slot: Option<Arc<Slot>>,
    /// The upstream connection is closed after the response.
    pub close_after_response: bool,
}

/// How much of an upstream's response has been passed on.
#[derive(Debug, Default)]
pub struct ForwardedResponse {
    /// 0: its head has not been passed on.
    pub status: u16,
    pub bytes: u64,
}

impl RequestContext {
    pub fn new(arrival: Arrival, worker: Arc<Worker>) -> RequestContext {
        let snapshot = worker.snapshot();
        let started_wall = clock::wall_at(arrival.at);
        worker.metrics.requests_in_flight.inc();
        RequestContext {
            arrival,
            worker,
            snapshot,
            request_id: RequestId::EMPTY,
            trace_id: None,
            method: Method::GET,
            is_http2: false,
            dialect: None,
            text: RequestText::default(),
            client_origin: None,
            origin_header: None,
            route: None,
            upstream: None,
            identity: None,
            refusal: None,
            reason: None,
            grounds: None,
            limit: None,
            status: 0,
            authenticated: false,
            is_api_call: false,
            credential: None,
            caller: None,
            user: None,
            session: None,
            api_key: None,
            is_grpc: false,
            store_time: Duration::ZERO,
            upstream_time: None,
            ended_at: None,
            body_received: 0,
            body_sent: 0,
            forwarded: ForwardedResponse::default(),
            started_wall,
        }
    }

    /// The listener that received the request.
    pub(super) fn listener(&self) -> Option<(&settings::Listener, &settings::ReloadableListener)> {
        let id = self.arrival.peer.listener;
        Some((
            self.worker.boot.listener(id)?,
            self.snapshot.settings.listener(id)?,
        ))
    }

    /// Records the head of the request, and its identifier. `host` is the `Host` or the authority,
    /// and the name in it, where the request has a valid one.
    pub(super) fn record_head(&mut self, head: RequestHead<'_>, host: Option<(&str, &str)>) {
        let fields = head.fields;
        self.method = head.method.clone();
        self.is_http2 = head.version == Version::HTTP_2;
        self.text = RequestText::new(host, head.path);
        self.is_grpc = grpc::is_call(head.method, fields.first(FieldKind::ContentType));
        let origin_header = fields.first(FieldKind::Origin);
        self.origin_header = origin_header.and_then(|it| HeaderValue::from_bytes(it).ok());
        self.request_id = RequestId::keep_or_generate(fields.first(FieldKind::XRequestId));
        let Some((listener, reloadable)) = self.listener() else {
            return;
        };
        self.client_origin = Some(client_origin::resolve(
            self.arrival.peer.ip,
            self.arrival.peer.tls,
            &reloadable.trusted_proxies,
            listener.client_ip_from,
            fields,
        ));
    }

    /// What a local response depends on.
    pub(super) fn response_context(&self) -> ResponseContext<'_> {
        let origin = self.client_origin.as_ref();
        let is_https = origin.is_some_and(|origin| origin.https);
        let settings = &self.snapshot.settings;
        ResponseContext {
            request_id: &self.request_id,
            method: &self.method,
            is_http2: self.is_http2,
            settings: Some(settings),
            services: Some(&self.worker.admission),
            // A front proxy speaks of its own TLS.
            hsts: settings
                .hsts
                .as_ref()
                .filter(|_| is_https && !self.is_query()),
        }
    }

    /// What the response to a rejection depends on.
    pub(super) fn rejected_request<'a>(&'a self, head: RequestHead<'a>) -> RejectedRequest<'a> {
        RejectedRequest {
            head,
            context: self.response_context(),
            is_grpc: self.is_grpc,
            is_api_call: self.is_api_call,
            route: self.route.as_deref(),
            client: self.client_origin.as_ref(),
            host: self.text.host(),
            front_proxy: self.front_proxy(),
        }
    }

    /// The input of the decision; `None` before the head was recorded. `scheme` is that of a target in
    /// absolute form.
    pub(super) fn facts<'a>(
        &'a self,
        head: RequestHead<'a>,
        scheme: Option<&'a str>,
    ) -> Option<RequestFacts<'a>> {
        let host = self.text.host();
        Some(RequestFacts {
            head,
            scheme,
            host: host.map(|host| RequestHost {
                field: host.as_bytes(),
                name: self.text.host_name(),
            }),
            client: self.client_origin.as_ref()?,
            certificate: self.arrival.peer.certificate.as_ref(),
            listener: self.arrival.peer.listener,
            now: clock::millis(self.started_wall),
        })
    }

    /// Prepares the request for its upstream. `length` is that of its body, where it is declared.
    ///
    /// # Errors
    /// The body is larger than the route allows.
    pub(super) fn begin_forwarding(
        &mut self,
        permit: Permit,
        is_grpc_stream: bool,
        length: Option<u64>,
    ) -> Result<Admitted, Rejection> {
        let most = permit.route.max_body;
        // In a gRPC stream the limit applies to each message.
        let too_large = !is_grpc_stream && length.is_some_and(|length| length > most);
        let decisions = too_large.then(|| permit.decisions.clone());
        let admitted = self.admit(permit, is_grpc_stream);
        match decisions {
            None => Ok(admitted),
            Some(decisions) => Err(Rejection {
                decisions,
                ..Refusal::BodyTooLarge.into()
            }),
        }
    }

    /// Counts the use of the permit's session, and lets the request be closed from outside.
    fn admit(&mut self, permit: Permit, is_grpc_stream: bool) -> Admitted {
        self.upstream = permit.route.upstream;
        self.identity.clone_from(&permit.identity);
        let identity = permit.identity.as_ref();
        if let Some(identity) = identity {
            self.authenticated = true;
            self.credential = Some(identity.credential_kind.credential_type());
            self.record_session_use(identity);
        }
        let session = identity.and_then(Identity::session);
        let stream = OpenStream::new(
            self.arrival.at,
            session.map(|session| session.id),
            identity.and_then(|identity| identity.token.clone()),
            self.client_origin.as_ref().map(|origin| origin.ip),
        );
        let api_key = identity.and_then(|identity| identity.principal.api_key());
        let stream = stream.by_api_key(api_key.copied());
        let registry = &self.worker.open_streams;
        let control = &self.arrival.control;
        Admitted {
            registration: registry.register(self.worker.index, control, stream),
            permit,
            grpc_stream: is_grpc_stream.then(Box::default),
            attempts: UpstreamAttempts::default(),
        }
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        Worker::finish(self);
    }
}
