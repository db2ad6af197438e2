//! Registration, sign-in and refresh.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use utoipa::ToSchema;

use super::ApiState;
use super::body::BodyFields;
use super::caller::require_not_cross_site;
use super::response::{self, ResponseInfo};
use super::view::{self, SignedInView, Success, ViewContext};
use crate::auth::credential;
use crate::auth::credential::PresentedCredential;
use crate::auth::session::{Device, SessionToken};
use crate::identity::{AccountError, ClientInfo, Credentials, NewUser, SignedIn, normalize};
use crate::limits::Decision;
use crate::pipeline::admission::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::Reloadable;
use crate::telemetry::metrics::SignInMethod;

pub(super) const SESSION_HEADER: HeaderName = HeaderName::from_static("x-session-id");
/// Maximum length of device headers, in characters.
const DEVICE_MAX: usize = 128;
const USER_AGENT_MAX: usize = 512;

/// A registration.
#[derive(ToSchema)]
#[schema(example = json!({"email": "ann@example.com", "password": "correct horse battery", "name": "Ann"}))]
struct Registration {
    /// Visible ASCII with exactly one `@`; stored in lower case.
    #[schema(
        max_length = 254,
        pattern = "^[!-?A-~]+@[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)*$"
    )]
    email: String,
    /// At least `password_min_length` characters; no composition rules.
    #[schema(min_length = 8, max_length = 1024)]
    password: String,
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    username: Option<String>,
    #[schema(max_length = 200)]
    name: Option<String>,
    /// Adds the session token to the response, for programs without cookies.
    session_token: Option<bool>,
}

impl Registration {
    fn read(fields: &mut BodyFields) -> Registration {
        Registration {
            email: fields.text("email"),
            password: fields.text("password"),
            username: fields.optional_text("username"),
            name: fields.optional_text("name"),
            session_token: fields.optional_flag("session_token"),
        }
    }
}

/// Register
///
/// Creates a user and signs in.
#[utoipa::path(
    post,
    path = "/auth/register",
    tag = "auth",
    request_body = Registration,
    responses(
        (status = 201, description = "The user, a session and its tokens; also sets the session cookie", body = Success<SignedInView>),
        (status = 403, description = "Registration is closed, or the call comes from another site"),
        (status = 409, description = "The email or the username is taken"),
        (status = 429, description = "Too many attempts from this address"),
    ),
)]
pub(super) async fn register(
    State(desk): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = reject_cross_site(&desk, settings, &client, request)?;
    if !settings.identity.registration_open {
        return Err(Refusal::RegistrationClosed.into());
    }
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    let typed = Registration::read(&mut fields);
    let new = NewUser {
        email: typed.email,
        username: typed.username,
        name: typed.name,
        password: typed.password.into(),
        roles: Vec::new(),
        scopes: Vec::new(),
        disabled: false,
    };
    let with_token = typed.session_token.unwrap_or_default();
    let new = fields.check_with(new.check(settings.identity.passwords))?;
    let (held, visitor) = (
        cookie_session(&parts.headers, settings),
        client_info(&parts.headers, &client),
    );
    let mut limits = Vec::new();
    let registered = desk
        .accounts
        .register(settings, new, held, &visitor, &mut limits)
        .await
        .map_err(Rejection::from);
    sign_in_response(
        StatusCode::CREATED,
        settings,
        registered,
        limits,
        with_token,
    )
}

/// Credentials: one of `email` and `username`, and the password.
#[derive(ToSchema)]
#[schema(example = json!({"email": "ann@example.com", "password": "correct horse battery"}))]
struct Login {
    email: Option<String>,
    /// Used if `email` is absent.
    username: Option<String>,
    #[schema(max_length = 1024)]
    password: String,
    /// Adds the session token to the response, for programs without cookies.
    session_token: Option<bool>,
}

impl Login {
    fn read(fields: &mut BodyFields) -> Login {
        if !fields.has("email") && !fields.has("username") {
            fields.add_error("email", "is missing");
        }
        let login = Login {
            email: fields.optional_text("email"),
            username: fields.optional_text("username"),
            password: fields.text("password"),
            session_token: fields.optional_flag("session_token"),
        };
        if let Err(problem) = normalize::check_sign_in_password(&login.password) {
            fields.add_error("password", problem);
        }
        login
    }
}

/// Sign in
///
/// An unknown name, a wrong password and a disabled user get the same response.
#[utoipa::path(
    post,
    path = "/auth/login",
    tag = "auth",
    request_body = Login,
    responses(
        (status = 200, description = "A session and its tokens; also sets the session cookie", body = Success<SignedInView>),
        (status = 401, description = "The name or the password is wrong"),
        (status = 403, description = "The call comes from another site"),
        (status = 429, description = "Too many attempts, or the session limit is reached"),
    ),
)]
pub(super) async fn sign_in(
    State(desk): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = reject_cross_site(&desk, settings, &client, request)
        .inspect_err(|refused| count_unread(&desk, settings, refused.refusal))?;
    if let Some(backend) = &settings.identity.backend {
        return super::backend::sign_in(&desk, settings, backend, &client, &parts, body).await;
    }
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    let typed = Login::read(&mut fields);
    fields.check()?;
    let credentials = Credentials {
        login: &typed.email.or(typed.username).unwrap_or_default(),
        password: &typed.password,
        previous_session: cookie_session(&parts.headers, settings),
    };
    let with_token = typed.session_token.unwrap_or_default();
    let visitor = client_info(&parts.headers, &client);
    let mut limits = Vec::new();
    let signed_in = desk
        .accounts
        .sign_in(settings, credentials, &visitor, &mut limits)
        .await;
    let signed_in = count_outcome(&desk, SignInMethod::Password, signed_in);
    sign_in_response(StatusCode::OK, settings, signed_in, limits, with_token)
}

/// A refresh token to exchange.
#[derive(ToSchema)]
#[schema(example = json!({"refresh_token": "<session id>.<secret>"}))]
struct Refresh {
    refresh_token: String,
}

/// Refresh
///
/// Exchanges a refresh token for its successor and a new access token. Presenting it again within
/// the grace time yields the same successor; later it is reuse and ends the session.
#[utoipa::path(
    post,
    path = "/auth/refresh",
    tag = "auth",
    request_body = Refresh,
    responses(
        (status = 200, description = "New tokens of the same session", body = Success<SignedInView>),
        (status = 401, description = "The refresh token is unknown, expired or already used, or its session has ended or is bound to another client"),
        (status = 403, description = "The call comes from another site"),
    ),
)]
pub(super) async fn refresh(
    State(desk): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = reject_cross_site(&desk, settings, &client, request)?;
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    let typed = Refresh {
        refresh_token: fields.text("refresh_token"),
    };
    fields.check()?;
    let visitor = client_info(&parts.headers, &client);
    let refreshed = desk
        .accounts
        .refresh(settings, &typed.refresh_token, &visitor)
        .await
        .map_err(Rejection::from);
    sign_in_response(StatusCode::OK, settings, refreshed, Vec::new(), false)
}

/// Splits a request, unless a browser says that it comes from another site: signing a user in (to
/// the attacker's account) or out is an attack too.
pub(super) fn reject_cross_site(
    desk: &ApiState,
    settings: &Reloadable,
    client: &Client,
    request: Request,
) -> Result<(Parts, Body), Rejection> {
    let (parts, body) = request.into_parts();
    require_not_cross_site(desk, settings, client, &parts.headers)?;
    Ok((parts, body))
}

/// The session cookie that the browser holds, whatever `Authorization` says.
pub(super) fn cookie_session(headers: &HeaderMap, settings: &Reloadable) -> Option<SessionToken> {
    match credential::extract_cookie(headers, &settings.sessions.cookie.name) {
        PresentedCredential::Cookie(token) => Some(token),
        _ => None,
    }
}

/// What a session keeps about the client that signed in.
pub(super) fn client_info(headers: &HeaderMap, client: &Client) -> ClientInfo {
    let said = |name: &str, max: usize| -> Option<String> {
        let value = headers.get(name)?;
        let text = String::from_utf8_lossy(value.as_bytes());
        let kept: String = text.chars().filter(|c| !c.is_control()).take(max).collect();
        Some(kept).filter(|kept| !kept.is_empty())
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
    desk: &ApiState,
    method: SignInMethod,
    outcome: Result<T, AccountError>,
) -> Result<T, Rejection> {
    let outcome = outcome.map_err(Rejection::from);
    let refusal = outcome.as_ref().err().map(|refused| refused.refusal);
    desk.accounts.count_sign_in(method, refusal);
    outcome
}

/// Counts a sign-in that is refused before its password is read.
pub(super) fn count_unread(desk: &ApiState, settings: &Reloadable, refusal: Refusal) {
    let method = match &settings.identity.backend {
        Some(_) => SignInMethod::Upstream,
        None => SignInMethod::Password,
    };
    desk.accounts.count_sign_in(method, Some(refusal));
}

/// Tells how a sign-in or a refresh went, and how the limits on it stand.
pub(super) fn sign_in_response(
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
    let sight = ViewContext {
        idle: settings.sessions.idle_timeout,
        now: signed_in.session.activity.last_access,
        current: Some(session.id),
        // It is new: nothing is open yet.
        count_open_streams: Arc::new(|_| 0),
    };
    let data = view::signed_in(&signed_in, &sight, with_token);
    let mut response = response::data_with_status(status, &data);
    response
        .extensions_mut()
        .insert(ResponseInfo::for_sign_in(&signed_in, limits));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&session.id.to_string()) {
        headers.insert(SESSION_HEADER, id);
    }
    if let Some(token) = &signed_in.session_token {
        let cookie =
            credential::session_cookie(&settings.sessions.cookie, token, settings.sessions.ttl);
        headers.append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
