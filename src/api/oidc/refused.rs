//! Responses to starts and callbacks that failed.

use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{NO_REFERRER, start_path};
use crate::identity::oidc::ProviderClient;
use crate::rejection::{Refusal, Rejection};
use crate::settings::Reloadable;

/// A rejection with a link that starts a new flow. No redirect follows: the user decides.
pub(super) fn refused(
    settings: &Reloadable,
    provider: &ProviderClient,
    rejection: Rejection,
    return_to: &str,
) -> Response {
    let start = start_link(settings, provider, rejection.refusal, return_to);
    let mut response = rejection.with_start(start).into_response();
    let (name, value) = NO_REFERRER;
    response.headers_mut().insert(name, value);
    response
}

/// The address that starts a new flow. After a refusal the provider would return the same user
/// again, so it is asked to let the user sign in anew.
fn start_link(
    settings: &Reloadable,
    provider: &ProviderClient,
    refusal: Refusal,
    return_to: &str,
) -> String {
    let path = start_path(settings, &provider.settings().name);
    let back = utf8_percent_encode(return_to, NON_ALPHANUMERIC);
    match refusal {
        Refusal::SignInRefused => format!("{path}?return_to={back}&prompt=login"),
        _ => format!("{path}?return_to={back}"),
    }
}
