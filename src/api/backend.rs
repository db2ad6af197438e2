//! Signing in where a backend checks credentials.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};

use super::answer::{Noted, Refused};
use super::auth::{self, SESSION_HEADER};
use super::body::{self, Fields};
use super::{Desk, RequestId};
use crate::accounts::names::AccountName;
use crate::accounts::{Attempt, BackendAnswer, SignedIn};
use crate::auth::credential;
use crate::pipeline::admission::Client;
use crate::refusal::Refusal;
use crate::settings::Live;
use crate::settings::backend::{Answer, Backend};
use crate::telemetry::metrics::SignInMethod;

/// Names of the account in one body. Failures are counted by each.
const NAMES_MAX: usize = 8;

/// `POST auth/login`: the body goes to the backend as it came.
pub(super) async fn sign_in(
    desk: &Desk,
    live: &Live,
    backend: &Arc<Backend>,
    client: &Client,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refused> {
    if !body::is_json(&parts.headers) {
        return Err(Refusal::UnsupportedMediaType.into());
    }
    let body = body::bytes(body).await?;
    // Read only to count by the account: what is wrong with it is the backend's to say, but for
    // what two readers could read differently.
    let mut fields = Fields::parse(&body)?;
    let names = account_names(backend, &mut fields);
    let with_token = fields.optional_flag("session_token").unwrap_or_default();
    fields.check()?;
    let request_id = parts.extensions.get::<RequestId>();
    let attempt = Attempt {
        names,
        body,
        content_type: parts.headers.get(header::CONTENT_TYPE),
        request_id: request_id.map_or("", RequestId::as_str),
        held: auth::held(&parts.headers, live),
    };
    let visitor = auth::visitor(&parts.headers, client);
    let mut limits = Vec::new();
    let outcome = desk
        .accounts
        .sign_in_by_backend(live, backend, attempt, &visitor, &mut limits)
        .await;
    let (signed_in, answer) = match auth::counted(desk, SignInMethod::Upstream, outcome) {
        Ok(outcome) => outcome,
        Err(refused) => return Err(refused.with_limits(limits)),
    };
    let cookies = cookies(backend, live, &answer);
    let mut response = match backend.answer {
        Answer::Replace => auth::welcome(StatusCode::OK, live, Ok(signed_in), limits, with_token)?,
        Answer::Pass => {
            let mut response = passed_on(live, &signed_in, answer);
            response
                .extensions_mut()
                .insert(Noted::of(&signed_in, limits));
            response
        }
    };
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Everything in the body that may name the account. What is wrong with a name is noted.
fn account_names(backend: &Backend, fields: &mut Fields) -> Vec<AccountName> {
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    let members = backend.account.iter();
    for (name, value) in members
        .flat_map(|member| fields.spelled(member))
        .take(NAMES_MAX + 1)
    {
        let text = value.as_str().ok_or("must be a string");
        match text.and_then(AccountName::read) {
            Ok(name) => found.push(name),
            Err(problem) => wrong.push((name.to_owned(), problem)),
        }
    }
    let count = found.len() + wrong.len();
    for (name, problem) in wrong {
        fields.problem(&name, problem);
    }
    if let Some(member) = backend.account.first() {
        match count {
            0 => fields.problem(member, "is missing"),
            1..=NAMES_MAX => {}
            _ => fields.problem(member, "is given in too many spellings"),
        }
    }
    found
}

/// The backend's cookies that may go on: never one that is the gateway's.
pub(super) fn cookies(backend: &Backend, live: &Live, answer: &BackendAnswer) -> Vec<HeaderValue> {
    if !backend.pass_set_cookie {
        return Vec::new();
    }
    let own = &live.sessions.cookie.name;
    let set = answer.headers.get_all(header::SET_COOKIE).iter();
    set.filter(|cookie| !credential::set_cookie_is_ours(cookie, own))
        .cloned()
        .collect()
}

/// The backend's answer, with the session added.
fn passed_on(live: &Live, signed_in: &SignedIn, answer: BackendAnswer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    for name in [header::CONTENT_TYPE, header::CONTENT_LANGUAGE] {
        if let Some(value) = answer.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    if let Ok(id) = HeaderValue::from_str(&signed_in.session.session.id.to_string()) {
        headers.insert(SESSION_HEADER, id);
    }
    if let Some(token) = &signed_in.session_token {
        let cookie = credential::session_cookie(&live.sessions.cookie, token, live.sessions.ttl);
        headers.append(header::SET_COOKIE, cookie);
    }
    response
}
