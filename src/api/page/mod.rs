//! The sign-in and sign-out pages: plain HTML forms that work without scripts. They exist wherever
//! the API does.

mod form_fields;
mod form_token;
mod html;
mod only_provider;
mod sign_in;
mod sign_out;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use form_token::FormToken;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use maud::{Markup, html};

use super::response::ResponseInfo;
use super::{ApiState, Caller};
use crate::events::{Event, EventKind};
use crate::pipeline::facts::Client;
use crate::pipeline::html_page;
use crate::rejection::{Refusal, Rejection};
use crate::routing::HostPattern;
use crate::routing::endpoints::{SIGN_IN_PAGE, SIGN_OUT_PAGE};
use crate::settings::Reloadable;
use crate::settings::pages::Pages;

/// Routes of the pages.
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .route(SIGN_IN_PAGE, get(sign_in::show).post(sign_in::submit))
        .route(SIGN_OUT_PAGE, get(sign_out::show).post(sign_out::submit))
}

/// The error that a page shows.
struct PageError {
    text: String,
    /// Absent where the request was not rejected.
    rejection: Option<Rejection>,
}

impl PageError {
    /// The error of a form that was rejected.
    fn new(rejection: Rejection, pages: &Pages) -> PageError {
        let texts = &pages.texts;
        let fields = rejection.fields().iter();
        let text = match (pages.message(rejection.refusal), rejection.refusal) {
            (Some(own), _) => own.to_owned(),
            (None, Refusal::InvalidCredentials) => texts.wrong_credentials.clone(),
            (None, Refusal::ValidationFailed) => fields
                .map(|(field, problem)| format!("The {field} {problem}."))
                .collect::<Vec<_>>()
                .join(" "),
            (None, Refusal::RateLimited) => texts.too_many_attempts.clone(),
            (None, Refusal::CsrfRejected) => texts.foreign_form.clone(),
            (None, refusal) if refusal.status().is_server_error() => texts.unavailable.clone(),
            (None, refusal) => refusal.message().to_owned(),
        };
        PageError {
            text,
            rejection: Some(rejection),
        }
    }

    /// Records and reports a form that another site submitted.
    fn cross_site_form(state: &ApiState, client: &Client, pages: &Pages) -> PageError {
        state
            .events
            .record(Event::new(EventKind::CsrfRejected).ip(client.ip));
        PageError::new(Refusal::CsrfRejected.into(), pages)
    }
}

/// Renders a page and its error status. The page loads no external resources and cannot be framed.
fn page_response(
    problem: Option<PageError>,
    page: Markup,
    token: Option<&FormToken>,
    settings: &Reloadable,
) -> Response {
    let rejection = problem.and_then(|problem| problem.rejection);
    let status = rejection
        .as_ref()
        .map_or(StatusCode::OK, |it| it.refusal.status());
    let mut response = Response::new(Body::from(page.into_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With `no-referrer` a browser would send `Origin: null` with the page's own form.
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    set_security_policy(headers, settings, &[]);
    if let Some(cookie) = token.and_then(|token| token.cookie(&settings.sessions.cookie)) {
        headers.append(header::SET_COOKIE, cookie);
    }
    let info = response
        .extensions_mut()
        .get_or_insert_default::<ResponseInfo>();
    info.rejection = rejection;
    response
}

/// Sets the content security policy of a page whose forms also lead to these origins.
fn set_security_policy(headers: &mut HeaderMap, settings: &Reloadable, targets: &[String]) {
    let targets = form_action(settings, targets);
    let policy = html_page::content_security_policy(&targets, settings.pages.logo.as_ref());
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}

/// The targets of `form-action`. Browsers that apply it to redirects would block a form whose
/// destination is on another origin, so every origin to which one may lead is listed.
fn form_action(settings: &Reloadable, targets: &[String]) -> String {
    let Some(api) = &settings.api else {
        return "'self'".to_owned();
    };
    // A policy separator in a configured origin would end the source list.
    let origins = api.allowed_origins.iter();
    let origins = origins.filter(|origin| !origin.contains([';', ',']));
    let hosts = api.return_hosts.iter().flat_map(host_sources);
    let providers = settings.identity.providers.iter();
    let providers = providers.flat_map(|provider| provider.page_origins());
    let all = origins.chain(targets).cloned();
    let all = all.chain(hosts).chain(providers);
    all.fold("'self'".to_owned(), |list, source| {
        format!("{list} {source}")
    })
}

/// The sources of a host to which a sign-in may return: over http, on loopback only.
fn host_sources(host: &HostPattern) -> Vec<String> {
    match host {
        HostPattern::Wildcard(suffix) => vec![format!("https://*.{suffix}:*")],
        HostPattern::Exact(name) if name == "localhost" || name.starts_with("127.") => {
            vec![format!("https://{name}:*"), format!("http://{name}:*")]
        }
        HostPattern::Exact(name) => vec![format!("https://{name}:*")],
    }
}

/// Redirects the browser with a GET request (RFC 9110, section 15.4.4).
pub(super) fn see_other(target: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(target) = HeaderValue::from_str(target) {
        response.headers_mut().insert(header::LOCATION, target);
    }
    response
}

/// A page from which the browser goes on by itself, as a navigation of this site.
pub(super) fn leading_page(settings: &Reloadable, target: &str) -> Response {
    let texts = &settings.pages.texts;
    let body = html! {
        h1 { (texts.signed_in) }
        p { a .button href=(target) { (texts.r#continue) } }
    };
    let page = html_page::leading_document(&settings.pages, &texts.signed_in, target, &body);
    page_response(None, page, None, settings)
}

/// The public path of a page.
fn page_path(settings: &Reloadable, page: &str) -> String {
    let prefix = settings.api.as_ref().map_or("", |api| api.prefix.as_str());
    format!("{prefix}{page}")
}

/// Whether the caller is signed in; an ended session does not count.
fn is_signed_in(caller: Option<&Caller>) -> Result<bool, Rejection> {
    match caller.map(|Caller(found)| found) {
        Some(Ok(identity)) => Ok(identity.is_some()),
        Some(Err(rejection)) if rejection.refusal.status().is_server_error() => {
            Err(rejection.clone())
        }
        Some(Err(_)) | None => Ok(false),
    }
}
