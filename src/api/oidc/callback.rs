//! `GET` and `POST auth/callback/{provider}`.

use std::sync::Arc;

use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};

use super::super::page::{leading_page, see_other};
use super::super::response::ResponseInfo;
use super::super::sign_in::{self, SESSION_HEADER};
use super::super::{ApiState, Caller, body};
use super::refused::refused;
use super::{NO_REFERRER, cookie_rules};
use crate::auth::session::SameSite;
use crate::clock;
use crate::identity::SignedIn;
use crate::identity::oidc::ProviderClient;
use crate::identity::oidc::callback::{CallbackResponse, SentResponse};
use crate::identity::oidc::flow::{self, Flow, FlowCookieRules, FlowSearch};
use crate::identity::oidc::sign_in::{FinishedFlow, SignInCallback};
use crate::limits::Decision;
use crate::pipeline::admission::{CredentialKind, Identity};
use crate::pipeline::facts::Client;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{CallbackFault, Refusal, Rejection};
use crate::settings::Reloadable;

/// A call of the callback.
struct Call<'a> {
    state: &'a ApiState,
    settings: &'a Reloadable,
    provider: &'a ProviderClient,
    client: &'a Client,
    headers: &'a HeaderMap,
    /// Whether the browser's own session is valid.
    is_signed_in: bool,
}

/// Finish a sign-in at a provider
///
/// The address to which the provider returns the browser. Creates a session, sets its cookie, and
/// redirects to where the sign-in was started for.
#[utoipa::path(
    get,
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
pub(in crate::api) async fn query(
    State(state): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    Path(name): Path<String>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Rejection> {
    let (parts, _) = request.into_parts();
    // A program that previews links must not redeem the code.
    if parts.method == Method::HEAD {
        return Err(Refusal::MethodNotAllowed.into());
    }
    let provider = snapshot.providers.get(&name).ok_or(Refusal::NotFound)?;
    let call = Call::new(
        &state,
        &snapshot.settings,
        provider,
        &client,
        &parts,
        caller,
    );
    let query = parts.uri.query().unwrap_or_default();
    Ok(call.serve(SentResponse::Query(query.as_bytes())).await)
}

/// Finish a sign-in at a provider that posts its response
#[utoipa::path(
    post,
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
pub(in crate::api) async fn form(
    State(state): State<ApiState>,
    Extension(snapshot): Extension<Arc<Snapshot>>,
    Extension(client): Extension<Client>,
    Path(name): Path<String>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Rejection> {
    let (parts, sent) = request.into_parts();
    let provider = snapshot.providers.get(&name).ok_or(Refusal::NotFound)?;
    let call = Call::new(
        &state,
        &snapshot.settings,
        provider,
        &client,
        &parts,
        caller,
    );
    // A body of another type has none of the parameters.
    let sent = match body::is_form(&parts.headers) {
        true => body::read_bytes(sent).await?,
        false => Bytes::new(),
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    Ok(call.serve(SentResponse::Form { query, body: &sent }).await)
}

impl<'a> Call<'a> {
    fn new(
        state: &'a ApiState,
        settings: &'a Reloadable,
        provider: &'a ProviderClient,
        client: &'a Client,
        parts: &'a Parts,
        caller: Option<Extension<Caller>>,
    ) -> Call<'a> {
        let by_cookie = |identity: Identity| identity.credential_kind == CredentialKind::Cookie;
        let is_signed_in = caller.is_some_and(|Extension(Caller(found))| {
            found.is_ok_and(|identity| identity.is_some_and(by_cookie))
        });
        Call {
            state,
            settings,
            provider,
            client,
            headers: &parts.headers,
            is_signed_in,
        }
    }

    async fn serve(&self, sent: SentResponse<'_>) -> Response {
        let rules = cookie_rules(self.settings, self.provider.settings());
        let response = CallbackResponse::read(self.provider.settings().response_mode, sent);
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
        let Some(keys) = flow::keys(&self.settings.tokens) else {
            return FlowSearch::nothing();
        };
        let cookies = self.headers.get_all(header::COOKIE).iter();
        let provider = &self.provider.settings().name;
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
        let return_to = match &flow {
            Ok(flow) => flow.request.return_to.clone(),
            Err(_) => "/".to_owned(),
        };
        let callback = SignInCallback {
            response,
            flow,
            previous_session: sign_in::cookie_session(self.headers, self.settings),
        };
        let client_info = sign_in::client_info(self.headers, self.client);
        let mut limits = Vec::new();
        let accounts = &self.state.accounts;
        let finished = accounts
            .finish_at_provider(
                self.settings,
                self.provider,
                callback,
                &client_info,
                &mut limits,
            )
            .await;
        let finished = finished.map_err(Rejection::from);
        if !matches!(finished, Ok(FinishedFlow::Linked)) {
            let refusal = finished.as_ref().err().map(|refused| refused.refusal);
            accounts.count_provider_sign_in(&self.provider.settings().name, refusal);
        }
        match finished {
            Ok(FinishedFlow::SignedIn(signed_in)) => {
                signed_in_response(self.settings, &signed_in, limits, &return_to)
            }
            Ok(FinishedFlow::Linked) => see_other(&return_to),
            Err(rejection) => {
                let rejection = rejection.with_decisions(limits);
                refused(self.settings, self.provider, rejection, &return_to)
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
