//! Where a browser goes that is not signed in: with one provider and no passwords, straight there, in
//! the response to its request.

use std::sync::Arc;

use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::browser_navigation::is_browser_navigation;
use super::facts::{RequestFacts, RequestHead};
use super::{EndpointCall, Step};
use crate::auth::session::CookieRules;
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::START;
use crate::routing::{OnUnauthenticated, Route, host_of};
use crate::settings::Reloadable;
use crate::settings::provider::Provider;

/// Maximum length of a target to which a sign-in returns; after a longer one it returns to `/`.
const TARGET_MAX: usize = 2048;

/// The start of a sign-in in place of the response to a rejected request.
#[derive(Debug)]
pub struct SignInRedirect {
    /// The query of the endpoint that starts it.
    pub query: String,
    /// Recorded for the log; its limits and its cleared cookie are part of the response.
    pub rejection: Rejection,
}

/// Decides what a rejected request leads to: a sign-in at a provider, or the rejection.
pub(super) fn decide(
    rejection: Rejection,
    facts: &RequestFacts<'_>,
    route: &Route,
    settings: &Reloadable,
) -> Step {
    let provider = provider_of(&rejection, settings);
    match provider.filter(|_| may_start(rejection.refusal, &facts.head, route, settings)) {
        Some(provider) if is_cookie_returned(facts, &settings.sessions.cookie) => {
            let path = START.replace("{provider}", &provider.name);
            let query = start_query(&rejection, &facts.head);
            let start = SignInRedirect { query, rejection };
            Step::CallApi(EndpointCall {
                path,
                sign_in: Some(Box::new(start)),
            })
        }
        _ => Step::Reject(rejection),
    }
}

/// The provider at which a browser signs in without a choice: the only one, or, for a session that does
/// not satisfy the route, its own.
fn provider_of<'s>(rejection: &Rejection, settings: &'s Reloadable) -> Option<&'s Arc<Provider>> {
    if rejection.refusal != Refusal::InsufficientAuthentication {
        return settings.identity.only_provider();
    }
    let session = rejection.caller.as_ref()?.session()?;
    let sign_in = session.provider.as_ref()?;
    settings.identity.provider(&sign_in.provider)
}

/// The query of the start. The sign-in has to satisfy the route, so that it is not rejected again.
fn start_query(rejection: &Rejection, head: &RequestHead<'_>) -> String {
    let mut query = format!("return_to={}", return_to(head));
    let Some(required) = rejection.required_sign_in() else {
        return query;
    };
    if !required.acr.is_empty() {
        let acr = required.acr.join(" ");
        query.push_str("&acr_values=");
        query.extend(utf8_percent_encode(&acr, NON_ALPHANUMERIC));
    }
    if let Some(seconds) = required.max_age {
        query.push_str(&format!("&max_age={seconds}"));
    }
    query
}

/// Whether a browser is sent to sign in, in place of an error. A client whose session belongs to
/// another would be rejected again after each sign-in.
pub(super) fn may_start(
    refusal: Refusal,
    head: &RequestHead<'_>,
    route: &Route,
    settings: &Reloadable,
) -> bool {
    let is_lasting =
        refusal == Refusal::SessionBindingMismatch && settings.identity.only_provider().is_some();
    route.on_unauthenticated == OnUnauthenticated::Redirect
        && refusal.status() == StatusCode::UNAUTHORIZED
        && !is_lasting
        && is_browser_navigation(head)
}

/// The requested page as the value of `return_to`.
pub(super) fn return_to(head: &RequestHead<'_>) -> String {
    let target = head.target();
    let target = match target.len() {
        0..=TARGET_MAX => &*target,
        _ => "/",
    };
    utf8_percent_encode(target, NON_ALPHANUMERIC).to_string()
}

/// Whether the browser will send the session cookie with this request once it has one. Otherwise each
/// sign-in would lead to the next.
fn is_cookie_returned(facts: &RequestFacts<'_>, cookie: &CookieRules) -> bool {
    let client = facts.client();
    host_of(&client.host).is_ok_and(|host| cookie.is_sent_to(&host, facts.head.path))
}
