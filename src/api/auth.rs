//! Registration, sign-in and refresh.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use utoipa::ToSchema;

use super::body::BodyFields;
use super::caller::reject_cross_site;
use super::view::{SignedInView, Success};
use super::{ApiState, backend, sign_in};
use crate::identity::{Credentials, NewUser, normalize};
use crate::pipeline::facts::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Refusal, Rejection};
use crate::settings::{IdentitySource, Reloadable};
use crate::telemetry::metrics::SignInMethod;

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
    State(state): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = reject_cross_site(&state, settings, &client, request)?;
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
    let (held, client_info) = (
        sign_in::cookie_session(&parts.headers, settings),
        sign_in::client_info(&parts.headers, &client),
    );
    let mut limits = Vec::new();
    let registered = state
        .accounts
        .register(settings, new, held, &client_info, &mut limits)
        .await
        .map_err(Rejection::from);
    sign_in::respond(
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
    State(state): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = reject_cross_site(&state, settings, &client, request)
        .inspect_err(|refused| sign_in::count_unread(&state, settings, refused.refusal))?;
    match &settings.identity.source {
        IdentitySource::Builtin => {
            sign_in_with_password(&state, settings, &client, &parts.headers, body).await
        }
        IdentitySource::Backend(backend) => {
            backend::sign_in(&state, settings, backend, &client, &parts, body).await
        }
        IdentitySource::NoPasswords => Err(Refusal::NotFound.into()),
    }
}

async fn sign_in_with_password(
    state: &ApiState,
    settings: &Reloadable,
    client: &Client,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Rejection> {
    let mut fields = BodyFields::read(headers, body).await?;
    let typed = Login::read(&mut fields);
    fields.check()?;
    let credentials = Credentials {
        login: &typed.email.or(typed.username).unwrap_or_default(),
        password: &typed.password,
        previous_session: sign_in::cookie_session(headers, settings),
    };
    let with_token = typed.session_token.unwrap_or_default();
    let client_info = sign_in::client_info(headers, client);
    let mut limits = Vec::new();
    let signed_in = state
        .accounts
        .sign_in(settings, credentials, &client_info, &mut limits)
        .await;
    let signed_in = sign_in::count_outcome(state, SignInMethod::Password, signed_in);
    sign_in::respond(StatusCode::OK, settings, signed_in, limits, with_token)
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
    State(state): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Rejection> {
    let settings = &snapshot.settings;
    let (parts, body) = reject_cross_site(&state, settings, &client, request)?;
    let mut fields = BodyFields::read(&parts.headers, body).await?;
    let typed = Refresh {
        refresh_token: fields.text("refresh_token"),
    };
    fields.check()?;
    let client_info = sign_in::client_info(&parts.headers, &client);
    let refreshed = state
        .accounts
        .refresh(settings, &typed.refresh_token, &client_info)
        .await
        .map_err(Rejection::from);
    sign_in::respond(StatusCode::OK, settings, refreshed, Vec::new(), false)
}
