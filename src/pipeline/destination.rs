//! The destination of a request, by its head and the configuration alone.

use std::sync::Arc;

use http::header::HeaderValue;
use http::{Method, Version};

use super::facts::{RequestFacts, RequestHost};
use super::fields::text_of;
use super::protected_resource;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::routing::{Path, PathAmbiguities, PathError, Route, endpoints, port_of};
use crate::settings::{Boot, Listener, Reloadable};

/// The port of `https` URLs that name none.
const HTTPS: u16 = 443;
/// The port of `http` URLs that name none.
const HTTP: u16 = 80;

/// The destination of a valid request.
#[derive(Debug)]
pub enum Destination<'a> {
    /// The gateway as a whole: `OPTIONS *`, which is about no resource (RFC 9110, section 9.3.7).
    Server,
    /// The same URL over TLS.
    Https(HeaderValue),
    /// One of the gateway's own endpoints, by its path below the prefix.
    OwnEndpoint(String),
    /// The metadata of a route for OAuth clients.
    ResourceMetadata(&'a Arc<Route>),
    /// A route, which may still reject the path for its ambiguities.
    Route(&'a Arc<Route>, PathAmbiguities),
}

/// Why a request has no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoDestination {
    #[error("the request has too many header fields")]
    TooManyFields,
    #[error("the gateway accepts no request of this method")]
    Method,
    #[error("the scheme of the target is neither http nor https")]
    Scheme,
    #[error("the host is missing or not valid")]
    Host,
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("the path is ambiguous, and no route allows that")]
    Ambiguous,
    #[error("no route matches")]
    NoRoute,
}

impl NoDestination {
    /// The refusal that the client receives.
    pub fn refusal(self) -> Refusal {
        match self {
            NoDestination::TooManyFields => Refusal::HeadersTooLarge,
            NoDestination::Method => Refusal::MethodNotAllowed,
            NoDestination::NoRoute => Refusal::RouteNotFound,
            NoDestination::Scheme
            | NoDestination::Host
            | NoDestination::Path(_)
            | NoDestination::Ambiguous => Refusal::BadRequest,
        }
    }
}

impl From<NoDestination> for Rejection {
    fn from(fault: NoDestination) -> Rejection {
        let reason = match fault {
            NoDestination::TooManyFields => Some(Reason::TooManyFields),
            NoDestination::Scheme => Some(Reason::ForeignScheme),
            NoDestination::Path(_) => Some(Reason::AmbiguousPath),
            NoDestination::Method
            | NoDestination::Host
            | NoDestination::Ambiguous
            | NoDestination::NoRoute => None,
        };
        Rejection {
            reason,
            ..Rejection::from(fault.refusal())
        }
    }
}

/// Finds the destination of a request.
///
/// # Errors
/// The head is not valid, or no route matches.
pub fn find<'s>(
    facts: &RequestFacts<'_>,
    boot: &Boot,
    settings: &'s Reloadable,
) -> Result<Destination<'s>, NoDestination> {
    let host = check_head(facts, boot)?;
    let head = &facts.head;
    if *head.method == Method::OPTIONS && head.path == "*" {
        return Ok(Destination::Server);
    }
    let path = Path::read(head.path.as_bytes())?;
    if let Some(target) = https_target(facts, host, boot, settings) {
        return Ok(Destination::Https(target));
    }
    let ambiguities = path.ambiguities();
    // A front proxy does not forward to the gateway.
    if let Some(api) = settings.api.as_ref().filter(|_| !facts.is_query())
        && let Some(below) = endpoints::find_below(&path, &api.prefix, api.offered)
    {
        if ambiguities != PathAmbiguities::NONE {
            return Err(NoDestination::Ambiguous);
        }
        return Ok(Destination::OwnEndpoint(below));
    }
    if let Some(resources) = settings
        .oauth_resources
        .as_ref()
        .filter(|_| !facts.is_query())
        && let Some(route) = protected_resource::find(resources, host.name, head)
    {
        return Ok(Destination::ResourceMetadata(route));
    }
    let routes = &settings.routes;
    match routes.find(host.name, &path, head.method, &head.fields.pairs()) {
        Some(route) if route.upstream.is_some() || facts.is_query() => {
            Ok(Destination::Route(route, ambiguities))
        }
        // It is for front proxies only.
        Some(_) => Err(NoDestination::NoRoute),
        None if ambiguities == PathAmbiguities::NONE => Err(NoDestination::NoRoute),
        None => Err(NoDestination::Ambiguous),
    }
}

/// Performs the checks that the head reader has made for HTTP/1.1, and that HTTP/2 leaves to the
/// gateway.
fn check_head<'a>(facts: &RequestFacts<'a>, boot: &Boot) -> Result<RequestHost<'a>, NoDestination> {
    let listener = boot.listener(facts.listener);
    let most = listener.map_or(usize::MAX, |listener| listener.limits.fields);
    // For HTTP/1.1 the head reader has counted, including fields that are removed by now.
    if facts.head.version == Version::HTTP_2 && facts.head.field_count() > most {
        return Err(NoDestination::TooManyFields);
    }
    if !is_accepted(facts.head.method) {
        return Err(NoDestination::Method);
    }
    if facts.scheme.is_some_and(|scheme| !is_http(scheme)) {
        return Err(NoDestination::Scheme);
    }
    facts.host.ok_or(NoDestination::Host)
}

/// Whether the gateway accepts requests of this method.
pub fn is_accepted(method: &Method) -> bool {
    !matches!(*method, Method::CONNECT | Method::TRACE)
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Returns the URL to which a plain request on a listener that redirects is sent.
fn https_target(
    facts: &RequestFacts<'_>,
    host: RequestHost<'_>,
    boot: &Boot,
    settings: &Reloadable,
) -> Option<HeaderValue> {
    let redirects = settings.listener(facts.listener)?.redirect_to_https;
    if !redirects || facts.client.https {
        return None;
    }
    let named = text_of(host.field).and_then(port_of).unwrap_or(HTTP);
    let plain = boot.listener(facts.listener)?;
    // The host was validated, so this is no open redirect.
    let target = facts.head.target();
    let location = match https_port(named, plain, &boot.listeners) {
        HTTPS => format!("https://{}{target}", host.name),
        port => format!("https://{}:{port}{target}", host.name),
    };
    HeaderValue::try_from(location).ok()
}

/// Returns the port to which a client is redirected that reached the plain listener at port
/// `named`: that of the TLS listener. Where `named` is not the plain listener's own port, a device
/// in front maps ports; it is assumed to map 443 to the TLS listener.
fn https_port(named: u16, plain: &Listener, listeners: &[Listener]) -> u16 {
    let Some(plain) = plain.bind.tcp().filter(|bind| bind.port() == named) else {
        return HTTPS;
    };
    let preferred = listeners
        .iter()
        .filter(|listener| listener.tls)
        .filter_map(|listener| listener.bind.tcp())
        .min_by_key(|bind| (bind.port() != HTTPS, bind.ip() != plain.ip()));
    preferred.map_or(HTTPS, |bind| bind.port())
}
