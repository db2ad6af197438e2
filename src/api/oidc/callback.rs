//! `GET` and `POST auth/callback/{provider}`.

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};

use super::super::page::{leading_page, see_other};
use super::super::response::ResponseInfo;
use super::super::sign_in::{self, SESSION_HEADER};
use super::super::{ApiState, Caller, body};
use super::provider_call::ProviderCall;
use super::refused::refused;
use super::{NO_REFERRER, cookie_rules};
use crate::auth::session::SameSite;
use crate::clock;
use crate::identity::SignedIn;
use crate::identity::oidc::callback::{CallbackResponse, SentResponse};
use crate::identity::oidc::flow::{self, Flow, FlowCookieRules, FlowSearch};
use crate::identity::oidc::sign_in::{FinishedFlow, SignInCallback};
use crate::limits::Decision;
use crate::pipeline::admission::CredentialKind;
use crate::rejection::{CallbackFault, Refusal, Rejection};
use crate::settings::Reloadable;

/// A call of the callback.
struct Callback<'a> {
    state: &'a ApiState,
    call: &'a ProviderCall,
    headers: &'a HeaderMap,
    /// Whether the browser's own session is valid.
    is_signed_in: bool,
}

/// Finish a sign-in at a provider
///
/// The address to which the provider returns the browser, by `POST` if it posts its response. Creates a
/// session, sets its cookie, and redirects to where the sign-in was started for.
#[utoipa::path(
    method(get, post),
    path = "/auth/callback/{provider}",
    tag = "auth",
    params(("provider" = String, Path, description = "Name of the provider")),
    responses(
        (status = 303, description = "Signed in; also sets the session cookie"),
        (status = 400, description = "The flow is unknown, altered, or over 10 minutes old"),
        (status = 403, description = "The provider or the gateway refuses the user"),
        (status = 404, description = "There is no such provider"),
        (status = 429, description = "Too many attempts, or the session limit is reached"),
        (status = 502, description = "The provider's response is not valid"),
        (status = 503, description = "The provider or the store is not available"),
    ),
)]
pub(in crate::api) async fn finish(
    State(state): State<ApiState>,
    caller: Option<Extension<Caller>>,
    call: ProviderCall,
    request: Request,
) -> Result<Response, Rejection> {
    let (parts, sent) = request.into_parts();
    let callback = Callback {
        state: &state,
        call: &call,
        headers: &parts.headers,
        is_signed_in: caller.is_some_and(|Extension(caller)| is_signed_in(caller)),
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    match parts.method {
        // A program that previews links must not redeem the code.
        Method::HEAD => Err(Refusal::MethodNotAllowed.into()),
        Method::POST => {
            // A body of another type has none of the parameters.
            let sent = match body::is_form(&parts.headers) {
                true => body::read_bytes(sent).await?,
                false => Bytes::new(),
            };
            let sent = SentResponse::Form { query, body: &sent };
            Ok(callback.serve(sent).await)
        }
        _ => Ok(callback.serve(SentResponse::Query(query)).await),
    }
}

fn is_signed_in(Caller(found): Caller) -> bool {
    let identity = found.ok().flatten();
    identity.is_some_and(|identity| identity.credential_kind == CredentialKind::Cookie)
}

impl Callback<'_> {
    async fn serve(&self, sent: SentResponse<'_>) -> Response {
        let provider = self.call.provider_settings();
        let rules = cookie_rules(self.call.settings(), provider);
        let response = CallbackResponse::read(provider.response_mode, sent);
        let search = self.find_flow(&rules, sent);
        let mut response = match (response, search.found) {
            // The back button.
            (Ok(_), Err(CallbackFault::StateUnknown | CallbackFault::FlowExpired))
                if self.is_signed_in =>
            {
                see_other("/")
            }
            (response, flow) => self.finish(response, flow).await,
        };
        let headers = response.headers_mut();
        let (name, value) = NO_REFERRER;
        headers.insert(name, value);
        for cookie in &search.to_clear {
            if let Some(cookie) = rules.clear(cookie) {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
        response
    }

    /// Searches the flow among the browser's cookies. Without keys there are no flows.
    fn find_flow(&self, rules: &FlowCookieRules, sent: SentResponse<'_>) -> FlowSearch {
        let Some(keys) = flow::keys(&self.call.settings().tokens) else {
            return FlowSearch::nothing();
        };
        let cookies = self.headers.get_all(header::COOKIE).iter();
        let provider = &self.call.provider_settings().name;
        let state = sent.claimed_state().unwrap_or_default();
        rules.find(
            cookies.map(HeaderValue::as_bytes),
            &state,
            provider,
            &keys,
            clock::unix_millis(),
        )
    }

    async fn finish(
        &self,
        response: Result<CallbackResponse, CallbackFault>,
        flow: Result<Flow, CallbackFault>,
    ) -> Response {
        let (settings, provider) = (self.call.settings(), &*self.call.provider);
        let return_to = match &flow {
            Ok(flow) => flow.request.return_to.clone(),
            Err(_) => "/".to_owned(),
        };
        let callback = SignInCallback {
            response,
            flow,
            previous_session: sign_in::cookie_session(self.headers, settings),
        };
        let client_info = sign_in::client_info(self.headers, &self.call.client);
        let mut limits = Vec::new();
        let accounts = &self.state.accounts;
        let finished = accounts
            .finish_at_provider(settings, provider, callback, &client_info, &mut limits)
            .await;
        let finished = finished.map_err(Rejection::from);
        if !matches!(finished, Ok(FinishedFlow::Linked)) {
            let refusal = finished.as_ref().err().map(|refused| refused.refusal);
            accounts.count_provider_sign_in(&provider.settings().name, refusal);
        }
        match finished {
            Ok(FinishedFlow::SignedIn(signed_in)) => {
                signed_in_response(settings, &signed_in, limits, &return_to)
            }
            Ok(FinishedFlow::Linked) => see_other(&return_to),
            Err(rejection) => {
                let rejection = rejection.with_decisions(limits);
                refused(settings, provider, rejection, &return_to)
            }
        }
    }
}

/// Sends the browser to where the sign-in was started for, with the session cookie.
fn signed_in_response(
    settings: &Reloadable,
    signed_in: &SignedIn,
    limits: Vec<Decision>,
    return_to: &str,
) -> Response {
    let mut response = match settings.sessions.cookie.same_site {
        // A redirect would still count as the provider's, and the cookie would not be sent.
        SameSite::Strict => leading_page(settings, return_to),
        SameSite::Lax | SameSite::None => see_other(return_to),
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&signed_in.session.session.id.to_string()) {
        headers.insert(SESSION_HEADER, id);
    }
    if let Some(cookie) = sign_in::session_cookie(settings, signed_in) {
        headers.append(header::SET_COOKIE, cookie);
    }
    let info = ResponseInfo::for_sign_in(signed_in, limits);
    response.extensions_mut().insert(info);
    response
}
