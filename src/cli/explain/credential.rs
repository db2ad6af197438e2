//! Which credential of a request decides, and why.

use http::header::{self, HeaderName, HeaderValue};

use super::Request;
use crate::auth::credential::{self, BearerForm, CredentialType, PresentedCredential, bearer_form};
use crate::routing::{Auth, Route};
use crate::settings::Settings;

/// Describes the credential that decides on a route.
pub(super) fn describe(settings: &Settings, request: &Request, route: &Route) -> String {
    let cookie = &settings.reloadable.sessions.cookie.name;
    let keys = settings.reloadable.api_keys.as_ref();
    let prefix = keys.map(|keys| keys.prefix.as_str());
    let key_header = keys.and_then(|keys| keys.header.as_ref());
    let presented = read_credential(cookie, key_header, request);
    let is_required = route.auth == Auth::Required;
    let anonymous = match is_required {
        true => "401 UNAUTHENTICATED",
        false => "anonymous",
    };
    match presented {
        _ if route.auth == Auth::None => "none: the route ignores credentials".to_owned(),
        _ if let Some(other) = not_accepted(&presented, prefix, route) => {
            format!("none: the route does not accept a {other}: {anonymous}")
        }
        PresentedCredential::Absent => {
            format!("none, neither in Authorization nor in the cookie {cookie}: {anonymous}")
        }
        PresentedCredential::Bearer(token) if is_api_key(token, prefix) => {
            "the API key in Authorization, which comes before the cookie".to_owned()
        }
        PresentedCredential::ApiKey(_) => format!(
            "the API key in {}, which comes before the cookie",
            key_header.map_or("", |name| name.as_str())
        ),
        PresentedCredential::Bearer(_) => {
            "the bearer token in Authorization, which comes before the cookie".to_owned()
        }
        PresentedCredential::Session(_) => {
            "the session token in Authorization, which comes before the cookie".to_owned()
        }
        PresentedCredential::Cookie(_) => {
            format!("the cookie {cookie}; Authorization has no credential of the gateway")
        }
        PresentedCredential::MalformedBearer => {
            "the bearer token in Authorization, which is malformed: 401 TOKEN_INVALID".to_owned()
        }
        PresentedCredential::MalformedSession => {
            "the session token in Authorization, which is malformed: 401 SESSION_NOT_FOUND"
                .to_owned()
        }
        PresentedCredential::MalformedCookie if is_required => {
            format!("the cookie {cookie}, which is malformed: 401 SESSION_NOT_FOUND")
        }
        PresentedCredential::MalformedCookie => {
            format!("the cookie {cookie}, which is malformed: anonymous")
        }
        PresentedCredential::Ambiguous { cookies: true } => {
            format!("two cookies {cookie}: 400 AMBIGUOUS_CREDENTIALS")
        }
        PresentedCredential::Ambiguous { cookies: false } => {
            "two Authorization headers: 400 AMBIGUOUS_CREDENTIALS".to_owned()
        }
    }
}

fn read_credential<'r>(
    cookie: &str,
    key_header: Option<&HeaderName>,
    request: &'r Request,
) -> PresentedCredential<'r> {
    let values = |name: &HeaderName| {
        let values = request.headers.get_all(name).iter();
        values.map(HeaderValue::as_bytes)
    };
    let authorizations = || values(&header::AUTHORIZATION);
    let cookies = || values(&header::COOKIE);
    let joined = match request.via {
        Some(_) => credential::find_joined(authorizations(), cookies(), cookie),
        None => None,
    };
    joined.unwrap_or_else(|| {
        let api_keys = key_header.into_iter().flat_map(values);
        credential::extract(authorizations(), api_keys, cookies(), cookie)
    })
}

fn is_api_key(token: &str, prefix: Option<&str>) -> bool {
    prefix.is_some() && bearer_form(token, prefix) == BearerForm::ApiKey
}

/// The type of the credential, if the route does not accept it.
fn not_accepted(
    presented: &PresentedCredential<'_>,
    prefix: Option<&str>,
    route: &Route,
) -> Option<&'static str> {
    let credential_type = match presented {
        PresentedCredential::Bearer(token) if is_api_key(token, prefix) => CredentialType::ApiKey,
        PresentedCredential::ApiKey(_) => CredentialType::ApiKey,
        PresentedCredential::Bearer(_) | PresentedCredential::MalformedBearer => {
            CredentialType::Token
        }
        PresentedCredential::Session(_)
        | PresentedCredential::MalformedSession
        | PresentedCredential::Cookie(_)
        | PresentedCredential::MalformedCookie => CredentialType::Session,
        PresentedCredential::Absent | PresentedCredential::Ambiguous { .. } => return None,
    };
    let is_accepted = route.accept.includes(credential_type);
    (!is_accepted).then(|| credential_type.as_str())
}
