//! Who may talk to the admin listener. A page in an operator's browser may not: neither by naming
//! the address itself, nor by a name of its own that resolves to it (DNS rebinding).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{HeaderMap, Uri, Version, header};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::super::origin::origin_matches_host;
use super::{AdminState, ApiRejection};
use crate::events::{Event, EventKind};
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::Refusal;

/// Rejects host names that are not the admin listener's, and calls from other sites' pages.
pub(super) async fn require_same_site(
    State(desk): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    request: Request,
    next: Next,
) -> Response {
    let names = AllowedHosts {
        machine: desk.host_name.as_deref(),
        configured: snapshot.settings.admin_names.as_deref(),
    };
    match check_site(names, request.version(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(reason) => {
            desk.events
                .record(Event::new(EventKind::AdminRefused).detail(reason));
            ApiRejection {
                message: Some(reason),
                ..ApiRejection::from(Refusal::Forbidden)
            }
            .into_response()
        }
    }
}

/// The names by which the admin listener may be called, in lower case.
#[derive(Debug, Clone, Copy)]
struct AllowedHosts<'a> {
    machine: Option<&'a str>,
    /// `None`: by any name.
    configured: Option<&'a [String]>,
}

fn check_site(
    names: AllowedHosts<'_>,
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.to_str().unwrap_or_default()),
        // No browser sends it. Health checks of load balancers do.
        (None, _) if version == Version::HTTP_10 => None,
        _ => return Err("The request must have exactly one Host header."),
    };
    // A target in absolute form names a host too; it has to pass like the header.
    let target = uri.authority().map(Authority::as_str);
    if ![host, target]
        .into_iter()
        .flatten()
        .all(|host| names.contains(host))
    {
        return Err(
            "The Host header names neither this machine nor an address; admin.names lists further names.",
        );
    }
    let mut sites = headers.get_all("sec-fetch-site").iter();
    if !sites.all(|site| site == "same-origin" || site == "none") {
        return Err("The call comes from a page of another site.");
    }
    let same = |origin: &http::HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        host.is_some_and(|host| origin_matches_host(&origin.to_ascii_lowercase(), host, false))
    };
    if !headers.get_all(header::ORIGIN).iter().all(same) {
        return Err("The call comes from a page of another origin.");
    }
    Ok(())
}

impl AllowedHosts<'_> {
    /// Whether a host is a loopback name, an address, or a name of the list; with or without port.
    fn contains(self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        if authority.as_str().contains('@') {
            return false;
        }
        let Some(configured) = self.configured else {
            return true;
        };
        let name = authority.host().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || bare.parse::<IpAddr>().is_ok()
            || self.machine == Some(name)
            || configured.iter().any(|own| own == name)
    }
}

/// Asks for the admin token; without one in the configuration nobody is an operator.
pub(super) async fn require_operator(
    State(desk): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    request: Request,
    next: Next,
) -> Response {
    let wanted = snapshot.settings.admin_token.as_ref();
    let wanted = wanted.map(ExposeSecret::expose_secret);
    match check_token(wanted, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            if refusal == Refusal::Unauthenticated {
                let event = Event::new(EventKind::AdminRefused).detail("no or a wrong admin token");
                desk.events.record(event);
            }
            ApiRejection::from(refusal).into_response()
        }
    }
}

fn check_token(wanted: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
    let wanted = wanted.ok_or(Refusal::Forbidden)?;
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Refusal::Unauthenticated);
    };
    let value = value.to_str().map_err(|_| Refusal::Unauthenticated)?;
    let presented = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Err(Refusal::Unauthenticated),
    };
    // Hashes have one length: the comparison tells nothing, not even how long the token is.
    let hash = |text: &str| Sha256::digest(text.as_bytes());
    if bool::from(hash(presented).ct_eq(&hash(wanted))) {
        Ok(())
    } else {
        Err(Refusal::Unauthenticated)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::origin::tests::headers;
    use super::*;

    const NO_HOSTS: AllowedHosts<'static> = AllowedHosts {
        machine: None,
        configured: Some(&[]),
    };

    #[test]
    fn only_loopback_addresses_and_own_names_are_allowed() {
        let configured = ["gateway".to_owned()];
        let names = AllowedHosts {
            machine: Some("machine.example"),
            configured: Some(&configured),
        };
        for good in [
            "localhost",
            "LocalHost:9090",
            "127.0.0.1:9090",
            "[::1]:9090",
            "10.1.2.3",
            "gateway:9090",
            "Gateway",
            "gateway.",
            "Machine.Example:9090",
        ] {
            assert!(names.contains(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil@localhost",
            "gateway.evil",
            "local host",
            "machine",
        ] {
            assert!(!names.contains(bad), "{bad}");
        }
        let any = AllowedHosts {
            configured: None,
            ..names
        };
        assert!(any.contains("evil.example") && !any.contains("evil@localhost"));
    }

    #[test]
    fn host_is_optional_in_http_1_0_only() {
        let check = |version, list: &[_]| {
            let uri = Uri::from_static("/health");
            check_site(NO_HOSTS, version, &uri, &headers(list)).is_ok()
        };
        assert!(check(Version::HTTP_10, &[]));
        assert!(!check(Version::HTTP_11, &[]));
        assert!(!check(Version::HTTP_10, &[("host", "evil.example")]));
        assert!(!check(Version::HTTP_10, &[("origin", "http://localhost")]));
    }

    #[test]
    fn other_origins_are_rejected() {
        type Case<'a> = (&'a [(&'static str, &'a str)], bool);
        let cases: [Case<'_>; 11] = [
            (&[("host", "127.0.0.1:9090")], true),
            (
                &[
                    ("host", "127.0.0.1:9090"),
                    ("origin", "http://127.0.0.1:9090"),
                ],
                true,
            ),
            (
                &[
                    ("host", "127.0.0.1:9090"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
            (
                &[("host", "127.0.0.1:9090"), ("sec-fetch-site", "none")],
                true,
            ),
            (
                &[
                    ("host", "127.0.0.1:9090"),
                    ("origin", "http://evil.example"),
                ],
                false,
            ),
            (
                &[
                    ("host", "127.0.0.1:9090"),
                    ("origin", "http://127.0.0.1:8080"),
                ],
                false,
            ),
            (&[("host", "127.0.0.1:9090"), ("origin", "null")], false),
            (
                &[("host", "127.0.0.1:9090"), ("sec-fetch-site", "cross-site")],
                false,
            ),
            (
                &[("host", "127.0.0.1:9090"), ("sec-fetch-site", "same-site")],
                false,
            ),
            (&[], false),
            (&[("host", "127.0.0.1"), ("host", "localhost")], false),
        ];
        for (list, expected) in cases {
            let headers = headers(list);
            let uri = Uri::from_static("/health");
            let passed = check_site(NO_HOSTS, Version::HTTP_11, &uri, &headers).is_ok();
            assert_eq!(passed, expected, "{headers:?}");
        }
        let rebound = Uri::from_static("http://evil.example/health");
        let headers = headers(&[("host", "localhost")]);
        assert!(check_site(NO_HOSTS, Version::HTTP_11, &rebound, &headers).is_err());
    }

    #[test]
    fn admin_token_is_required_and_compared_whole() {
        let wanted = Some("0123456789abcdef");
        let check = |value: &str| check_token(wanted, &headers(&[("authorization", value)]));
        assert_eq!(check("Bearer 0123456789abcdef"), Ok(()));
        assert_eq!(check("bearer 0123456789abcdef"), Ok(()));
        for bad in [
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert_eq!(check(bad), Err(Refusal::Unauthenticated), "{bad}");
        }
        assert_eq!(
            check_token(wanted, &HeaderMap::new()),
            Err(Refusal::Unauthenticated)
        );
        let twice = [
            ("authorization", "Bearer 0123456789abcdef"),
            ("authorization", "Bearer 0123456789abcdef"),
        ];
        assert!(check_token(wanted, &headers(&twice)).is_err());
        assert_eq!(
            check_token(None, &headers(&[("authorization", "Bearer ")])),
            Err(Refusal::Forbidden)
        );
    }
}
