//! The head of an upstream's response toward the client: which of its fields pass, and the fields that
//! the gateway adds.

use framing::LengthAction;
use http::Version;
use http::header::{self, HeaderName};

use super::admission::Permit;
use super::fields::{Field, FieldKind, KindSet};
use super::header_fields::{FieldSink, add_number};
use super::local_response::clearing_headers;
use super::own_field::{CONTENT_LENGTH, X_REQUEST_ID};
use super::via::Via;
use crate::auth::credential;
use crate::auth::session::CookieRules;
use crate::limits::LimitHeaders;
use crate::telemetry::request_id::RequestId;

pub mod framing;

/// A route's policy replaces these of the upstream, which would contradict it.
const CORS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];

/// The changes to one response on its way to the client, beside those of its fields about the
/// upstream's connection ([`super::hop_by_hop::ResponseConnection`]).
pub(crate) struct ClientHead<'a> {
    pub(crate) permit: &'a Permit,
    pub(crate) request_id: &'a RequestId,
    pub(crate) via: &'a Via,
    pub(crate) cookie: &'a CookieRules,
    /// The `Origin` of the request.
    pub(crate) origin_header: Option<&'a [u8]>,
    /// The version in which the upstream sent the response.
    pub(crate) version: Version,
    pub(crate) length: LengthAction,
    pub(crate) limits: Option<LimitHeaders<'a>>,
}

impl ClientHead<'_> {
    /// Whether a field of the upstream reaches the client.
    pub(crate) fn passes(&self, field: &Field<'_>) -> bool {
        let passes = match field.kind {
            FieldKind::ContentLength => self.length == LengthAction::Keep,
            FieldKind::SetCookie => !credential::sets_own_cookie(field.value, &self.cookie.name),
            FieldKind::XRequestId => false,
            FieldKind::Other => !self.is_limit(field.name) && !self.is_cors(field.name),
            _ => true,
        };
        passes && !self.is_edited(field.name)
    }

    /// The kinds of fields that reach the client whatever their names and values.
    pub(crate) fn passing_kinds(&self) -> KindSet {
        let route = &self.permit.route;
        if route.cors.is_some() || !route.response_headers.names.is_empty() {
            return KindSet::NONE;
        }
        KindSet::NONE
            .with(FieldKind::SetCookie)
            .with(FieldKind::XRequestId)
            .with_if(FieldKind::ContentLength, self.length != LengthAction::Keep)
            .with_if(FieldKind::Other, self.limits.is_some())
            .others()
    }

    /// Writes the gateway's own fields. The route's edits also apply to them, but to neither CORS nor
    /// the cleared cookie.
    pub(crate) fn write(&self, sink: &mut dyn FieldSink) {
        if let LengthAction::Collapse(length) = self.length {
            add_number(sink, &CONTENT_LENGTH, length);
        }
        if !self.is_edited(b"via") {
            sink.add_own(self.via.entry(self.version));
        }
        if !self.is_edited(b"x-request-id") {
            sink.add_checked(&X_REQUEST_ID, self.request_id.as_bytes());
        }
        if let Some(limits) = &self.limits {
            sink.add_limits(limits, &|name| !self.is_edited(name.as_str().as_bytes()));
        }
        let edits = &self.permit.route.response_headers;
        let mut fields = edits.set.iter().map(|(name, value)| (name, value));
        if self.permit.route.cors.is_none() {
            sink.add_rendered(&edits.lines, &mut fields);
        } else {
            for (name, value) in fields.filter(|(name, _)| !self.is_cors(name.as_str().as_bytes()))
            {
                sink.add(name, value);
            }
        }
        if let Some(cors) = &self.permit.route.cors {
            for (name, value) in cors.response_headers(self.origin_header) {
                sink.add(&name, &value);
            }
        }
        if self.permit.clear_cookie {
            for (name, value) in clearing_headers(self.cookie) {
                sink.add(&name, &value);
            }
        }
    }

    fn is_edited(&self, name: &[u8]) -> bool {
        self.permit.route.response_headers.names.contains(name)
    }

    fn is_limit(&self, name: &[u8]) -> bool {
        self.limits.is_some() && LimitHeaders::has_name(name)
    }

    fn is_cors(&self, name: &[u8]) -> bool {
        self.permit.route.cors.is_some() && CORS.iter().any(|own| is(own, name))
    }
}

fn is(own: &HeaderName, name: &[u8]) -> bool {
    own.as_str().as_bytes().eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests;
