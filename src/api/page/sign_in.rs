//! `GET` and `POST sign-in`.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use url::{Url, form_urlencoded};

use super::super::response::{ResponseInfo, clear_cookie};
use super::super::{ApiState, Caller, RequestId, backend, return_to, sign_in};
use super::form_fields::FormFields;
use super::form_token::{self, FormToken};
use super::{PageError, html, is_signed_in, only_provider, page_path, page_response, see_other};
use crate::identity::normalize::AccountName;
use crate::identity::{AccountError, BackendSignIn, Credentials, SignedIn};
use crate::limits::Decision;
use crate::pipeline::facts::Client;
use crate::pipeline::same_origin;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::SIGN_IN_PAGE;
use crate::settings::backend::BackendSettings;
use crate::settings::{IdentitySource, Reloadable};
use crate::telemetry::metrics::SignInMethod;

/// Shows the form; signed-in users are redirected to their destination.
pub(super) async fn show(
    State(state): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let target = return_to::from_query(request.uri().query(), return_to::listed_hosts(settings));
    let caller = caller.map(|Extension(caller)| caller);
    let only = settings.identity.only_provider();
    if let Some(provider) = only.and_then(|only| snapshot.providers.get(&only.name)) {
        let (caller, navigates) = (caller.as_ref(), only_provider::navigates(&request));
        let call = only_provider::Call {
            state: &state,
            settings,
            provider,
            client: &client,
            caller,
        };
        return call.show(navigates, target).await;
    }
    let problem = match is_signed_in(caller.as_ref()) {
        // The sign-in of the session does not satisfy the page that was asked for.
        Ok(true) if asks_anew(request.uri().query()) => None,
        Ok(true) => return Ok(see_other(&target)),
        Ok(false) if matches!(caller, Some(Caller(Ok(None)))) => {
            let is_cookie_kept = !comes_from_sign_in(request.headers(), &client, settings);
            (!is_cookie_kept).then(|| PageError {
                text: settings.pages.texts.cookie_not_kept.clone(),
                rejection: None,
            })
        }
        Ok(false) => None,
        Err(unknown) => Some(PageError::new(unknown, &settings.pages)),
    };
    let response = form_response(settings, request.headers(), &target, "", problem);
    let is_rejected = |Caller(found): Caller| {
        found.is_err_and(|rejection| rejection.refusal.status().is_client_error())
    };
    // Remove the rejected cookie, or it would conflict with the new one after sign-in.
    if caller.is_some_and(is_rejected) {
        return Ok(clear_cookie(response));
    }
    Ok(response)
}

/// Whether a signed-in user is to sign in anew.
fn asks_anew(query: Option<&str>) -> bool {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.any(|(name, value)| name == "prompt" && value == "login")
}

/// Whether the sign-in page redirected the browser here, which means that it did not keep the
/// cookie.
fn comes_from_sign_in(headers: &HeaderMap, client: &Client, settings: &Reloadable) -> bool {
    let referer = headers.get(header::REFERER);
    let referer = referer.and_then(|referer| Url::parse(referer.to_str().ok()?).ok());
    referer.is_some_and(|referer| {
        let origin = referer.origin().ascii_serialization();
        referer.path() == page_path(settings, SIGN_IN_PAGE)
            && same_origin::origin_matches_host(&origin, &client.host, client.https)
    })
}

/// Signs the user in and redirects to their destination.
pub(super) async fn submit(
    State(state): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = request.into_parts();
    let sent = FormFields::read(&parts.headers, body).await?;
    let target = &return_to::resolve(&sent.return_to, return_to::listed_hosts(settings));
    let again = |login: &str, problem| {
        form_response(settings, &parts.headers, target, login, Some(problem))
    };
    if !form_token::is_own_form(
        &parts.headers,
        &client,
        &sent.token,
        &settings.sessions.cookie,
    ) {
        sign_in::count_unread(&state, settings, Refusal::CsrfRejected);
        return Ok(again(
            "",
            PageError::cross_site_form(&state, &client, &settings.pages),
        ));
    }
    let mut limits = Vec::new();
    let signed_in = sign_in(&state, settings, &client, &parts, &sent, &mut limits).await;
    let (signed_in, backend_cookies) = match signed_in {
        Ok(signed_in) => signed_in,
        Err(refused) => {
            let problem = PageError::new(refused.with_decisions(limits), &settings.pages);
            return Ok(again(&sent.login, problem));
        }
    };
    let mut response = see_other(target);
    let session_cookie = sign_in::session_cookie(settings, &signed_in);
    for cookie in session_cookie.into_iter().chain(backend_cookies) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    let info = ResponseInfo::for_sign_in(&signed_in, limits);
    response.extensions_mut().insert(info);
    Ok(response)
}

/// Signs in with the submitted form, at the configured source; returns the backend's cookies too.
async fn sign_in(
    state: &ApiState,
    settings: &Reloadable,
    client: &Client,
    parts: &Parts,
    sent: &FormFields,
    limits: &mut Vec<Decision>,
) -> Result<(SignedIn, Vec<HeaderValue>), Rejection> {
    match &settings.identity.source {
        IdentitySource::Backend(backend) => {
            let outcome =
                sign_in_with_backend(state, settings, backend, client, parts, sent, limits).await;
            sign_in::count_outcome(state, SignInMethod::Upstream, outcome)
        }
        IdentitySource::Builtin => {
            let outcome = sign_in_with_password(state, settings, client, parts, sent, limits).await;
            sign_in::count_outcome(state, SignInMethod::Password, outcome)
        }
        IdentitySource::NoPasswords => Err(Refusal::NotFound.into()),
    }
}

async fn sign_in_with_password(
    state: &ApiState,
    settings: &Reloadable,
    client: &Client,
    parts: &Parts,
    sent: &FormFields,
    limits: &mut Vec<Decision>,
) -> Result<(SignedIn, Vec<HeaderValue>), AccountError> {
    let credentials = Credentials {
        login: &sent.login,
        password: &sent.password,
        previous_session: sign_in::cookie_session(&parts.headers, settings),
    };
    let client_info = sign_in::client_info(&parts.headers, client);
    let signed_in = state
        .accounts
        .sign_in(settings, credentials, &client_info, limits)
        .await?;
    Ok((signed_in, Vec::new()))
}

/// Sends the backend the JSON that its own login page would send.
async fn sign_in_with_backend(
    state: &ApiState,
    settings: &Reloadable,
    backend: &Arc<BackendSettings>,
    client: &Client,
    parts: &Parts,
    sent: &FormFields,
    limits: &mut Vec<Decision>,
) -> Result<(SignedIn, Vec<HeaderValue>), AccountError> {
    let name = AccountName::parse(&sent.login)
        .map_err(|problem| Rejection::invalid_field("login", problem))?;
    let body = json!({ login_member(backend, &sent.login): sent.login, "password": sent.password });
    let request_id = parts.extensions.get::<RequestId>();
    let attempt = BackendSignIn {
        names: vec![name],
        body: body.to_string().into(),
        content_type: Some(&HeaderValue::from_static("application/json")),
        request_id: request_id.map_or("", RequestId::as_str),
        previous_session: sign_in::cookie_session(&parts.headers, settings),
    };
    let client_info = sign_in::client_info(&parts.headers, client);
    let (signed_in, response) = state
        .accounts
        .sign_in_with_backend(settings, backend, attempt, &client_info, limits)
        .await?;
    Ok((
        signed_in,
        backend::forwarded_cookies(backend, settings, &response),
    ))
}

/// Selects the member of the backend's login body: the first configured name for email addresses,
/// the second, if any, for other names.
fn login_member<'b>(backend: &'b BackendSettings, login: &str) -> &'b str {
    let mut members = backend.account.iter().map(String::as_str);
    let first = members.next().unwrap_or("email");
    if login.contains('@') {
        first
    } else {
        members.next().unwrap_or(first)
    }
}

/// The links to all providers, in the order of the configuration.
fn provider_links<'s>(settings: &'s Reloadable, target: &str) -> Vec<html::ProviderLink<'s>> {
    let back = utf8_percent_encode(target, NON_ALPHANUMERIC);
    let providers = settings.identity.providers.iter();
    let links = providers.map(|provider| html::ProviderLink {
        title: &provider.title,
        start: page_path(
            settings,
            &format!("/auth/start/{}?return_to={back}", provider.name),
        ),
    });
    links.collect()
}

fn form_response(
    settings: &Reloadable,
    headers: &HeaderMap,
    target: &str,
    login: &str,
    problem: Option<PageError>,
) -> Response {
    let token = FormToken::for_form(headers, &settings.sessions.cookie);
    let action = page_path(settings, SIGN_IN_PAGE);
    let has_passwords = settings.identity.source != IdentitySource::NoPasswords;
    let page = html::sign_in(&html::SignInPage {
        pages: &settings.pages,
        providers: provider_links(settings, target),
        form: has_passwords.then(|| html::PasswordForm {
            action: &action,
            return_to: target,
            token: token.as_ref().map_or("", FormToken::as_str),
            login,
        }),
        problem: problem.as_ref(),
    });
    page_response(problem, page, token.as_ref(), settings)
}
