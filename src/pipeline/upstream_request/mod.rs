//! The head of a request toward its upstream: which of the client's fields pass, and the fields that
//! the gateway adds. Those that it vouches for are written last, in this module alone.

use http::Version;
use http::header::{self, HeaderName};

use super::admission::{Identity, Permit};
use super::assertions::Assertions;
use super::facts::ClientOrigin;
use super::facts::trace_context::Trace;
use super::fields::{Field, FieldKind, Fields, KindSet};
use super::header_fields::{FieldSink, HeaderError};
use super::own_field::X_REQUEST_ID;
use super::via::Via;
use crate::clock;
use crate::routing::{Auth, Route, stripped_part};
use crate::settings::Reloadable;
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace_id::TraceId;

mod front_proxy;
mod hygiene;
mod identity;
mod origin;
mod request_edits;

pub use front_proxy::{FrontProxyHead, is_look_alike};
pub(super) use hygiene::is_forwarding;
use hygiene::{Cookies, ForbiddenNames};
pub use origin::PeerOrigin;
pub use request_edits::RequestEdits;

/// Clients cannot send it: every `X-Portcullis-*` of a client is removed.
const ASSERTION: HeaderName = HeaderName::from_static("x-portcullis-assertion");

/// The kinds of fields that no client sends to an upstream: those of its connection, and those that the
/// gateway writes itself.
const WITHHELD: KindSet = KindSet::NONE
    .with(FieldKind::Connection)
    .with(FieldKind::Forwarded)
    .with(FieldKind::Http2Settings)
    .with(FieldKind::KeepAlive)
    .with(FieldKind::ProxyAuthenticate)
    .with(FieldKind::ProxyAuthorization)
    .with(FieldKind::ProxyConnection)
    .with(FieldKind::TransferEncoding)
    .with(FieldKind::Upgrade)
    .with(FieldKind::XForwardedFor)
    .with(FieldKind::XForwardedHost)
    .with(FieldKind::XForwardedProto)
    .with(FieldKind::XRequestId);

/// The input of the head, beside the permit and the client's fields.
#[derive(Clone, Copy)]
pub struct UpstreamRequest<'a> {
    pub settings: &'a Reloadable,
    pub assertions: &'a Assertions,
    pub via: &'a Via,
    /// The version in which the client sent the request.
    pub version: Version,
    pub origin: &'a ClientOrigin,
    pub peer: &'a PeerOrigin,
    /// The host and port that the client named.
    pub host: &'a str,
    /// The path as the client sent it.
    pub path: &'a str,
    pub request_id: &'a RequestId,
    /// The `Host` that replaces the client's.
    pub server_host: Option<&'a str>,
    /// Whether trailers of the response would reach the client.
    pub carries_trailers: bool,
}

/// The changes to one request on its way to the upstream. Fields about the client's connection are
/// settled before (`RequestConnection`).
pub struct UpstreamHead<'a> {
    request: &'a UpstreamRequest<'a>,
    permit: &'a Permit,
    forbidden: ForbiddenNames<'a>,
    /// The kinds of fields that do not pass, whatever their names are to the configuration.
    withheld: KindSet,
    cookies: Cookies,
    repeated_length: Option<&'a [u8]>,
    /// The value of `X-Forwarded-Prefix`.
    prefix: Option<String>,
    trace: Trace,
    /// Whether the client sent `Host`: on HTTP/2 the host is not a field.
    has_host: bool,
}

impl<'a> UpstreamHead<'a> {
    /// Looks at the client's fields once.
    ///
    /// # Errors
    /// Differing values of `Content-Length`.
    pub fn new(
        request: &'a UpstreamRequest<'a>,
        permit: &'a Permit,
        fields: Fields<'a>,
    ) -> Result<UpstreamHead<'a>, HeaderError> {
        let (route, settings) = (&permit.route, request.settings);
        let bearer_passes = route.auth == Auth::None || route.forward_credentials;
        let peer_trusted = request.origin.peer_trusted;
        let stripped = route
            .strip_prefix
            .then(|| stripped_part(request.path, &route.matches.path));
        let withholds_authorization = hygiene::withholds_authorization(fields, bearer_passes);
        let cookies = Cookies::of(fields, &settings.sessions.cookie.name);
        let repeated_length = hygiene::repeated_length(fields)?;
        let trace = Trace::of(fields, request.request_id);
        Ok(UpstreamHead {
            forbidden: ForbiddenNames::new(
                &settings.identity_header_names,
                &route.request_headers.names,
                peer_trusted,
            ),
            withheld: WITHHELD
                .with_if(FieldKind::Authorization, withholds_authorization)
                .with_if(FieldKind::ContentLength, repeated_length.is_some())
                .with_if(FieldKind::Cookie, !matches!(cookies, Cookies::Pass))
                .with_if(FieldKind::Host, request.server_host.is_some())
                .with_if(FieldKind::Te, !request.carries_trailers)
                .with_if(FieldKind::Trailer, !request.carries_trailers)
                .with_if(FieldKind::Traceparent, !trace.is_continued())
                .with_if(FieldKind::Tracestate, !trace.is_continued()),
            cookies,
            repeated_length,
            prefix: stripped.and_then(|part| origin::prefix(fields, part, peer_trusted)),
            trace,
            has_host: fields.has(FieldKind::Host),
            request,
            permit,
        })
    }

    /// Whether a field of the client reaches the upstream. Fields of one name pass or fail together.
    /// An engine writes `Connection`, `Upgrade` and `Transfer-Encoding` itself.
    pub fn passes(&self, field: &Field<'_>) -> bool {
        if self.withheld.has(field.kind) {
            return false;
        }
        match field.kind {
            FieldKind::ContentLength
            | FieldKind::Host
            | FieldKind::Te
            | FieldKind::Trailer
            | FieldKind::Traceparent
            | FieldKind::Tracestate => true,
            FieldKind::Authorization | FieldKind::Cookie => {
                !self.forbidden.edited.contains(field.name)
            }
            _ => !self.forbidden.contains(field) && !self.is_replaced_prefix(field),
        }
    }

    fn is_replaced_prefix(&self, field: &Field<'_>) -> bool {
        let name = &origin::X_FORWARDED_PREFIX;
        self.prefix.is_some() && field.name.eq_ignore_ascii_case(name.as_str().as_bytes())
    }

    /// Writes the gateway's own fields, which have no name under which a client's field passes, but
    /// `Via`. Identity comes last.
    ///
    /// # Errors
    /// A value that no header can carry.
    pub fn write(&self, sink: &mut dyn FieldSink) -> Result<(), HeaderError> {
        let (request, route) = (self.request, &self.permit.route);
        if let Cookies::Rewritten(left) = &self.cookies
            && !self.forbidden.edited.contains(b"cookie")
        {
            sink.add(&header::COOKIE, left);
        }
        if let Some(length) = self.repeated_length {
            sink.add_text(&header::CONTENT_LENGTH, length)?;
        }
        let edits = &route.request_headers;
        sink.add_rendered(&edits.lines, &mut edits.set.iter().map(|(n, v)| (n, v)));
        self.write_host(sink)?;
        origin::write(sink, request.origin, request.peer, request.host)?;
        if let Some(prefix) = &self.prefix {
            sink.add_text(&origin::X_FORWARDED_PREFIX, prefix.as_bytes())?;
        }
        sink.add_checked(&X_REQUEST_ID, request.request_id.as_bytes());
        self.trace.write(sink);
        if let Some(token) = &self.permit.provider_token {
            let (name, value) = &**token;
            sink.add(name, value);
        }
        sink.add_own(request.via.entry(request.version));
        if let Some(identity) = &self.permit.identity {
            identity::write(sink, &route.identity_headers, identity)?;
            if route.assertion {
                self.write_assertion(sink, identity)?;
            }
        }
        Ok(())
    }

    /// The trace where its identifier is not the request's.
    pub fn trace_id(&self) -> Option<TraceId> {
        let request_id = self.request.request_id.as_bytes();
        self.trace.id()?.unless_request_id(request_id)
    }

    fn write_host(&self, sink: &mut dyn FieldSink) -> Result<(), HeaderError> {
        match self.request.server_host {
            Some(host) => sink.add_text(&header::HOST, host.as_bytes())?,
            None if !self.has_host => sink.add_text(&header::HOST, self.request.host.as_bytes())?,
            None => {}
        }
        Ok(())
    }

    /// Writes the assertion by which the upstream can verify the caller.
    fn write_assertion(
        &self,
        sink: &mut dyn FieldSink,
        identity: &Identity,
    ) -> Result<(), HeaderError> {
        let (request, route) = (self.request, &self.permit.route);
        let name = audience(request.settings, route);
        let now = clock::unix_millis();
        let assertion = request.assertions.assertion_for(name, identity, now)?;
        sink.add(&ASSERTION, &assertion);
        Ok(())
    }
}

/// The audience of a route's assertions: its upstream, or the route where it has none.
fn audience<'s>(settings: &'s Reloadable, route: &'s Route) -> &'s str {
    let upstream = route
        .upstream
        .and_then(|index| settings.upstreams.get(index));
    upstream.map_or(&*route.name, |upstream| &*upstream.name)
}

#[cfg(test)]
mod tests;
