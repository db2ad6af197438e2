//! Which credential of a request decides, and why.

use http::header::{self, HeaderValue};

use super::Request;
use crate::auth::credential::{self, CredentialType, PresentedCredential};
use crate::routing::{Auth, Route};
use crate::settings::Settings;

/// Describes the credential that decides on a route.
pub(super) fn describe(settings: &Settings, request: &Request, route: &Route) -> String {
    let cookie = &settings.reloadable.sessions.cookie.name;
    let values = |name| {
        let values = request.headers.get_all(name).iter();
        values.map(HeaderValue::as_bytes)
    };
    let authorizations = || values(header::AUTHORIZATION);
    let cookies = || values(header::COOKIE);
    let joined = match request.via {
        Some(_) => credential::find_joined(authorizations(), cookies(), cookie),
        None => None,
    };
    let presented =
        joined.unwrap_or_else(|| credential::extract(authorizations(), cookies(), cookie));
    let is_required = route.auth == Auth::Required;
    let anonymous = match is_required {
        true => "401 UNAUTHENTICATED",
        false => "anonymous",
    };
    match presented {
        _ if route.auth == Auth::None => "none: the route ignores credentials".to_owned(),
        _ if let Some(other) = not_accepted(&presented, route) => {
            format!("none: the route does not accept a {other}: {anonymous}")
        }
        PresentedCredential::Absent => {
            format!("none, neither in Authorization nor in the cookie {cookie}: {anonymous}")
        }
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

/// The type of the credential, if the route does not accept it.
fn not_accepted(presented: &PresentedCredential<'_>, route: &Route) -> Option<&'static str> {
    let credential_type = match presented {
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
