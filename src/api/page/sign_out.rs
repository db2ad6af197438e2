//! `GET` and `POST sign-out`.

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{HeaderMap, header};

use super::super::answer::Refused;
use super::super::leaving::Leaving;
use super::super::{Caller, Desk};
use super::fields::Sent;
use super::form_token::{self, FormToken};
use super::{Problem, SIGN_IN, SIGN_OUT, address, answer, html, is_signed_in};
use crate::auth::credential;
use crate::pipeline::admission::Client;
use crate::settings::Live;

/// A button, for who is signed in. Looking at the page changes nothing.
pub(super) async fn show(
    State(desk): State<Desk>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Response {
    let live = desk.live.load_full();
    match is_signed_in(caller.as_deref()) {
        Ok(true) => form(&live, request.headers(), None),
        Ok(false) => bye(&live),
        Err(unknown) => form(&live, request.headers(), Some(unknown.into())),
    }
}

/// Ends the session that the browser holds.
pub(super) async fn submit(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Refused> {
    let live = desk.live.load_full();
    let (parts, body) = request.into_parts();
    let sent = Sent::read(&parts.headers, body).await?;
    let again = |problem| form(&live, &parts.headers, Some(problem));
    if !form_token::is_ours(&parts.headers, &client, &sent.token, &live.sessions.cookie) {
        return Ok(again(Problem::not_ours(&desk, &client)));
    }
    let caller = caller.map(|Extension(caller)| caller);
    if let Err(unknown) = is_signed_in(caller.as_ref()) {
        return Ok(again(unknown.into()));
    }
    let presented = credential::extract(&parts.headers, &live.sessions.cookie.name);
    let leaving = match caller.map(|Caller(found)| found) {
        Some(Ok(identity)) => identity.as_ref().map(Leaving::of),
        Some(Err(refusal)) => Leaving::after(refusal, None, &presented),
        None => None,
    };
    if let Some(leaving) = leaving {
        let idle = live.sessions.idle_timeout;
        if let Err(unsure) = leaving.end(&desk, &client, idle).await {
            return Ok(again(unsure.into()));
        }
    }
    Ok(bye(&live))
}

fn form(live: &Live, headers: &HeaderMap, problem: Option<Problem>) -> Response {
    let token = FormToken::needed(headers, &live.sessions.cookie);
    let secret = token.as_ref().map_or("", FormToken::as_str);
    let page = html::sign_out(&address(live, SIGN_OUT), secret, problem.as_ref());
    answer(problem, page, token.as_ref(), live)
}

/// The browser is told to forget the cookie, in case it holds one that is worth nothing.
fn bye(live: &Live) -> Response {
    let page = html::signed_out(&address(live, SIGN_IN));
    let mut response = answer(None, page, None, live);
    for cookie in credential::clearing_cookies(&live.sessions.cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
