//! Redirect to the sign-in page, for a browser that opens a page without being signed in.

use http::header::HeaderValue;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::RejectedRequest;
use crate::pipeline::browser_navigation::is_browser_navigation;
use crate::pipeline::{same_origin, sign_in_start};
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::SIGN_IN_PAGE;
use crate::routing::{OnUnauthenticated, SignInPage, SignInPageForm, host_of};
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
        // A front proxy cannot start a sign-in itself: the page leads on to the only provider.
        && (settings.identity.only_provider().is_none() || request.front_proxy.is_some())
        && is_met_by_another_sign_in(rejection, settings);
    let address = redirects.then(|| address(refusal, request))??;
    let is_itself = request.front_proxy.is_some() && leads_to_itself(&address, request);
    (!is_itself).then_some(address)
}

/// Whether the requested page is the sign-in page, which would be redirected to itself for ever.
fn leads_to_itself(address: &str, request: &RejectedRequest<'_>) -> bool {
    let page = address.split('?').next().unwrap_or_default();
    let (origin, path) = page.split_at(origin_length(page));
    is_origin_of_request(origin, request) && path == request.head.path
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

/// The origin of the gateway as the browser sees it; that of the requested page where a front proxy
/// serves it.
fn origin(request: &RejectedRequest<'_>) -> Option<String> {
    let api = request.context.settings?.api.as_ref();
    let public_url = api.and_then(|api| api.public_url.as_ref());
    match public_url.filter(|_| request.front_proxy.is_none()) {
        Some(url) => Some(url.clone()),
        None => request_origin(request),
    }
}

/// The origin of the requested page.
fn request_origin(request: &RejectedRequest<'_>) -> Option<String> {
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
    let page = page(request)?;
    let opens = matches!(*request.head.method, Method::GET | Method::HEAD) && !request.is_api_call;
    let back = match opens {
        true => return_to(&page, request),
        false => "%2F".to_owned(),
    };
    let anew = match refusal {
        Refusal::InsufficientAuthentication => "&prompt=login",
        _ => "",
    };
    Some(format!("{page}?return_to={back}{anew}"))
}

/// The address of the sign-in page: a path, or for a front proxy a path or a URL.
fn page(request: &RejectedRequest<'_>) -> Option<String> {
    let front_proxy = request.front_proxy;
    if let Some(address) = front_proxy.and_then(|it| it.sign_in_url.as_ref()) {
        return Some(address.clone());
    }
    let api = request.context.settings?.api.as_ref()?;
    let origin = match (front_proxy, &api.public_url) {
        (None, _) => String::new(),
        (Some(_), Some(url)) => url.clone(),
        (Some(_), None) => request_origin(request)?,
    };
    Some(format!("{origin}{}{SIGN_IN_PAGE}", api.prefix))
}

/// The requested page as the value of `return_to`: its path, or its URL where the sign-in page is on
/// another host. A sign-in returns to listed hosts only.
fn return_to(page: &str, request: &RejectedRequest<'_>) -> String {
    let path = sign_in_start::return_to(&request.head);
    let (page_origin, _) = page.split_at(origin_length(page));
    if request.front_proxy.is_none() || is_origin_of_request(page_origin, request) {
        return path;
    }
    let origin = request_origin(request).unwrap_or_default();
    let api = request.context.settings.and_then(|it| it.api.as_ref());
    let hosts = api.map_or(&[][..], |api| &api.return_hosts);
    let host = request.host.and_then(|host| host_of(host).ok());
    let is_listed = host.is_some_and(|host| hosts.iter().any(|one| one.matches(&host)));
    match is_listed {
        true => format!("{}{path}", utf8_percent_encode(&origin, NON_ALPHANUMERIC)),
        false => "%2F".to_owned(),
    }
}

/// The length of the origin of a URL; a path has none.
fn origin_length(url: &str) -> usize {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let path = url.get(authority..).and_then(|rest| rest.find('/'));
    path.map_or(url.len(), |at| authority + at)
}

/// Whether the requested page is of this origin. A path has an empty origin.
fn is_origin_of_request(origin: &str, request: &RejectedRequest<'_>) -> bool {
    let Some(client) = request.client.filter(|_| !origin.is_empty()) else {
        return true;
    };
    let client = client.as_client(request.host.map(str::as_bytes));
    let origin = origin.to_ascii_lowercase();
    same_origin::origin_matches_host(&origin, &client.host, client.https)
}
