//! Metadata of protected resources (RFC 9728), by which OAuth clients find the authorization servers of
//! a route.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use super::Step;
use super::facts::{Client, RequestFacts, RequestHead};
use crate::routing::{HostPattern, Path, PathAmbiguities, PathPattern, Route, RouteTable, host_of};
use crate::settings::Reloadable;

/// Where the metadata is, before the path of the resource (section 3).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// How long clients may keep the metadata.
const CACHE_CONTROL: &str = "public, max-age=300";
/// Characters of a path that are encoded in an address.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'`')
    .add(b'{')
    .add(b'}');

#[derive(Serialize)]
struct Metadata<'a> {
    resource: String,
    /// Lists without elements are left out (section 3.2).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_servers: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    scopes_supported: &'a [String],
    bearer_methods_supported: [&'static str; 1],
}

/// Returns the route whose metadata is requested: of those that are resources, the most specific one for
/// the path.
pub(super) fn find<'r>(
    resources: &'r RouteTable,
    host: &str,
    head: &RequestHead<'_>,
) -> Option<&'r Arc<Route>> {
    let path = match head.path.strip_prefix(WELL_KNOWN)? {
        "" => "/",
        path => path.starts_with('/').then_some(path)?,
    };
    let is_read = matches!(*head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let path = Path::read(path.as_bytes()).ok().filter(|_| is_read)?;
    if path.ambiguities() != PathAmbiguities::NONE {
        return None;
    }
    resources.find(host, &path, &Method::GET, &std::iter::empty())
}

/// Responds with the metadata of a route. It is public, so that clients in browsers may read it, too.
pub(super) fn respond(facts: &RequestFacts<'_>, route: &Route, settings: &Reloadable) -> Step {
    let field = |name: HeaderName, value| (name, HeaderValue::from_static(value));
    let any_origin = field(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    if *facts.head.method == Method::OPTIONS {
        let headers = vec![
            any_origin,
            field(header::ACCESS_CONTROL_ALLOW_METHODS, "GET"),
            field(header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        ];
        return Step::Respond(StatusCode::NO_CONTENT, headers, Bytes::new());
    }
    let tokens = &settings.tokens;
    let trusted = tokens.trusted.iter().map(|trusted| trusted.issuer.as_str());
    let introspection = settings.introspection.iter();
    let introspection = introspection.filter_map(|entry| entry.rules.issuer.as_deref());
    let mut authorization_servers = Vec::new();
    for issuer in trusted.chain(introspection) {
        if !authorization_servers.contains(&issuer) {
            authorization_servers.push(issuer);
        }
    }
    let metadata = Metadata {
        resource: format!(
            "{}{}",
            origin(&facts.client(), route, settings),
            resource_path(route)
        ),
        authorization_servers,
        scopes_supported: &route.require.scopes,
        bearer_methods_supported: ["header"],
    };
    let headers = vec![
        any_origin,
        field(header::CONTENT_TYPE, "application/json"),
        field(header::CACHE_CONTROL, CACHE_CONTROL),
    ];
    // Texts alone: this never fails.
    let body = serde_json::to_vec(&metadata).unwrap_or_default();
    Step::Respond(StatusCode::OK, headers, body.into())
}

/// The address of the metadata of a route, for the challenge of a rejected request.
pub(super) fn metadata_url(client: &Client, route: &Route, settings: &Reloadable) -> String {
    let origin = origin(client, route, settings);
    format!("{origin}{WELL_KNOWN}{}", resource_path(route))
}

/// The path of a resource: that of the route, without a slash at its end.
fn resource_path(route: &Route) -> String {
    let (PathPattern::Exact(segments) | PathPattern::Prefix(segments)) = &route.matches.path;
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        path.extend(utf8_percent_encode(segment, PATH));
    }
    path
}

/// The origin of a resource: the configured one, unless the route is that of another host.
fn origin(client: &Client, route: &Route, settings: &Reloadable) -> String {
    let api = settings.api.as_ref();
    let public_url = api.and_then(|api| api.public_url.as_deref());
    let (scheme, public_host) = match public_url.and_then(|url| url.split_once("://")) {
        Some((scheme, host)) => (scheme, Some(host)),
        None if client.https => ("https", None),
        None => ("http", None),
    };
    let host = public_host.filter(|host| matches_host(route, host));
    format!("{scheme}://{}", host.unwrap_or(&client.host))
}

/// Whether a route is one of a host, which may have a port.
fn matches_host(route: &Route, host: &str) -> bool {
    let Ok(host) = host_of(host) else {
        return false;
    };
    match &route.matches.host {
        None => true,
        Some(HostPattern::Exact(name)) => *name == *host,
        Some(HostPattern::Wildcard(suffix)) => {
            let rest = host.strip_suffix(suffix.as_str());
            rest.is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        }
    }
}
