//! Which paths are endpoints (or pages), and whose caller the wire has to find out: read off the description
//! that the routes themselves carry, so that it cannot say anything else.

use std::sync::LazyLock;

use http::Method;
use serde_json::Value;

use super::body::BODY_MAX;
use super::{openapi, page};
use crate::identity::picture::PICTURE_MAX;
use crate::routing::Path;
use crate::settings::Api;

/// The endpoints, which are the same for every configuration.
static ENDPOINTS: LazyLock<Endpoints> =
    LazyLock::new(|| Endpoints::from_description(openapi::description()));

struct Endpoints(Vec<Endpoint>);

struct Endpoint {
    segments: Vec<Segment>,
    /// With whether the caller matters.
    methods: Vec<(String, bool)>,
}

enum Segment {
    Literal(String),
    Parameter,
}

/// Tells whether a path below the prefix (it begins with a slash) is an endpoint. Any other is
/// routed as usual.
pub fn is_endpoint(path: &str) -> bool {
    ENDPOINTS.find(path).is_some() || page::is_page(path)
}

/// Tells whether the wire has to authenticate the caller of an endpoint.
pub fn needs_caller(method: &Method, path: &str) -> bool {
    if page::is_page(path) {
        return page::needs_caller(method, path);
    }
    let method = match *method {
        Method::HEAD => "get".to_owned(),
        _ => method.as_str().to_ascii_lowercase(),
    };
    let endpoint = ENDPOINTS.find(path);
    let mut methods = endpoint.iter().flat_map(|endpoint| &endpoint.methods);
    methods.any(|(known, caller)| *known == method && *caller)
}

/// Bytes that an endpoint's body may have.
pub fn max_body_bytes(path: &str) -> usize {
    match path {
        "/profile/avatar" => PICTURE_MAX,
        _ => BODY_MAX,
    }
}

/// The path below the prefix, if it is one of the gateway's own endpoints.
pub fn own_endpoint_path(path: &Path<'_>, api: &Api) -> Option<String> {
    let mut segments = path.segments();
    for expected in api.prefix.split('/').skip(1) {
        if *segments.next()? != *expected.as_bytes() {
            return None;
        }
    }
    let mut below = String::new();
    for segment in segments {
        below.push('/');
        below.push_str(std::str::from_utf8(segment).ok()?);
    }
    let ours = is_endpoint(&below) && (api.users || !is_about_users(&below));
    ours.then_some(below)
}

/// Whether an endpoint is about the users that the gateway keeps. Where a backend keeps them, it
/// has endpoints of its own there.
pub(super) fn is_about_users(path: &str) -> bool {
    matches!(path, "/auth/register" | "/auth/signup" | "/profile") || path.starts_with("/profile/")
}

impl Endpoints {
    fn from_description(description: &Value) -> Endpoints {
        let paths = description.get("paths").and_then(Value::as_object);
        let endpoint = |(path, operations): (&String, &Value)| Endpoint {
            segments: path.split('/').skip(1).map(Segment::parse).collect(),
            methods: operations
                .as_object()
                .into_iter()
                .flatten()
                .map(|(method, operation)| (method.clone(), openapi::needs_caller(operation)))
                .collect(),
        };
        Endpoints(paths.into_iter().flatten().map(endpoint).collect())
    }

    /// The endpoint of a path; one that names it to the letter before one with a parameter, as the
    /// router has it.
    fn find(&self, path: &str) -> Option<&Endpoint> {
        let fitting = self.0.iter().filter(|endpoint| endpoint.matches(path));
        fitting.min_by_key(|endpoint| {
            let any = |segment: &&Segment| matches!(segment, Segment::Parameter);
            endpoint.segments.iter().filter(any).count()
        })
    }
}

impl Endpoint {
    fn matches(&self, path: &str) -> bool {
        let mut parts = path.split('/').skip(1);
        let same = self.segments.iter().all(|segment| {
            let part = parts.next();
            part.is_some_and(|part| match segment {
                Segment::Literal(text) => part == text,
                Segment::Parameter => !part.is_empty(),
            })
        });
        same && parts.next().is_none()
    }
}

impl Segment {
    fn parse(text: &str) -> Segment {
        if text.starts_with('{') {
            Segment::Parameter
        } else {
            Segment::Literal(text.to_owned())
        }
    }
}
