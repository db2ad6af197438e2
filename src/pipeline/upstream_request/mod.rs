//! Headers of a request toward its upstream: those that the client may not send are removed, and
//! those that the gateway vouches for are written last, in this module alone.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::admission::{Identity, Permit};
use super::assertions::Assertions;
use super::facts::{ClientOrigin, trace_context};
use super::header_fields::{self, HeaderError};
use crate::clock;
use crate::routing::{Auth, Route, stripped_part};
use crate::settings::Reloadable;
use crate::telemetry::request_id::{RequestId, X_REQUEST_ID};
use crate::telemetry::trace_id::TraceId;

mod hygiene;
mod identity;
mod origin;

pub(super) use hygiene::is_forwarding;
pub use hygiene::{strip_credentials, strip_untrusted};
pub use identity::write_identity;
pub use origin::write_origin;

/// Clients cannot send it: every `X-Portcullis-*` of a client is removed.
const ASSERTION: HeaderName = HeaderName::from_static("x-portcullis-assertion");

/// The input of the headers, beside the permit.
#[derive(Clone, Copy)]
pub struct UpstreamRequest<'a> {
    pub settings: &'a Reloadable,
    pub assertions: &'a Assertions,
    pub origin: &'a ClientOrigin,
    /// The address of the connection's peer.
    pub peer: &'a HeaderValue,
    /// The host and port that the client named.
    pub host: &'a HeaderValue,
    /// The path as the client sent it.
    pub path: &'a str,
    pub request_id: &'a RequestId,
    /// The `Host` that replaces the client's.
    pub server_host: Option<&'a str>,
}

impl UpstreamRequest<'_> {
    /// Removes the headers that the client may not send and writes those that the gateway vouches
    /// for. Returns the trace where its identifier is not the request's.
    ///
    /// # Errors
    /// A value that no header can carry; differing values of `Content-Length`.
    pub fn write(
        &self,
        fields: &mut HeaderMap,
        permit: &Permit,
    ) -> Result<Option<TraceId>, HeaderError> {
        let (route, trusted) = (&permit.route, self.origin.peer_trusted);
        // Reserved once, for all headers that are written below.
        fields.reserve(11);
        let names = &self.settings.identity_header_names;
        strip_untrusted(fields, names, &route.request_headers, trusted);
        hygiene::collapse_content_length(fields)?;
        let bearer_passes = route.auth == Auth::None || route.forward_credentials;
        strip_credentials(fields, &self.settings.sessions.cookie.name, bearer_passes);
        header_fields::apply_edits(fields, &route.request_headers);
        if let Some(identity) = &permit.identity {
            write_identity(fields, &route.identity_headers, identity)?;
            if route.assertion {
                self.write_assertion(fields, route, identity)?;
            }
        }
        write_origin(fields, self.origin, self.peer, self.host)?;
        if route.strip_prefix {
            let prefix = stripped_part(self.path, &route.matches.path);
            origin::write_prefix(fields, prefix, trusted)?;
        }
        fields.insert(X_REQUEST_ID, self.request_id.header());
        let trace_id = trace_context::write(fields, self.request_id.as_str())?;
        self.write_host(fields);
        Ok(trace_id)
    }

    /// Writes the assertion by which the upstream can verify the caller.
    fn write_assertion(
        &self,
        fields: &mut HeaderMap,
        route: &Route,
        identity: &Identity,
    ) -> Result<(), HeaderError> {
        let upstream = self.settings.upstreams.get(route.upstream);
        let name = upstream.map_or("", |upstream| &*upstream.name);
        let now = clock::unix_millis();
        let assertion = self.assertions.assertion_for(name, identity, now)?;
        fields.insert(ASSERTION, assertion);
        Ok(())
    }

    fn write_host(&self, fields: &mut HeaderMap) {
        let server = self.server_host;
        match server.and_then(|host| HeaderValue::from_str(host).ok()) {
            Some(host) => {
                fields.insert(header::HOST, host);
            }
            // On HTTP/2 the host is not a header.
            None if !fields.contains_key(header::HOST) => {
                fields.insert(header::HOST, self.host.clone());
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
