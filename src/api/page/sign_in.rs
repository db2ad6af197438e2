//! `GET` and `POST sign-in`.

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use url::Url;

use super::super::answer::{Noted, Refused};
use super::super::{Caller, Desk, RequestId, auth, backend, origin};
use super::fields::Sent;
use super::form_token::{self, FormToken};
use super::{Problem, SIGN_IN, address, answer, html, is_signed_in, return_to, see_other};
use crate::accounts::names::AccountName;
use crate::accounts::{Attempt, Credentials, Failure, SignedIn};
use crate::auth::credential;
use crate::limits::Decision;
use crate::pipeline::admission::Client;
use crate::refusal::Refusal;
use crate::settings::Live;
use crate::settings::backend::Backend;
use crate::telemetry::metrics::SignInMethod;

/// The form; whoever is signed in already goes on to where they wanted to go.
pub(super) async fn show(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Response {
    let live = desk.live.load_full();
    let target = return_to::in_query(request.uri().query());
    let caller = caller.map(|Extension(caller)| caller);
    let problem = match is_signed_in(caller.as_ref()) {
        Ok(true) => return see_other(&target),
        Ok(false) if matches!(caller, Some(Caller(Ok(None)))) => {
            let kept = !comes_from_sign_in(request.headers(), &client, &live);
            (!kept).then(|| Problem::new(StatusCode::OK, COOKIE_NOT_KEPT))
        }
        Ok(false) => None,
        Err(unknown) => Some(Problem::from(unknown)),
    };
    let mut response = form(&live, request.headers(), &target, "", problem);
    if caller
        .is_some_and(|Caller(found)| found.is_err_and(|refusal| refusal.status().is_client_error()))
    {
        // It would be in the way: two of a kind are refused, and one that has ended lets nobody in.
        for cookie in credential::clearing_cookies(&live.sessions.cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// What a browser shows that comes from the sign-in form without a cookie.
const COOKIE_NOT_KEPT: &str = "You are not signed in. If you have just signed in, your browser did not \
    keep the cookie: allow cookies for this site, and open it by an address that begins with https://.";

/// Whether the browser was sent here from the sign-in page itself, as it is when it signed in and did
/// not keep the cookie.
fn comes_from_sign_in(headers: &HeaderMap, client: &Client, live: &Live) -> bool {
    let referer = headers.get(header::REFERER);
    let referer = referer.and_then(|referer| Url::parse(referer.to_str().ok()?).ok());
    referer.is_some_and(|referer| {
        let origin = referer.origin().ascii_serialization();
        referer.path() == address(live, SIGN_IN)
            && origin::is_of(&origin, &client.host, client.https)
    })
}

/// Signs in, and sends the browser to where the person wanted to go.
pub(super) async fn submit(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Refused> {
    let live = desk.live.load_full();
    let (parts, body) = request.into_parts();
    let sent = Sent::read(&parts.headers, body).await?;
    let target = return_to::accepted(&sent.return_to);
    let again = |login: &str, problem| form(&live, &parts.headers, target, login, Some(problem));
    if !form_token::is_ours(&parts.headers, &client, &sent.token, &live.sessions.cookie) {
        auth::count_unread(&desk, &live, Refusal::CsrfRejected);
        return Ok(again("", Problem::not_ours(&desk, &client)));
    }
    let mut limits = Vec::new();
    let opened = match &live.identity.backend {
        Some(backend) => {
            let opened =
                by_backend(&desk, &live, backend, &client, &parts, &sent, &mut limits).await;
            auth::counted(&desk, SignInMethod::Upstream, opened)
        }
        None => {
            let opened = by_password(&desk, &live, &client, &parts, &sent, &mut limits).await;
            auth::counted(&desk, SignInMethod::Password, opened)
        }
    };
    let (signed_in, cookies) = match opened {
        Ok(opened) => opened,
        Err(refused) => return Ok(again(&sent.login, refused.with_limits(limits).into())),
    };
    let mut response = see_other(target);
    response
        .extensions_mut()
        .insert(Noted::of(&signed_in, limits));
    let headers = response.headers_mut();
    if let Some(token) = &signed_in.session_token {
        let cookie = credential::session_cookie(&live.sessions.cookie, token, live.sessions.ttl);
        headers.append(header::SET_COOKIE, cookie);
    }
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn by_password(
    desk: &Desk,
    live: &Live,
    client: &Client,
    parts: &Parts,
    sent: &Sent,
    limits: &mut Vec<Decision>,
) -> Result<(SignedIn, Vec<HeaderValue>), Failure> {
    let credentials = Credentials {
        login: &sent.login,
        password: &sent.password,
        held: auth::held(&parts.headers, live),
    };
    let visitor = auth::visitor(&parts.headers, client);
    let signed_in = desk
        .accounts
        .sign_in(live, credentials, &visitor, limits)
        .await?;
    Ok((signed_in, Vec::new()))
}

/// A backend gets the JSON that it would have got from a page of its own.
async fn by_backend(
    desk: &Desk,
    live: &Live,
    backend: &std::sync::Arc<Backend>,
    client: &Client,
    parts: &Parts,
    sent: &Sent,
    limits: &mut Vec<Decision>,
) -> Result<(SignedIn, Vec<HeaderValue>), Failure> {
    let name = AccountName::read(&sent.login)
        .map_err(|problem| Failure::Invalid(vec![("login".to_owned(), problem.to_owned())]))?;
    let body = json!({ member(backend, &sent.login): sent.login, "password": sent.password });
    let request_id = parts.extensions.get::<RequestId>();
    let attempt = Attempt {
        names: vec![name],
        body: body.to_string().into(),
        content_type: Some(&HeaderValue::from_static("application/json")),
        request_id: request_id.map_or("", RequestId::as_str),
        held: auth::held(&parts.headers, live),
    };
    let visitor = auth::visitor(&parts.headers, client);
    let (signed_in, answer) = desk
        .accounts
        .sign_in_by_backend(live, backend, attempt, &visitor, limits)
        .await?;
    Ok((signed_in, backend::cookies(backend, live, &answer)))
}

/// What the backend calls a name: the first member that it reads is for what looks like an address,
/// the second, if there is one, for anything else.
fn member<'b>(backend: &'b Backend, login: &str) -> &'b str {
    let mut members = backend.account.iter().map(String::as_str);
    let first = members.next().unwrap_or("email");
    if login.contains('@') {
        first
    } else {
        members.next().unwrap_or(first)
    }
}

fn form(
    live: &Live,
    headers: &HeaderMap,
    target: &str,
    login: &str,
    problem: Option<Problem>,
) -> Response {
    let token = FormToken::needed(headers, &live.sessions.cookie);
    let page = html::sign_in(&html::SignIn {
        action: &address(live, SIGN_IN),
        return_to: target,
        token: token.as_ref().map_or("", FormToken::as_str),
        login,
        problem: problem.as_ref(),
    });
    answer(problem, page, token.as_ref(), live)
}
