//! `POST introspect` (RFC 7662): a backend asks whether a token is valid here.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::response::Response;
use http::{Extensions, HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Caller, IntrospectToken, body, response};
use crate::auth::credential::CredentialType;
use crate::auth::principal::{Principal, UsedApiKey};
use crate::auth::session::Millis;
use crate::auth::token::{Claims, TokenSource};
use crate::clock;
use crate::identity::RefreshToken;
use crate::pipeline::admission::Identity;
use crate::pipeline::facts::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Reason, Refusal, Rejection, RejectionDetails};
use crate::settings::Reloadable;

/// The scope of keys that may introspect.
const SCOPE: &str = "portcullis:introspect";

/// A token in question.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form")]
pub(in crate::api) struct IntrospectionRequest {
    token: String,
    /// Ignored.
    token_type_hint: Option<String>,
}

/// What a backend learns about a token. One that is not active has no other member.
#[derive(Default, Serialize, ToSchema)]
pub(in crate::api) struct Introspection {
    active: bool,
    /// The user, as upstreams see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    /// By which the token can be blacklisted, or the API key revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// `Session` for a session token, `Bearer` for any other.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// Separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
}

/// Introspect a token
///
/// For backends, with an API key that has the scope `portcullis:introspect`, as bearer token or as the
/// password of Basic. Every kind of token that the gateway accepts, and session tokens. For any other,
/// the response is `{"active": false}`.
#[utoipa::path(
    post,
    path = "/introspect",
    tag = "gateway",
    request_body(
        content = IntrospectionRequest,
        content_type = "application/x-www-form-urlencoded",
    ),
    responses(
        (status = 200, description = "Whether the token is active (RFC 7662)", body = Introspection),
        (status = 401, description = "There is no valid API key with the scope"),
        (status = 503, description = "It is not known whether the key or the token is valid"),
    ),
)]
pub(in crate::api) async fn introspect(
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Rejection> {
    let (parts, sent) = request.into_parts();
    check_caller(&parts.extensions)?;
    let token = read_token(&parts.headers, sent).await?;
    let found = match RefreshToken::parse(&token) {
        // It is sent to no other server.
        Some(_) => None,
        None => {
            let introspect = parts.extensions.get::<IntrospectToken>();
            let IntrospectToken(introspect) = introspect.ok_or(Refusal::Internal)?;
            introspect(token).await?
        }
    };
    let (ip, now) = (client.ip, clock::unix_millis());
    let describe = |subject| Introspection::of(&subject, &snapshot.settings, ip, now);
    let introspection = found.map(describe).unwrap_or_default();
    Ok(response::json(StatusCode::OK, &introspection))
}

/// Checks that the caller has authenticated by an API key with the scope. Every refusal of a key is a 401.
fn check_caller(extensions: &Extensions) -> Result<(), Rejection> {
    let caller = match extensions.get::<Caller>() {
        Some(Caller(Ok(Some(caller)))) => caller,
        Some(Caller(Err(rejection))) if rejection.refusal == Refusal::Forbidden => {
            return Err(Rejection {
                refusal: Refusal::Unauthenticated,
                ..rejection.clone()
            });
        }
        Some(Caller(Err(rejection))) => return Err(rejection.clone()),
        Some(Caller(Ok(None))) | None => {
            return Err(Rejection::new(Refusal::Unauthenticated, Reason::NoApiKey));
        }
    };
    if caller.scopes().iter().any(|scope| scope == SCOPE) {
        return Ok(());
    }
    let details = RejectionDetails {
        scope: Some(SCOPE.to_owned()),
        ..RejectionDetails::default()
    };
    Err(Rejection {
        details: Some(Box::new(details)),
        ..Rejection::new(Refusal::Unauthenticated, Reason::ApiKeyLacksScope)
    })
}

/// The one `token` of a form.
async fn read_token(headers: &HeaderMap, sent: Body) -> Result<String, Rejection> {
    if !body::is_form(headers) {
        return Err(Refusal::UnsupportedMediaType.into());
    }
    let sent = body::read_bytes(sent).await?;
    let mut tokens = url::form_urlencoded::parse(&sent).filter(|(name, _)| name == "token");
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) if !token.is_empty() => Ok(token.into_owned()),
        (_, None) => Err(Rejection::invalid_field("token", "is missing")),
        (_, Some(_)) => Err(Rejection::invalid_field("token", "is given more than once")),
    }
}

impl Introspection {
    /// Describes a token that is active.
    fn of(subject: &Identity, settings: &Reloadable, ip: IpAddr, now: Millis) -> Introspection {
        let scope = subject.scopes().join(" ");
        let common = Introspection {
            active: true,
            sub: Some(subject.user().to_owned()),
            iss: Some(settings.tokens.issuer.clone()),
            token_type: Some(match subject.credential_kind.credential_type() {
                CredentialType::Session => "Session",
                CredentialType::Token | CredentialType::ApiKey => "Bearer",
            }),
            scope: Some(scope).filter(|scope| !scope.is_empty()),
            username: subject.username().map(str::to_owned),
            email: subject.email().map(str::to_owned),
            roles: Some(subject.roles().to_vec()),
            sid: subject.session().map(|session| session.id.to_string()),
            ..Introspection::default()
        };
        match (&subject.token, &subject.principal) {
            (Some(claims), _) | (None, Principal::Token(claims)) => Introspection {
                iss: Some(claims.issuer.clone()),
                aud: audience_of(claims, settings).cloned(),
                exp: claims.stated_expiry(now).map(seconds),
                iat: claims.issued_at.map(seconds),
                jti: Some(claims.blacklist_key.clone()),
                ..common
            },
            (None, Principal::Session(session)) => Introspection {
                exp: Some(seconds(session.expires_at)),
                iat: Some(seconds(session.created_at)),
                ..common
            },
            (None, Principal::ApiKey(used)) => Introspection {
                exp: expiry_of_key(used, ip, now).map(seconds),
                iat: Some(seconds(used.record.created_at)),
                jti: Some(used.presented.id.to_string()),
                ..common
            },
        }
    }
}

/// The audience that was required of a token.
fn audience_of<'a>(claims: &Claims, settings: &'a Reloadable) -> Option<&'a String> {
    let tokens = &settings.tokens;
    match &claims.source {
        TokenSource::Own => Some(&tokens.audience),
        TokenSource::Trusted(index) => Some(&tokens.trusted.get(*index)?.audience),
        TokenSource::Introspected(name) => {
            let mut entries = settings.introspection.iter().map(|entry| &entry.rules);
            entries.find(|rules| rules.name == *name)?.audience.as_ref()
        }
    }
}

/// Until when the secret that was presented is valid.
fn expiry_of_key(used: &UsedApiKey, ip: IpAddr, now: Millis) -> Option<Millis> {
    let grant = used.record.api_key.as_ref()?;
    grant.judge(&used.presented.hash, ip, now).ok()?
}

fn seconds(millis: Millis) -> u64 {
    millis / 1000
}
