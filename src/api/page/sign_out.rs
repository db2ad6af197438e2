//! `GET` and `POST sign-out`.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::HeaderMap;

use super::super::caller::presented_credential;
use super::super::oidc::sign_out::ProviderSignOut;
use super::super::presented_session::PresentedSession;
use super::super::response::clear_cookie;
use super::super::{ApiState, Caller, oidc};
use super::form_fields::FormFields;
use super::form_token::{self, FormToken};
use super::{
    PageError, html, is_signed_in, page_path, page_response, see_other, set_security_policy,
};
use crate::pipeline::facts::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::Rejection;
use crate::routing::endpoints::{SIGN_IN_PAGE, SIGN_OUT_PAGE};
use crate::settings::Reloadable;

/// Shows the sign-out button to signed-in users. Viewing the page changes nothing.
pub(super) async fn show(
    Extension(snapshot): Extension<Arc<Snapshot>>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Response {
    let settings = &snapshot.settings;
    match is_signed_in(caller.as_deref()) {
        Ok(true) => form_response(&snapshot, request.headers(), None),
        Ok(false) => signed_out_response(settings),
        Err(unknown) => {
            let problem = PageError::new(unknown, &settings.pages);
            form_response(&snapshot, request.headers(), Some(problem))
        }
    }
}

/// Ends the session of the browser's cookie.
pub(super) async fn submit(
    State(state): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = request.into_parts();
    let sent = FormFields::read(&parts.headers, body).await?;
    let again = |problem| form_response(&snapshot, &parts.headers, Some(problem));
    if !form_token::is_own_form(
        &parts.headers,
        &client,
        &sent.token,
        &settings.sessions.cookie,
    ) {
        return Ok(again(PageError::cross_site_form(
            &state,
            &client,
            &settings.pages,
        )));
    }
    let caller = caller.map(|Extension(caller)| caller);
    if let Err(unknown) = is_signed_in(caller.as_ref()) {
        return Ok(again(PageError::new(unknown, &settings.pages)));
    }
    let presented = presented_credential(&parts.headers, settings);
    let session = match caller.map(|Caller(found)| found) {
        Some(Ok(identity)) => identity.as_ref().map(PresentedSession::from_identity),
        Some(Err(rejection)) => PresentedSession::from_rejection(&rejection, &presented),
        None => None,
    };
    let at_provider = ProviderSignOut::prepare(&state, &snapshot, session.as_ref()).await;
    if let Some(session) = session
        && let Err(error) = session.end(&state, settings, &client).await
    {
        return Ok(again(PageError::new(error, &settings.pages)));
    }
    let at_provider = at_provider.and_then(|provider| provider.url(settings, &client));
    Ok(match at_provider {
        Some(url) => clear_cookie(see_other(&url)),
        None => signed_out_response(settings),
    })
}

fn form_response(snapshot: &Snapshot, headers: &HeaderMap, problem: Option<PageError>) -> Response {
    let settings = &snapshot.settings;
    let token = FormToken::for_form(headers, &settings.sessions.cookie);
    let secret = token.as_ref().map_or("", FormToken::as_str);
    let page = html::sign_out(
        &settings.pages,
        &page_path(settings, SIGN_OUT_PAGE),
        secret,
        problem.as_ref(),
    );
    let mut response = page_response(problem, page, token.as_ref(), settings);
    // The form may lead to an origin that the configuration does not name.
    let providers = snapshot.providers.iter();
    let targets: Vec<String> = providers
        .filter_map(|provider| provider.end_session_origin())
        .collect();
    set_security_policy(response.headers_mut(), settings, &targets);
    response
}

/// Clears the cookie even without a session, in case it is invalid.
fn signed_out_response(settings: &Reloadable) -> Response {
    let page = html::signed_out(&settings.pages, &sign_in_link(settings));
    clear_cookie(page_response(None, page, None, settings))
}

/// Where the page of a signed-out visitor leads. The only provider is asked to let the user sign in
/// anew: it would sign the same user in again at once.
fn sign_in_link(settings: &Reloadable) -> String {
    match settings.identity.only_provider() {
        Some(only) => format!("{}?prompt=login", oidc::start_path(settings, &only.name)),
        None => page_path(settings, SIGN_IN_PAGE),
    }
}
