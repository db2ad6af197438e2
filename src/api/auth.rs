//! Register, sign in, refresh, sign out.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::accounts::{Credentials, Failure, NewUser, SignedIn, Visitor, names};
use crate::admission::{Client, Identity, PresentedBy};
use crate::credential::{self, Presented};
use crate::events::{Event, Kind};
use crate::limits::Decision;
use crate::refusal::Refusal;
use crate::session::{Device, Millis, SessionToken};
use crate::settings::Live;
use crate::token::Claims;

use super::answer::{self, Noted, Refused};
use super::body::Fields;
use super::origin;
use super::view::{self, Sight};
use super::{Caller, Desk, ExpiredClaims};

pub(super) const SESSION_HEADER: HeaderName = HeaderName::from_static("x-session-id");
/// Characters that are kept of what a client says about itself.
const DEVICE_MAX: usize = 128;
const USER_AGENT_MAX: usize = 512;

/// `POST auth/register`: creates a user, then signs in.
pub(super) async fn register(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Refused> {
    let live = desk.live.load_full();
    let (parts, body) = from_here(&desk, &live, &client, request)?;
    if !live.identity.registration_open {
        return Err(Refusal::RegistrationClosed.into());
    }
    let mut fields = Fields::read(&parts.headers, body).await?;
    let new = NewUser {
        email: fields.text("email"),
        username: fields.optional_text("username"),
        name: fields.optional_text("name"),
        password: fields.text("password").into(),
        roles: Vec::new(),
        scopes: Vec::new(),
    };
    let with_token = fields.optional_flag("session_token").unwrap_or_default();
    let new = fields.check_with(new.check(live.identity.password_min_length))?;
    let (held, visitor) = (
        held(&parts.headers, &live),
        visitor(&parts.headers, &client),
    );
    let mut limits = Vec::new();
    let registered = desk
        .accounts
        .register(&live, new, held, &visitor, &mut limits)
        .await;
    welcome(StatusCode::CREATED, &live, registered, limits, with_token)
}

/// `POST auth/login`.
pub(super) async fn sign_in(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Refused> {
    let live = desk.live.load_full();
    let (parts, body) = from_here(&desk, &live, &client, request)?;
    if let Some(backend) = &live.identity.backend {
        return super::backend::sign_in(&desk, &live, backend, &client, &parts, body).await;
    }
    let mut fields = Fields::read(&parts.headers, body).await?;
    let login = if !fields.has("email") && fields.has("username") {
        fields.text("username")
    } else {
        fields.text("email")
    };
    let password = fields.text("password");
    if let Err(problem) = names::typed_password(&password) {
        fields.problem("password", problem);
    }
    let with_token = fields.optional_flag("session_token").unwrap_or_default();
    fields.check()?;
    let credentials = Credentials {
        login: &login,
        password: &password,
        held: held(&parts.headers, &live),
    };
    let visitor = visitor(&parts.headers, &client);
    let mut limits = Vec::new();
    let signed_in = desk
        .accounts
        .sign_in(&live, credentials, &visitor, &mut limits)
        .await;
    welcome(StatusCode::OK, &live, signed_in, limits, with_token)
}

/// `POST auth/refresh`.
pub(super) async fn refresh(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Refused> {
    let live = desk.live.load_full();
    let (parts, body) = from_here(&desk, &live, &client, request)?;
    let mut fields = Fields::read(&parts.headers, body).await?;
    let token = fields.text("refresh_token");
    fields.check()?;
    let refreshed = desk.accounts.refresh(&live, &token, client.ip).await;
    welcome(StatusCode::OK, &live, refreshed, Vec::new(), false)
}

/// `POST auth/logout`: 204, also when everything was gone already.
pub(super) async fn sign_out(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    caller: Option<Extension<Caller>>,
    expired: Option<Extension<ExpiredClaims>>,
    request: Request,
) -> Result<Response, Refused> {
    let live = desk.live.load_full();
    let (parts, body) = from_here(&desk, &live, &client, request)?;
    let identity = match caller.map_or(Ok(None), |Extension(Caller(found))| found) {
        Ok(identity) => identity,
        Err(refusal) if is_gone(refusal) || expired.is_some() => None,
        Err(refusal) => return Err(refusal.into()),
    };
    let by_cookie = matches!(
        credential::extract(&parts.headers, &live.sessions.cookie.name),
        Presented::Cookie(_) | Presented::MalformedCookie
    );
    if by_cookie {
        must_be_same_origin(&desk, &live, &client, &parts.headers)?;
    }
    let mut fields = Fields::read_optional(&parts.headers, body).await?;
    let refresh_token = fields.optional_text("refresh_token");
    fields.check()?;
    if let Some(identity) = &identity {
        leave(&desk, &client, identity, live.sessions.idle_timeout).await?;
    }
    if let Some(Extension(ExpiredClaims(claims))) = expired
        && let Some(session) = claims.session
    {
        let idle = live.sessions.idle_timeout;
        desk.accounts
            .sign_out(session, Some(client.ip), idle)
            .await?;
    }
    if let Some(token) = refresh_token {
        desk.accounts
            .sign_out_by_refresh(&live, &token, Some(client.ip))
            .await?;
    }
    let mut response = answer::nothing();
    for cookie in credential::clearing_cookies(&live.sessions.cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Ends what the caller signed in with: the session, and the access token even if it has none.
pub(super) async fn leave(
    desk: &Desk,
    client: &Client,
    identity: &Identity,
    idle: Option<Duration>,
) -> Result<(), Refused> {
    if let Some(token) = &identity.token {
        blacklist(desk, client, token).await?;
    }
    if let Some(session) = &identity.session {
        desk.accounts
            .sign_out(session.id, Some(client.ip), idle)
            .await?;
    }
    Ok(())
}

async fn blacklist(desk: &Desk, client: &Client, claims: &Claims) -> Result<(), Refused> {
    let live = desk.live.load();
    let leeway = live.tokens.leeway;
    let now: Millis = desk.store.now().await?;
    let left = Duration::from_millis(claims.expires_at.saturating_sub(now)) + leeway;
    // A second more: stores round down, and a token outliving its refusal would be valid again.
    let ttl = left + Duration::from_secs(1);
    desk.accounts
        .blacklist(&claims.blacklist_key, ttl, Some(client.ip))
        .await?;
    Ok(())
}

/// The session is over already: nothing is left to sign out from.
fn is_gone(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::SessionNotFound
            | Refusal::SessionExpired
            | Refusal::SessionRevoked
            | Refusal::TokenRevoked
    )
}

/// Refuses what a browser says comes from another site: signing somebody in (to the attacker's
/// account) or out is an attack too.
fn from_here(
    desk: &Desk,
    live: &Live,
    client: &Client,
    request: Request,
) -> Result<(Parts, Body), Refused> {
    let (parts, body) = request.into_parts();
    if origin::is_foreign(&parts.headers, client, allowed_origins(live)) {
        return Err(csrf_rejected(desk, client));
    }
    Ok((parts, body))
}

/// Refuses a call that changes something by a cookie, unless it says that it comes from here.
pub(super) fn must_be_same_origin(
    desk: &Desk,
    live: &Live,
    client: &Client,
    headers: &HeaderMap,
) -> Result<(), Refused> {
    if origin::same_origin(headers, client, allowed_origins(live)) {
        Ok(())
    } else {
        Err(csrf_rejected(desk, client))
    }
}

/// The same, for a caller known to be authenticated, and only if it was by cookie.
pub(super) fn guard_change(
    desk: &Desk,
    client: &Client,
    identity: &Identity,
    headers: &HeaderMap,
) -> Result<(), Refused> {
    if identity.presented == PresentedBy::Cookie {
        must_be_same_origin(desk, &desk.live.load(), client, headers)?;
    }
    Ok(())
}

fn csrf_rejected(desk: &Desk, client: &Client) -> Refused {
    desk.events
        .record(Event::new(Kind::CsrfRejected).ip(client.ip));
    Refusal::CsrfRejected.into()
}

fn allowed_origins(live: &Live) -> &[String] {
    live.api.as_ref().map_or(&[], |api| &api.allowed_origins)
}

/// The session cookie that the browser holds, whatever `Authorization` says.
pub(super) fn held(headers: &HeaderMap, live: &Live) -> Option<SessionToken> {
    match credential::extract(headers, &live.sessions.cookie.name) {
        Presented::Cookie(token) => Some(token),
        _ => None,
    }
}

/// What is kept of whoever signs in.
pub(super) fn visitor(headers: &HeaderMap, client: &Client) -> Visitor {
    let said = |name: &str, max: usize| -> Option<String> {
        let value = headers.get(name)?;
        let text = String::from_utf8_lossy(value.as_bytes());
        let kept: String = text.chars().filter(|c| !c.is_control()).take(max).collect();
        Some(kept).filter(|kept| !kept.is_empty())
    };
    Visitor {
        ip: client.ip,
        user_agent: said("user-agent", USER_AGENT_MAX).unwrap_or_default(),
        device: Device {
            kind: said("x-device-type", DEVICE_MAX),
            name: said("x-device-name", DEVICE_MAX),
        },
    }
}

/// Tells how a sign-in or a refresh went, and how the limits on it stand.
pub(super) fn welcome(
    status: StatusCode,
    live: &Live,
    outcome: Result<SignedIn, Failure>,
    limits: Vec<Decision>,
    with_token: bool,
) -> Result<Response, Refused> {
    let signed_in = match outcome {
        Ok(signed_in) => signed_in,
        Err(failure) => return Err(Refused::from(failure).with_limits(limits)),
    };
    let session = &signed_in.session.session;
    let sight = Sight {
        idle: live.sessions.idle_timeout,
        now: signed_in.session.activity.last_access,
        current: Some(session.id),
        // It is new: nothing is open yet.
        live_of: std::sync::Arc::new(|_| 0),
    };
    let mut data = view::signed_in(&signed_in, &sight);
    if let Some(token) = &signed_in.session_token
        && with_token
        && let Some(data) = data.as_object_mut()
    {
        data.insert("session_token".to_owned(), token.expose().into());
    }
    let mut response = answer::data_with(status, &data);
    response
        .extensions_mut()
        .insert(Noted::of(&signed_in, limits));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&session.id.to_string()) {
        headers.insert(SESSION_HEADER, id);
    }
    if let Some(token) = &signed_in.session_token {
        let cookie = credential::session_cookie(&live.sessions.cookie, token, live.sessions.ttl);
        headers.append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
