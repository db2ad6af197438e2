//! The requests that a route matches.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Method};
use secrecy::ExposeSecret as _;

use super::super::headers::header_name_at_key;
use crate::config::context::ResolveContext;
use crate::config::diagnostics::did_you_mean;
use crate::config::document::ConfigPath;
use crate::config::file::routing::route as file;
use crate::config::secrets;
use crate::routing::{HostPattern, Match, PathPattern};

/// Resolves the match of a route.
pub(super) fn route_match(
    raw: &file::Match,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Match> {
    let mut report = |key: &str, message: String| context.error(&location.key(key), message);
    let host = match raw.host.as_deref().map(HostPattern::parse) {
        Some(Err(error)) => {
            report("host", error.to_string());
            None
        }
        Some(Ok(host)) => Some(Some(host)),
        None => Some(None),
    };
    let path = match (&raw.path, &raw.prefix) {
        (Some(_), Some(_)) => {
            report("prefix", "give \"path\" or \"prefix\", not both".to_owned());
            None
        }
        (Some(path), None) => PathPattern::exact(path)
            .map_err(|error| report("path", error.to_string()))
            .ok(),
        (None, Some(prefix)) => PathPattern::prefix(prefix)
            .map_err(|error| report("prefix", error.to_string()))
            .ok(),
        (None, None) => Some(PathPattern::default()),
    };
    Some(Match {
        methods: methods(&raw.methods, &location.key("methods"), context),
        headers: header_matches(&raw.headers, &location.key("headers"), context),
        host: host?,
        path: path?,
    })
}

fn header_matches(
    raw: &BTreeMap<String, String>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (text, value) in raw {
        let location = location.key(text);
        let Some(name) = header_name_at_key(text, &location, context) else {
            continue;
        };
        if headers.iter().any(|(other, _)| *other == name) {
            context.error_at_key(&location, format!("\"{name}\" is already matched on"));
        }
        let value = match context.lacks_secret(&location, false) {
            // Differs from that of any other route.
            true => HeaderValue::from_str(secrets::stand_in().expose_secret()),
            false => HeaderValue::from_str(value),
        };
        match value {
            Ok(value) => headers.push((name, value)),
            Err(_) => context.error(
                &location,
                "a header value must not contain control characters",
            ),
        }
    }
    headers
}

/// Resolves a list of methods.
pub(super) fn methods(
    raw: &[String],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<Method> {
    let standard = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    let mut methods = Vec::new();
    for (index, text) in raw.iter().enumerate() {
        let location = location.item(index);
        let upper = text.to_ascii_uppercase();
        match Method::from_bytes(text.as_bytes()) {
            Ok(Method::CONNECT | Method::TRACE) => {
                context.error(
                    &location,
                    "the gateway itself responds to CONNECT and TRACE with 405",
                );
            }
            Ok(method) if *text == upper => {
                if methods.contains(&method) {
                    context.error(&location, "duplicate method");
                }
                methods.push(method);
            }
            _ => {
                let hint = did_you_mean(&upper, standard);
                let message = format!("not a method; methods are upper case{hint}");
                context.error(&location, message);
            }
        }
    }
    methods
}

/// Returns a string that is equal for equal matches.
pub(super) fn match_key(matches: &Match) -> String {
    let mut methods: Vec<&str> = matches.methods.iter().map(Method::as_str).collect();
    methods.sort_unstable();
    let mut headers = matches.headers.clone();
    headers.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    format!(
        "{:?} {:?} {methods:?} {headers:?}",
        matches.host, matches.path
    )
}
