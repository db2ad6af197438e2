//! `GET` and `POST sign-out`.

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{HeaderMap, header};

use super::super::presented_session::PresentedSession;
use super::super::response::ApiRejection;
use super::super::{ApiState, Caller};
use super::form_fields::FormFields;
use super::form_token::{self, FormToken};
use super::{PageError, SIGN_IN, SIGN_OUT, html, is_signed_in, page_path, page_response};
use crate::auth::credential;
use crate::pipeline::admission::Client;
use crate::settings::Reloadable;

/// A button, for who is signed in. Looking at the page changes nothing.
pub(super) async fn show(
    State(desk): State<ApiState>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Response {
    let live = desk.reloadable.load_full();
    match is_signed_in(caller.as_deref()) {
        Ok(true) => form_response(&live, request.headers(), None),
        Ok(false) => signed_out_response(&live),
        Err(unknown) => form_response(&live, request.headers(), Some(unknown.into())),
    }
}

/// Ends the session that the browser holds.
pub(super) async fn submit(
    State(desk): State<ApiState>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, ApiRejection> {
    let live = desk.reloadable.load_full();
    let (parts, body) = request.into_parts();
    let sent = FormFields::read(&parts.headers, body).await?;
    let again = |problem| form_response(&live, &parts.headers, Some(problem));
    if !form_token::is_own_form(&parts.headers, &client, &sent.token, &live.sessions.cookie) {
        return Ok(again(PageError::cross_site_form(&desk, &client)));
    }
    let caller = caller.map(|Extension(caller)| caller);
    if let Err(unknown) = is_signed_in(caller.as_ref()) {
        return Ok(again(unknown.into()));
    }
    let presented = credential::extract(&parts.headers, &live.sessions.cookie.name);
    let leaving = match caller.map(|Caller(found)| found) {
        Some(Ok(identity)) => identity.as_ref().map(PresentedSession::from_identity),
        Some(Err(refusal)) => PresentedSession::from_rejection(refusal, None, &presented),
        None => None,
    };
    if let Some(leaving) = leaving {
        let idle = live.sessions.idle_timeout;
        if let Err(unsure) = leaving.end(&desk, &client, idle).await {
            return Ok(again(unsure.into()));
        }
    }
    Ok(signed_out_response(&live))
}

fn form_response(live: &Reloadable, headers: &HeaderMap, problem: Option<PageError>) -> Response {
    let token = FormToken::for_form(headers, &live.sessions.cookie);
    let secret = token.as_ref().map_or("", FormToken::as_str);
    let page = html::sign_out(&page_path(live, SIGN_OUT), secret, problem.as_ref());
    page_response(problem, page, token.as_ref(), live)
}

/// The browser is told to forget the cookie, in case it holds one that is worth nothing.
fn signed_out_response(live: &Reloadable) -> Response {
    let page = html::signed_out(&page_path(live, SIGN_IN));
    let mut response = page_response(None, page, None, live);
    for cookie in credential::clearing_cookies(&live.sessions.cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
