//! Headers of an upstream's response toward the client.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::admission::Permit;
use super::header_fields;
use super::local_response::clearing_headers;
use crate::auth::credential;
use crate::auth::session::CookieRules;
use crate::telemetry::request_id::{RequestId, X_REQUEST_ID};

pub mod framing;

/// The input of the headers, beside the permit.
#[derive(Clone, Copy)]
pub struct ClientResponse<'a> {
    pub request_id: &'a RequestId,
    pub cookie: &'a CookieRules,
    /// The `Origin` of the request.
    pub origin_header: Option<&'a [u8]>,
}

impl ClientResponse<'_> {
    /// Writes the headers of the permit's route, which replace the upstream's own; `limits` are the
    /// limit headers.
    pub fn write(
        &self,
        fields: &mut HeaderMap,
        permit: &Permit,
        limits: Vec<(HeaderName, HeaderValue)>,
    ) {
        fields.insert(X_REQUEST_ID, self.request_id.header());
        strip_set_cookie(fields, &self.cookie.name);
        fields.reserve(limits.len());
        for (name, value) in limits {
            fields.insert(name, value);
        }
        header_fields::apply_edits(fields, &permit.route.response_headers);
        if let Some(cors) = &permit.route.cors {
            // The route's policy decides: an upstream's own CORS headers would contradict it.
            for name in [
                header::ACCESS_CONTROL_ALLOW_ORIGIN,
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
            ] {
                fields.remove(name);
            }
            for (name, value) in cors.response_headers(self.origin_header) {
                fields.append(name, value);
            }
        }
        if permit.clear_cookie {
            for (name, value) in clearing_headers(self.cookie) {
                fields.append(name, value);
            }
        }
    }
}

/// Removes an upstream's attempt to set the gateway's cookie.
fn strip_set_cookie(fields: &mut HeaderMap, cookie_name: &str) {
    let ours = |value: &HeaderValue| credential::sets_own_cookie(value.as_bytes(), cookie_name);
    let cookies = fields.get_all(header::SET_COOKIE);
    if !cookies.iter().any(ours) {
        return;
    }
    let kept: Vec<HeaderValue> = cookies
        .iter()
        .filter(|value| !ours(value))
        .cloned()
        .collect();
    fields.remove(header::SET_COOKIE);
    for value in kept {
        fields.append(header::SET_COOKIE, value);
    }
}
