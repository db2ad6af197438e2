use url::Url;

use super::origins;
use super::providers::addresses::is_loopback;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::identity as file;
use crate::config::file::identity::Cookie;
use crate::routing::endpoints::OfferedEndpoints;
use crate::routing::{HostPattern, PathPattern, host_of};
use crate::settings::Api;

/// Resolves the gateway's own endpoints; `Some(None)` without any, `None` on an error.
#[expect(clippy::option_option, reason = "an error, or validly no endpoints")]
pub(super) fn api(
    raw: Option<&file::Api>,
    offered: OfferedEndpoints,
    cookie: &Cookie,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Option<Api>> {
    let Some(raw) = raw else {
        return Some(None);
    };
    let prefix = raw.prefix.trim_end_matches('/');
    let prefix_location = location.key("prefix");
    if prefix.is_empty() {
        let message = "\"prefix\" must start with a slash and have at least one segment, such as \
                       /api/v1";
        context.error(&prefix_location, message);
    } else if let Err(error) = PathPattern::prefix(prefix) {
        context.error(&prefix_location, error.to_string());
    } else if prefix.contains('%') {
        context.error(
            &prefix_location,
            "\"prefix\" must not contain percent signs",
        );
    }
    let origins_location = location.key("allowed_origins");
    let mut allowed_origins = Vec::new();
    for (index, text) in raw.allowed_origins.iter().enumerate() {
        allowed_origins.extend(origins::parse_origin(
            text,
            &origins_location.item(index),
            context,
        ));
    }
    let public_url = public_url(
        raw.public_url.as_deref(),
        &location.key("public_url"),
        context,
    );
    let return_hosts = return_hosts(
        &raw.return_hosts,
        cookie,
        &location.key("return_hosts"),
        context,
    );
    Some(Some(Api {
        prefix: prefix.to_owned(),
        allowed_origins,
        public_url,
        return_hosts,
        offered,
    }))
}

/// Resolves the origin of the gateway as browsers see it.
fn public_url(
    raw: Option<&str>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<String> {
    let origin = origins::parse_origin(raw?, location, context)?;
    let url = Url::parse(&origin).ok()?;
    let is_secure = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    if !is_secure {
        let message = "must be an https:// URL, or http:// with a loopback address";
        context.error(location, message);
    }
    Some(origin)
}

/// Resolves further hosts to which a sign-in may return. A session must be valid there, too.
fn return_hosts(
    raw: &[String],
    cookie: &Cookie,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<HostPattern> {
    let mut all: Vec<HostPattern> = Vec::new();
    for (index, text) in raw.iter().enumerate() {
        let at = location.item(index);
        let Some(pattern) = parse_return_host(text) else {
            let message = "not a host such as app.example.com, or *.example.com for its \
                           subdomains, without scheme and port";
            context.error(&at, message);
            continue;
        };
        if all.contains(&pattern) {
            context.error(&at, "duplicate host");
        }
        let message = "\"sessions.cookie.domain\" does not cover this host, so a browser that \
                       returns there would not be signed in";
        match cookie.domain.as_deref() {
            Some(domain) if covers(domain, &pattern) => {}
            Some(_) => context.error(&at, message),
            // The host may be the gateway's own, at another port.
            None => context.warn(&at, message),
        }
        all.push(pattern);
    }
    all
}

fn parse_return_host(text: &str) -> Option<HostPattern> {
    let (name, is_wildcard) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let is_plain = !name.contains(['*', ':', '/', '@', '[']);
    let host = host_of(name).ok().filter(|_| is_plain)?.into_owned();
    Some(if is_wildcard {
        HostPattern::Wildcard(host)
    } else {
        HostPattern::Exact(host)
    })
}

/// Whether a cookie with this domain is sent to every host of a pattern (RFC 6265, section 5.1.3).
fn covers(domain: &str, pattern: &HostPattern) -> bool {
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    let domain = domain.to_ascii_lowercase();
    let (HostPattern::Exact(name) | HostPattern::Wildcard(name)) = pattern;
    name.strip_suffix(&domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_domain_covers_itself_and_its_subdomains() {
        for (domain, host, expected) in [
            ("example.com", "example.com", true),
            (".example.com", "app.example.com", true),
            ("Example.com", "*.example.com", true),
            ("example.com", "*.app.example.com", true),
            ("example.com", "badexample.com", false),
            ("app.example.com", "example.com", false),
            ("app.example.com", "*.example.com", false),
        ] {
            let pattern = parse_return_host(host);
            assert_eq!(
                pattern.map(|pattern| covers(domain, &pattern)),
                Some(expected),
                "{domain} {host}"
            );
        }
    }

    #[test]
    fn return_host_is_a_name_or_a_wildcard() {
        for text in [
            "",
            "*",
            "*.",
            "https://a.example",
            "a.example:8080",
            "a/b",
            "a@b",
            "*.*.a",
        ] {
            assert_eq!(parse_return_host(text), None, "{text}");
        }
    }
}
