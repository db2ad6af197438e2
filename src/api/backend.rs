//! Sign-in where a backend checks credentials.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};

use super::body::{self, BodyFields};
use super::response::ResponseInfo;
use super::sign_in::{self, SESSION_HEADER};
use super::{ApiState, RequestId};
use crate::auth::credential;
use crate::identity::normalize::AccountName;
use crate::identity::{BackendResponse, BackendSignIn, SignedIn};
use crate::limits::Decision;
use crate::pipeline::facts::Client;
use crate::rejection::{Refusal, Rejection};
use crate::settings::Reloadable;
use crate::settings::backend::{BackendSettings, SignInResponse};
use crate::telemetry::metrics::SignInMethod;

/// Maximum number of account names in one body; failures are counted by each.
const NAMES_MAX: usize = 8;

/// `POST auth/login`: forwards the body to the backend unchanged.
pub(super) async fn sign_in(
    state: &ApiState,
    settings: &Reloadable,
    backend: &Arc<BackendSettings>,
    client: &Client,
    parts: &Parts,
    body: Body,
) -> Result<Response, Rejection> {
    if !body::is_json(&parts.headers) {
        return Err(Refusal::UnsupportedMediaType.into());
    }
    let body = body::read_bytes(body).await?;
    // Parsed only to count failures by account. Validation is up to the backend, except for
    // ambiguous members.
    let mut fields = BodyFields::parse(&body)?;
    let names = account_names(backend, &mut fields);
    let with_token = fields.optional_flag("session_token").unwrap_or_default();
    fields.check()?;
    let request_id = parts.extensions.get::<RequestId>();
    let attempt = BackendSignIn {
        names,
        body,
        content_type: parts.headers.get(header::CONTENT_TYPE),
        request_id: request_id.map_or("", RequestId::as_str),
        previous_session: sign_in::cookie_session(&parts.headers, settings),
    };
    let client_info = sign_in::client_info(&parts.headers, client);
    let mut limits = Vec::new();
    let outcome = state
        .accounts
        .sign_in_with_backend(settings, backend, attempt, &client_info, &mut limits)
        .await;
    let (signed_in, backend_response) =
        match sign_in::count_outcome(state, SignInMethod::Upstream, outcome) {
            Ok(signed_in) => signed_in,
            Err(refused) => return Err(refused.with_decisions(limits)),
        };
    let cookies = forwarded_cookies(backend, settings, &backend_response);
    let mut response = match backend.response {
        SignInResponse::Replace => {
            sign_in::respond(StatusCode::OK, settings, Ok(signed_in), limits, with_token)?
        }
        SignInResponse::Pass => {
            pass_through_response(settings, &signed_in, backend_response, limits)
        }
    };
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Returns the account names in the body, recording a problem for each invalid one.
fn account_names(backend: &BackendSettings, fields: &mut BodyFields) -> Vec<AccountName> {
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    let members = backend.account.iter();
    for (name, value) in members
        .flat_map(|member| fields.spellings_of(member))
        .take(NAMES_MAX + 1)
    {
        let text = value.as_str().ok_or("must be a string");
        match text.and_then(AccountName::parse) {
            Ok(name) => found.push(name),
            Err(problem) => wrong.push((name.to_owned(), problem)),
        }
    }
    let count = found.len() + wrong.len();
    for (name, problem) in wrong {
        fields.add_error(&name, problem);
    }
    if let Some(member) = backend.account.first() {
        match count {
            0 => fields.add_error(member, "is missing"),
            1..=NAMES_MAX => {}
            _ => fields.add_error(member, "is given in too many spellings"),
        }
    }
    found
}

/// Returns the backend's cookies that may be forwarded: none with a name of the gateway's cookies.
pub(super) fn forwarded_cookies(
    backend: &BackendSettings,
    settings: &Reloadable,
    backend_response: &BackendResponse,
) -> Vec<HeaderValue> {
    if !backend.pass_set_cookie {
        return Vec::new();
    }
    let own = &settings.sessions.cookie.name;
    let set = backend_response.headers.get_all(header::SET_COOKIE).iter();
    set.filter(|cookie| !credential::sets_own_cookie(cookie.as_bytes(), own))
        .cloned()
        .collect()
}

/// Forwards the backend's response, adding the session.
fn pass_through_response(
    settings: &Reloadable,
    signed_in: &SignedIn,
    backend_response: BackendResponse,
    limits: Vec<Decision>,
) -> Response {
    let mut response = Response::new(Body::from(backend_response.body));
    *response.status_mut() = backend_response.status;
    let headers = response.headers_mut();
    for name in [header::CONTENT_TYPE, header::CONTENT_LANGUAGE] {
        if let Some(value) = backend_response.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    if let Ok(id) = HeaderValue::from_str(&signed_in.session.session.id.to_string()) {
        headers.insert(SESSION_HEADER, id);
    }
    if let Some(cookie) = sign_in::session_cookie(settings, signed_in) {
        headers.append(header::SET_COOKIE, cookie);
    }
    response
        .extensions_mut()
        .insert(ResponseInfo::for_sign_in(signed_in, limits));
    response
}
