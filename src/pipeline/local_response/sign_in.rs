//! Redirect to the sign-in page, for a browser that opens a page without being signed in.

use http::header::HeaderValue;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::RejectedRequest;
use crate::pipeline::browser_navigation::is_browser_navigation;
use crate::pipeline::sign_in_start;
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::SIGN_IN_PAGE;
use crate::routing::{OnUnauthenticated, SignInPage, SignInPageForm};
use crate::settings::Reloadable;

/// The redirect that replaces an error response for a browser. `None` where the route does not
/// enable it, where there is no sign-in page, and for any request but a navigation.
pub(super) fn redirect_target(
    rejection: &Rejection,
    request: &RejectedRequest<'_>,
) -> Option<HeaderValue> {
    let address = match &request.route?.on_unauthenticated {
        OnUnauthenticated::Refuse => None,
        OnUnauthenticated::Redirect => own_page(rejection, request),
        OnUnauthenticated::Page(page) => other_page(page, rejection.refusal, request),
    };
    HeaderValue::try_from(address?).ok()
}

/// The address of the gateway's page, where it can lead to the requested one.
fn own_page(rejection: &Rejection, request: &RejectedRequest<'_>) -> Option<String> {
    let (refusal, settings) = (rejection.refusal, request.context.settings?);
    let redirects = sign_in_start::may_start(refusal, &request.head, request.route?, settings)
        && settings.identity.only_provider().is_none()
        && is_met_by_another_sign_in(rejection, settings);
    redirects.then(|| address(refusal, request))?
}

/// The address of a page that is not the gateway's. It is not sent to itself, and not for a session
/// that has to be stronger, which only the gateway can ask for.
fn other_page(
    page: &SignInPage,
    refusal: Refusal,
    request: &RejectedRequest<'_>,
) -> Option<String> {
    let redirects = refusal.status() == StatusCode::UNAUTHORIZED
        && refusal != Refusal::InsufficientAuthentication
        && is_browser_navigation(&request.head)
        && page.path() != Some(request.head.path);
    if !redirects {
        return None;
    }
    let path = sign_in_start::return_to(&request.head);
    let back = match page.form() {
        SignInPageForm::Path => path,
        SignInPageForm::Url => {
            let origin = utf8_percent_encode(&origin(request)?, NON_ALPHANUMERIC).to_string();
            format!("{origin}{path}")
        }
    };
    Some(page.address(&back))
}

/// The origin of the gateway as the browser sees it.
fn origin(request: &RejectedRequest<'_>) -> Option<String> {
    let api = request.context.settings?.api.as_ref();
    if let Some(url) = api.and_then(|api| api.public_url.as_ref()) {
        return Some(url.clone());
    }
    let client = request.client?.as_client(request.host.map(str::as_bytes));
    let scheme = if client.https { "https" } else { "http" };
    Some(format!("{scheme}://{}", client.host))
}

/// Whether a further sign-in on the page can satisfy the route. A password never has an `acr`.
fn is_met_by_another_sign_in(rejection: &Rejection, settings: &Reloadable) -> bool {
    let required = rejection.required_sign_in();
    required.is_none_or(|it| it.acr.is_empty() || !settings.identity.providers.is_empty())
}

/// Where the page of an error leads: to the start of a sign-in that failed, or to the sign-in page.
pub(super) fn link(rejection: &Rejection, request: &RejectedRequest<'_>) -> Option<String> {
    let refusal = rejection.refusal;
    let is_signed_out = refusal.status() == StatusCode::UNAUTHORIZED;
    let start = rejection.start().map(str::to_owned);
    start.or_else(|| is_signed_out.then(|| address(refusal, request))?)
}

/// Where the page of a sign-in that failed leads as well, if there is more than one way to sign in: to the
/// sign-in page, with the parameters of the start.
pub(super) fn link_to_other_ways(
    rejection: &Rejection,
    request: &RejectedRequest<'_>,
) -> Option<String> {
    let (_, parameters) = rejection.start()?.split_once('?')?;
    let settings = request.context.settings?;
    let api = settings.api.as_ref()?;
    let has_others = settings.identity.only_provider().is_none();
    has_others.then(|| format!("{}{SIGN_IN_PAGE}?{parameters}", api.prefix))
}

/// The address of the sign-in page that returns to the requested page, where that can be opened. A user
/// who is signed in is asked to sign in anew.
fn address(refusal: Refusal, request: &RejectedRequest<'_>) -> Option<String> {
    let prefix = &request.context.settings?.api.as_ref()?.prefix;
    let opens = matches!(*request.head.method, Method::GET | Method::HEAD) && !request.is_api_call;
    let back = match opens {
        true => sign_in_start::return_to(&request.head),
        false => "%2F".to_owned(),
    };
    let anew = match refusal {
        Refusal::InsufficientAuthentication => "&prompt=login",
        _ => "",
    };
    Some(format!("{prefix}{SIGN_IN_PAGE}?return_to={back}{anew}"))
}
