//! Steps that all sign-ins share, with built-in users or a backend.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::ApiState;
use super::response::{self, ResponseInfo};
use super::view::{self, ViewContext};
use crate::auth::credential::{self, PresentedCredential};
use crate::auth::session::{Device, SessionToken};
use crate::identity::{AccountError, ClientInfo, SignedIn};
use crate::limits::Decision;
use crate::pipeline::facts::Client;
use crate::rejection::{Refusal, Rejection};
use crate::settings::{IdentitySource, Reloadable};
use crate::telemetry::metrics::SignInMethod;

pub(super) const SESSION_HEADER: HeaderName = HeaderName::from_static("x-session-id");
/// Characters that are kept of what a client says about itself.
const DEVICE_MAX: usize = 128;
const USER_AGENT_MAX: usize = 512;

/// The session cookie that the browser holds, whatever `Authorization` says.
pub(super) fn cookie_session(headers: &HeaderMap, settings: &Reloadable) -> Option<SessionToken> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let cookies = cookies.map(HeaderValue::as_bytes);
    match credential::extract_cookie(cookies, &settings.sessions.cookie.name) {
        PresentedCredential::Cookie(token) => Some(token),
        _ => None,
    }
}

/// What a session keeps about the client that signed in.
pub(super) fn client_info(headers: &HeaderMap, client: &Client) -> ClientInfo {
    let said = |name: &str, max: usize| -> Option<String> {
        let value = headers.get(name)?;
        let text = String::from_utf8_lossy(value.as_bytes());
        let text: String = text.chars().filter(|c| !c.is_control()).take(max).collect();
        Some(text).filter(|text| !text.is_empty())
    };
    ClientInfo {
        ip: client.ip,
        user_agent: said("user-agent", USER_AGENT_MAX).unwrap_or_default(),
        device: Device {
            kind: said("x-device-type", DEVICE_MAX).map(Into::into),
            name: said("x-device-name", DEVICE_MAX).map(Into::into),
        },
    }
}

/// Counts a sign-in by its outcome, and turns a failure into its refusal.
pub(super) fn count_outcome<T>(
    state: &ApiState,
    method: SignInMethod,
    outcome: Result<T, AccountError>,
) -> Result<T, Rejection> {
    let outcome = outcome.map_err(Rejection::from);
    let refusal = outcome.as_ref().err().map(|refused| refused.refusal);
    state.accounts.count_sign_in(method, refusal);
    outcome
}

/// Counts a sign-in that is refused before its password is read.
pub(super) fn count_unread(state: &ApiState, settings: &Reloadable, refusal: Refusal) {
    let method = match settings.identity.source {
        IdentitySource::Builtin => SignInMethod::Password,
        IdentitySource::Backend(_) => SignInMethod::Upstream,
        IdentitySource::NoPasswords => return,
    };
    state.accounts.count_sign_in(method, Some(refusal));
}

/// Responds to a sign-in or a refresh, with its limits.
pub(super) fn respond(
    status: StatusCode,
    settings: &Reloadable,
    outcome: Result<SignedIn, Rejection>,
    limits: Vec<Decision>,
    with_token: bool,
) -> Result<Response, Rejection> {
    let signed_in = match outcome {
        Ok(signed_in) => signed_in,
        Err(refused) => return Err(refused.with_decisions(limits)),
    };
    let session = &signed_in.session.session;
    let context = ViewContext {
        idle: settings.sessions.idle_timeout,
        now: signed_in.session.activity.last_access,
        current: Some(session.id),
        // It is new: nothing is open yet.
        count_open_streams: Arc::new(|_| 0),
    };
    let data = view::signed_in(&signed_in, &context, with_token);
    let mut response = response::data_with_status(status, &data);
    response
        .extensions_mut()
        .insert(ResponseInfo::for_sign_in(&signed_in, limits));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&session.id.to_string()) {
        headers.insert(SESSION_HEADER, id);
    }
    if let Some(cookie) = session_cookie(settings, &signed_in) {
        headers.append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The cookie of a new session, if the client is to keep its token in one. It lives as long as the
/// session can.
pub(super) fn session_cookie(settings: &Reloadable, signed_in: &SignedIn) -> Option<HeaderValue> {
    let token = signed_in.session_token.as_ref()?;
    let session = &signed_in.session.session;
    let ttl = Duration::from_millis(session.expires_at.saturating_sub(session.created_at));
    Some(credential::session_cookie(
        &settings.sessions.cookie,
        token,
        ttl,
    ))
}
