//! Sign-in at a provider: the start of a flow, its callback, and the list of providers.

pub(super) mod backchannel_logout;
pub(super) mod callback;
pub(super) mod jwks;
pub(super) mod link;
mod provider_call;
pub(super) mod providers;
mod refused;
pub(super) mod sign_out;
pub(super) mod start;

use http::HeaderValue;
use http::header::{HeaderName, REFERRER_POLICY};

use crate::identity::oidc::flow::FlowCookieRules;
use crate::pipeline::facts::Client;
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::{CALLBACK, START};
use crate::routing::host_of;
use crate::settings::Reloadable;
use crate::settings::provider::{Provider, ResponseMode};

/// The addresses of a sign-in have codes and states, which no other site learns.
const NO_REFERRER: (HeaderName, HeaderValue) =
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer"));

/// The path of an endpoint of a provider, below the origin.
fn provider_path(settings: &Reloadable, endpoint: &str, provider: &str) -> String {
    let prefix = settings.api.as_ref().map_or("", |api| &api.prefix);
    format!("{prefix}{}", endpoint.replace("{provider}", provider))
}

/// The path that starts a sign-in at a provider.
pub(super) fn start_path(settings: &Reloadable, provider: &str) -> String {
    provider_path(settings, START, provider)
}

/// The origin of redirect URIs and links: the configured one, or that of the request.
///
/// # Errors
/// The request names no valid host.
fn own_origin(settings: &Reloadable, client: &Client) -> Result<String, Rejection> {
    let configured = settings.api.as_ref().and_then(|api| api.public_url.clone());
    if let Some(origin) = configured {
        return Ok(origin);
    }
    // Proxies report it without a check.
    host_of(&client.host).map_err(|_| Refusal::BadRequest)?;
    let scheme = if client.https { "https" } else { "http" };
    Ok(format!("{scheme}://{}", client.host.to_ascii_lowercase()))
}

/// The attributes of the flow cookies of a provider.
fn cookie_rules(settings: &Reloadable, provider: &Provider) -> FlowCookieRules {
    FlowCookieRules {
        secure: settings.sessions.cookie.secure,
        path: provider_path(settings, CALLBACK, &provider.name),
        is_posted: provider.response_mode == ResponseMode::FormPost,
    }
}
