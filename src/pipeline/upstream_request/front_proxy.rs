//! The head of a request that a front proxy forwards: the fields that replace the client's own, and the
//! names that the client may not have sent.

use http::header::{self, HeaderName, HeaderValue};

use super::hygiene::{self, Cookies};
use super::{ASSERTION, audience, identity};
use crate::clock;
use crate::pipeline::admission::{Identity, Permit};
use crate::pipeline::assertions::Assertions;
use crate::pipeline::fields::{Field, FieldKind, Fields};
use crate::pipeline::header_fields::{FieldBuffer, FieldSink, HeaderError};
use crate::routing::{Auth, NameSet};
use crate::settings::Reloadable;

static EMPTY: HeaderValue = HeaderValue::from_static("");

/// The fields that a front proxy has to replace in a request that may pass. Each of them is written,
/// with an empty value where there is none.
#[derive(Debug)]
pub struct FrontProxyHead {
    identity: Option<Identity>,
    /// The assertion, the provider's token, and the credentials that are returned.
    further: FieldBuffer,
}

impl FrontProxyHead {
    /// # Errors
    /// A value that no header can carry, or an assertion that cannot be signed.
    pub fn new(
        permit: &Permit,
        fields: Fields<'_>,
        settings: &Reloadable,
        assertions: &Assertions,
    ) -> Result<FrontProxyHead, HeaderError> {
        let route = &permit.route;
        if let Some(identity) = &permit.identity {
            let all = &settings.identity_header_names;
            identity::render_complete(&route.identity_headers, all, identity)?;
        }
        let mut further = FieldBuffer::new();
        if route.assertion {
            let value = match &permit.identity {
                Some(identity) => {
                    let (name, now) = (audience(settings, route), clock::unix_millis());
                    assertions.assertion_for(name, identity, now)?
                }
                None => EMPTY.clone(),
            };
            further.push((ASSERTION, value));
        }
        if let Some(field) = &route.provider_token
            && field.header != header::AUTHORIZATION
        {
            let token = provider_token(permit).unwrap_or_else(|| EMPTY.clone());
            further.push((field.header.clone(), token));
        }
        let forward_auth = settings.forward_auth.as_ref();
        if forward_auth.is_some_and(|it| it.return_credentials) {
            let credentials = credentials(permit, fields, settings);
            further.extend(
                credentials.map(|(name, value)| (name, value.unwrap_or_else(|| EMPTY.clone()))),
            );
        }
        Ok(FrontProxyHead {
            identity: permit.identity.clone(),
            further,
        })
    }

    pub fn write(&self, all: &NameSet, sink: &mut dyn FieldSink) {
        identity::write_complete(sink, all, self.identity.as_ref());
        for (name, value) in &self.further {
            sink.add(name, value);
        }
    }
}

/// `Cookie` and `Authorization` as an upstream of the gateway would receive them.
pub(super) fn credentials(
    permit: &Permit,
    fields: Fields<'_>,
    settings: &Reloadable,
) -> [(HeaderName, Option<HeaderValue>); 2] {
    let first = |kind| {
        let value = fields.first(kind).map(HeaderValue::from_bytes);
        value.and_then(Result::ok)
    };
    let cookie = match Cookies::of(fields, &settings.sessions.cookie.name) {
        Cookies::Pass => first(FieldKind::Cookie),
        Cookies::Withheld => None,
        Cookies::Rewritten(left) => Some(left),
    };
    let route = &permit.route;
    let bearer_passes = route.auth == Auth::None || route.forward_credentials;
    let authorization = match &route.provider_token {
        // The client's own is dropped, whether or not there is a token.
        Some(field) if field.header == header::AUTHORIZATION => provider_token(permit),
        _ if hygiene::withholds_authorization(fields, bearer_passes) => None,
        _ => first(FieldKind::Authorization),
    };
    [
        (header::COOKIE, cookie),
        (header::AUTHORIZATION, authorization),
    ]
}

fn provider_token(permit: &Permit) -> Option<HeaderValue> {
    let token = permit.provider_token.as_deref();
    token.map(|(_, token)| token.clone())
}

/// Whether a field of the original request may be mistaken for one that only the gateway writes: every
/// `X-Portcullis-*`, and another spelling of an identity header. The exact names of identity headers
/// are replaced in each request that may pass.
pub fn is_look_alike(field: &Field<'_>, identity: &NameSet) -> bool {
    hygiene::is_portcullis(field.name)
        || (identity.contains_spelling(field.name) && !identity.contains(field.name))
}
