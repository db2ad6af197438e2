//! Which credential of a request decides, and why.

use http::header;

use super::Request;
use crate::auth::credential::{self, PresentedCredential};
use crate::routing::{Auth, Route};
use crate::settings::Settings;

/// Describes the credential that decides on a route.
pub(super) fn describe(settings: &Settings, request: &Request, route: &Route) -> String {
    let cookie = &settings.reloadable.sessions.cookie.name;
    let values = |name| request.headers.get_all(name).iter();
    let presented = credential::extract(
        values(header::AUTHORIZATION).map(|value| value.as_bytes()),
        values(header::COOKIE).map(|value| value.as_bytes()),
        cookie,
    );
    let is_required = route.auth == Auth::Required;
    match presented {
        _ if route.auth == Auth::None => "none: the route ignores credentials".to_owned(),
        PresentedCredential::Absent if is_required => {
            format!(
                "none, neither in Authorization nor in the cookie {cookie}: 401 UNAUTHENTICATED"
            )
        }
        PresentedCredential::Absent => {
            format!("none, neither in Authorization nor in the cookie {cookie}: anonymous")
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
