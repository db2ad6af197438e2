//! The head of a request toward an HTTP/2 upstream.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::Scheme;
use http::{Request, Uri, Version};

use super::request_writer::{to_failure, upstream_request};
use crate::pipeline::fields::Field;
use crate::pipeline::upstream_request::UpstreamHead;
use crate::proxy::connection::head::Head;
use crate::proxy::request_context::{Admitted, RequestContext};
use crate::proxy::retry::Failure;
use crate::routing::{Route, strip_prefix};
use crate::upstream::ChosenServer;

/// Fields that the gateway adds, about.
const ADDED: usize = 12;

/// Makes the head. `Host` becomes the authority.
///
/// # Errors
/// A target, a host or a value that HTTP/2 cannot carry.
pub(super) fn make(
    request: &Head,
    ctx: &mut RequestContext,
    admitted: &Admitted,
) -> Result<Parts, Failure> {
    let input = upstream_request(request, ctx, admitted)?;
    let received = request.lines.fields();
    let head = UpstreamHead::new(&input, &admitted.permit, received);
    let head = head.map_err(|error| to_failure(&error))?;
    let mut fields = HeaderMap::with_capacity(received.count() + ADDED);
    for field in received.iter().filter(|field| head.passes(field)) {
        add(&mut fields, &field)?;
    }
    head.write(&mut fields)
        .map_err(|error| to_failure(&error))?;
    let trace_id = head.trace_id();
    if ctx.is_grpc {
        // gRPC servers require it.
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let host = fields.remove(header::HOST).ok_or(Failure::Internal)?;
    let server = admitted.attempts.server.as_ref();
    let mut parts = Request::new(()).into_parts().0;
    parts.version = Version::HTTP_2;
    parts.method = ctx.method.clone();
    parts.uri = uri(&host, &target(request, &admitted.permit.route), server)?;
    parts.headers = fields;
    ctx.trace_id = trace_id;
    Ok(parts)
}

fn add(fields: &mut HeaderMap, field: &Field<'_>) -> Result<(), Failure> {
    let name = HeaderName::from_bytes(field.name).map_err(|_| Failure::InvalidRequest)?;
    let value = HeaderValue::from_bytes(field.value).map_err(|_| Failure::InvalidRequest)?;
    let added = fields.try_append(name, value);
    added.map(|_| ()).map_err(|_| Failure::InvalidRequest)
}

fn uri(host: &HeaderValue, target: &str, server: Option<&ChosenServer>) -> Result<Uri, Failure> {
    let is_tls = server.is_some_and(|server| server.address().connection().tls.is_some());
    let uri = Uri::builder()
        .scheme(match is_tls {
            true => Scheme::HTTPS,
            false => Scheme::HTTP,
        })
        .authority(host.as_bytes())
        .path_and_query(target);
    uri.build().map_err(|_| Failure::InvalidRequest)
}

/// The target, without the prefix that the route removes.
fn target<'h>(request: &'h Head, route: &Route) -> Cow<'h, str> {
    let target = request.target();
    if !route.strip_prefix {
        return Cow::Borrowed(target);
    }
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    Cow::Owned(format!(
        "{}{query}",
        strip_prefix(path, &route.matches.path)
    ))
}
