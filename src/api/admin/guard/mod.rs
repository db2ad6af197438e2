//! Access control of the admin listener. Pages in an operator's browser must not call it, neither
//! by its address nor through a host name that resolves to it (DNS rebinding).

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

use super::AdminState;
use crate::events::{Event, EventKind};
use crate::pipeline::same_origin::origin_matches_host;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{DisclosedDetails, Refusal, Rejection};

/// Rejects foreign host names and calls from pages of other sites.
pub(super) async fn require_same_site(
    State(state): State<AdminState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    request: Request,
    next: Next,
) -> Response {
    let names = AllowedHosts {
        machine: state.host_name.as_deref(),
        configured: snapshot.settings.admin_names.as_deref(),
    };
    match check_site(names, request.version(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(reason) => {
            state
                .events
                .record(Event::new(EventKind::AdminRefused).detail(reason));
            let disclosed = DisclosedDetails {
                message: Some(reason),
                ..DisclosedDetails::default()
            };
            Rejection {
                disclosed: Some(Box::new(disclosed)),
                ..Refusal::Forbidden.into()
            }
            .into_response()
        }
    }
}

/// The host names that the admin listener accepts, in lower case.
#[derive(Debug, Clone, Copy)]
struct AllowedHosts<'a> {
    machine: Option<&'a str>,
    /// `None` accepts any name.
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
        // Browsers never omit it; health checks of load balancers do.
        (None, _) if version == Version::HTTP_10 => None,
        _ => return Err("The request must have exactly one Host header."),
    };
    // An absolute-form target names a host too and is checked like the header.
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
    /// Whether a host, with or without port, is a loopback name, an address or an allowed name.
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

/// Requires the admin token. Without a configured token every call is forbidden.
pub(super) async fn require_operator(
    State(state): State<AdminState>,
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
                state.events.record(event);
            }
            Rejection::from(refusal).into_response()
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
    // Hashes have equal length, so the comparison does not reveal the token's length.
    let hash = |text: &str| Sha256::digest(text.as_bytes());
    if bool::from(hash(presented).ct_eq(&hash(wanted))) {
        Ok(())
    } else {
        Err(Refusal::Unauthenticated)
    }
}

#[cfg(test)]
mod tests;
