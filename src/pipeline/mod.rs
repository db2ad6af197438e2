//! Decides a request from its facts and one configuration. This module names no socket and no HTTP
//! engine.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use self::admission::{Admission, CredentialKind, Identity, Permit};
use self::destination::Destination;
use self::facts::RequestFacts;
use self::fields::{FieldKind, Fields, text_of};
use self::sign_in_start::SignInRedirect;
use self::via::Via;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::routing::{Cors, PathAmbiguities, Route};
use crate::settings::{Boot, Reloadable};

pub mod acme_challenge;
pub mod admission;
pub mod assertions;
pub mod browser_navigation;
pub mod client_response;
pub mod destination;
pub mod facts;
pub mod fields;
pub mod header_fields;
pub mod hop_by_hop;
pub mod html_page;
pub mod local_response;
pub mod own_field;
mod protected_resource;
pub mod same_origin;
pub mod sign_in_start;
pub mod snapshot;
pub mod upstream_request;
pub mod via;

/// The methods that `Allow` lists where no single resource is meant.
pub const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The decision on a request.
#[derive(Debug)]
pub enum Step {
    /// A response with these headers and this body.
    Respond(StatusCode, Vec<(HeaderName, HeaderValue)>, Bytes),
    /// A response that reports the rejection.
    Reject(Rejection),
    /// A call of one of the gateway's own endpoints.
    CallApi(EndpointCall),
    /// The request goes to an upstream, or a front proxy may forward it.
    Forward(Permit),
}

/// A call of one of the gateway's own endpoints.
#[derive(Debug)]
pub struct EndpointCall {
    /// Below the prefix.
    pub path: String,
    /// Present where the request was for another address, and starts a sign-in.
    pub sign_in: Option<Box<SignInRedirect>>,
}

/// The outcome of [`decide`].
#[derive(Debug)]
pub struct Decision {
    pub step: Step,
    /// The matching route, also where the request is rejected.
    pub route: Option<Arc<Route>>,
}

/// Decides a request. It waits for the session store alone.
pub async fn decide(
    facts: &RequestFacts<'_>,
    boot: &Boot,
    via: &Via,
    admission: &Admission<'_>,
) -> Decision {
    let settings = &admission.snapshot.settings;
    if let Some(token) = acme_challenge::requested_token(facts, boot, settings) {
        // Boxed: otherwise every request would have its size.
        let responding = Box::pin(acme_challenge::respond(token, admission.store));
        if let Some(step) = responding.await {
            return Decision { step, route: None };
        }
    }
    let (step, route) = match destination::find(facts, boot, settings) {
        Ok(Destination::Server) => (methods(), None),
        Ok(Destination::Https(target)) => (redirect(target), None),
        Ok(Destination::OwnEndpoint(path)) => {
            let sign_in = None;
            (Step::CallApi(EndpointCall { path, sign_in }), None)
        }
        Ok(Destination::ResourceMetadata(route)) => {
            let step = protected_resource::respond(facts, route, settings);
            (step, None)
        }
        Ok(Destination::Route(route, ambiguities)) => {
            let step = decide_on_route(facts, route, ambiguities, via, admission).await;
            let step = step.unwrap_or_else(|refused| match facts.is_query() {
                true => Step::Reject(refused),
                false => sign_in_start::decide(refused, facts, route, settings),
            });
            (step, Some(Arc::clone(route)))
        }
        Err(fault) => {
            tracing::debug!(request_id = %admission.request_id, %fault, "the request has no destination");
            (Step::Reject(fault.into()), None)
        }
    };
    Decision { step, route }
}

async fn decide_on_route(
    facts: &RequestFacts<'_>,
    route: &Arc<Route>,
    ambiguities: PathAmbiguities,
    via: &Via,
    admission: &Admission<'_>,
) -> Result<Step, Rejection> {
    if !route.allow_in_path.allows(ambiguities) {
        return Err(Rejection::new(Refusal::BadRequest, Reason::ForbiddenPath));
    }
    if !facts.is_query() && via.is_in(facts.head.fields) {
        return Err(Rejection::new(Refusal::LoopDetected, Reason::Loop));
    }
    // Before authentication: a preflight carries no credential.
    if let Some(cors) = &route.cors
        && let Some(headers) = preflight(cors, facts.head.method, facts.head.fields)
    {
        // The backend of a front proxy responds to it.
        return Ok(match facts.is_query() {
            true => Step::Forward(Permit::anonymous(route)),
            false => Step::Respond(StatusCode::NO_CONTENT, headers, Bytes::new()),
        });
    }
    let permit = admission.admit(route, facts).await?;
    if let Some(identity) = &permit.identity {
        check_upgrade_origin(facts, route, identity, &admission.snapshot.settings)?;
    }
    Ok(Step::Forward(permit))
}

fn methods() -> Step {
    let allow = (header::ALLOW, HeaderValue::from_static(METHODS));
    Step::Respond(StatusCode::OK, vec![allow], Bytes::new())
}

fn redirect(target: HeaderValue) -> Step {
    // 308 keeps the method and the body (RFC 9110, section 15.4.9).
    let status = StatusCode::PERMANENT_REDIRECT;
    Step::Respond(status, vec![(header::LOCATION, target)], Bytes::new())
}

/// The headers of the response to a CORS preflight: `OPTIONS` with an origin and a requested method.
pub(crate) fn preflight(
    cors: &Cors,
    method: &Method,
    fields: Fields<'_>,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    if *method != Method::OPTIONS {
        return None;
    }
    let text = |kind| fields.first(kind).and_then(text_of);
    let origin = fields.first(FieldKind::Origin)?;
    let requested = text(FieldKind::AccessControlRequestMethod)?;
    let headers = text(FieldKind::AccessControlRequestHeaders);
    Some(cors.preflight_headers(origin, requested, headers))
}

/// Rejects an upgrade that a cookie authenticates and that another site's page requests: a browser
/// sends its cookie with the WebSocket of any page.
fn check_upgrade_origin(
    facts: &RequestFacts<'_>,
    route: &Route,
    identity: &Identity,
    settings: &Reloadable,
) -> Result<(), Rejection> {
    if !facts.is_upgrade() || identity.credential_kind != CredentialKind::Cookie {
        return Ok(());
    }
    let fields = facts.head.fields;
    let origin = fields.first(FieldKind::Origin);
    let by_route = route
        .cors
        .as_ref()
        .zip(origin)
        .is_some_and(|(cors, it)| cors.lists_origin(it));
    let api = settings.api.as_ref();
    let allowed = api.map_or(&[][..], |api| &api.allowed_origins);
    if by_route || same_origin::is_same_origin(fields, &facts.client(), allowed) {
        return Ok(());
    }
    let rejection = Rejection::new(Refusal::CsrfRejected, Reason::ForeignUpgrade);
    Err(rejection.with_caller(identity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::fields::tests::list;

    #[test]
    fn preflight_is_options_with_origin_and_method() {
        let cors = Cors {
            origins: vec!["https://shop.example".to_owned()],
            methods: vec![Method::PUT],
            headers: Vec::new(),
            expose: Vec::new(),
            credentials: false,
            max_age: None,
        };
        let origin = ("Origin", "https://shop.example");
        let requested = ("Access-Control-Request-Method", "PUT");
        for (method, fields, expected) in [
            (Method::OPTIONS, &[][..], false),
            (Method::OPTIONS, &[origin], false),
            (Method::OPTIONS, &[requested], false),
            (Method::OPTIONS, &[origin, requested], true),
            (Method::GET, &[origin, requested], false),
        ] {
            let list = list(fields);
            let headers = preflight(&cors, &method, Fields::new(&list));
            assert_eq!(headers.is_some(), expected, "{method} {fields:?}");
        }
    }
}
