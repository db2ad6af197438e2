//! `GET auth/start/{provider}`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use super::super::query::QueryParams;
use super::super::response::ResponseInfo;
use super::super::{ApiState, return_to};
use super::provider_call::ProviderCall;
use super::refused::refused;
use super::{NO_REFERRER, cookie_rules, own_origin, provider_path};
use crate::identity::oidc::ProviderClient;
use crate::identity::oidc::flow::FlowRequest;
use crate::identity::oidc::sign_in::{SignInRequest, StartedSignIn};
use crate::pipeline::facts::Client;
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::CALLBACK;
use crate::settings::Reloadable;
use crate::settings::provider::Provider;

/// Maximum length of a parameter that is passed on, in bytes.
const TEXT_MAX: usize = 256;
/// Maximum length of `acr_values`, in bytes. The flow's cookie has room for them.
const ACR_TEXT_MAX: usize = 512;
/// Maximum number of requested authentication contexts.
const ACR_MAX: usize = 32;

/// Start a sign-in at a provider
///
/// Redirects the browser to the provider, also for a sign-in that a third party initiates (OpenID
/// Connect Core 1.0, section 4).
#[utoipa::path(
    get,
    path = "/auth/start/{provider}",
    tag = "auth",
    params(
        ("provider" = String, Path, description = "Name of the provider"),
        ("return_to" = Option<String>, Query, description = "Where the browser goes after the sign-in"),
        ("prompt" = Option<String>, Query, description = "Passed on"),
        ("login_hint" = Option<String>, Query, description = "Passed on"),
        ("acr_values" = Option<String>, Query, description = "The sign-in must have one of these"),
        ("max_age" = Option<u64>, Query, description = "Maximum age of the authentication, in seconds"),
        ("iss" = Option<String>, Query, description = "Must be the provider's issuer"),
        ("target_link_uri" = Option<String>, Query, description = "As `return_to`"),
    ),
    responses(
        (status = 303, description = "To the provider; also sets the cookie of the flow"),
        (status = 404, description = "There is no such provider"),
        (status = 429, description = "Too many attempts from this address"),
        (status = 503, description = "The provider is not available"),
    ),
)]
pub(in crate::api) async fn start(
    State(state): State<ApiState>,
    call: ProviderCall,
    request: Request,
) -> Result<Response, Rejection> {
    let (settings, client) = (call.settings(), &call.client);
    let asked = read_request(settings, call.provider_settings(), client, &request)?;
    Ok(begin(&state, settings, &call.provider, client, asked).await)
}

/// Starts a sign-in that returns to a page, in place of the sign-in page.
pub(in crate::api) async fn begin_for_page(
    state: &ApiState,
    settings: &Reloadable,
    provider: &ProviderClient,
    client: &Client,
    return_to: String,
) -> Result<Response, Rejection> {
    let asked = SignInRequest {
        flow: FlowRequest {
            redirect_uri: redirect_uri(settings, provider.settings(), client)?,
            return_to,
            acr: Vec::new(),
            max_age: None,
            link_to: None,
        },
        prompt: None,
        login_hint: None,
    };
    Ok(begin(state, settings, provider, client, asked).await)
}

pub(super) async fn begin(
    state: &ApiState,
    settings: &Reloadable,
    provider: &ProviderClient,
    client: &Client,
    asked: SignInRequest,
) -> Response {
    let return_to = asked.flow.return_to.clone();
    let rules = cookie_rules(settings, provider.settings());
    let mut limits = Vec::new();
    let started = state
        .accounts
        .start_at_provider(settings, provider, &rules, asked, client.ip, &mut limits)
        .await;
    match started.map_err(Rejection::from).and_then(redirect) {
        Ok(mut response) => {
            response.extensions_mut().insert(ResponseInfo {
                limits,
                ..ResponseInfo::default()
            });
            response
        }
        Err(rejection) => {
            let rejection = rejection.with_decisions(limits);
            refused(settings, provider, rejection, &return_to)
        }
    }
}

/// Reads the parameters of a start.
fn read_request(
    settings: &Reloadable,
    provider: &Provider,
    client: &Client,
    request: &Request,
) -> Result<SignInRequest, Rejection> {
    let mut query = QueryParams::parse(request.uri());
    let issuer = |text: &str| provider.accepts_issuer(text).then_some(());
    query.parse_param("iss", "is not the provider's issuer", issuer);
    let prompt = text_param(&mut query, "prompt");
    let login_hint = text_param(&mut query, "login_hint");
    let within = |text: &str| (text.len() <= ACR_TEXT_MAX).then(|| text.to_owned());
    let acr = query.parse_param("acr_values", "is too long", within);
    let acr = acr.unwrap_or_default();
    let acr: Vec<String> = acr.split_ascii_whitespace().map(str::to_owned).collect();
    if acr.len() > ACR_MAX {
        return Err(Rejection::invalid_field(
            "acr_values",
            "has too many values",
        ));
    }
    let seconds = |text: &str| text.parse::<u32>().ok().map(u64::from);
    let max_age = query.parse_param("max_age", "must be a number of seconds", seconds);
    let hosts = return_to::listed_hosts(settings);
    let return_to = match (query.text("return_to"), query.text("target_link_uri")) {
        (Some(path), _) => return_to::resolve(&path, hosts).into_owned(),
        (None, Some(link)) => return_to::resolve_link(&link, client, hosts).into_owned(),
        (None, None) => "/".to_owned(),
    };
    query.check()?;
    Ok(SignInRequest {
        flow: FlowRequest {
            redirect_uri: redirect_uri(settings, provider, client)?,
            return_to,
            acr,
            max_age,
            link_to: None,
        },
        prompt,
        login_hint,
    })
}

/// The address to which the provider returns the browser.
pub(super) fn redirect_uri(
    settings: &Reloadable,
    provider: &Provider,
    client: &Client,
) -> Result<String, Rejection> {
    let callback = provider_path(settings, CALLBACK, &provider.name);
    Ok(format!("{}{callback}", own_origin(settings, client)?))
}

/// A parameter that the provider receives as it is.
fn text_param(query: &mut QueryParams, name: &str) -> Option<String> {
    let within = |text: &str| (text.len() <= TEXT_MAX).then(|| text.to_owned());
    query.parse_param(name, "is too long", within)
}

fn redirect(started: StartedSignIn) -> Result<Response, Rejection> {
    let location = HeaderValue::from_str(&started.location).map_err(|_| Refusal::Internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::SET_COOKIE, started.cookie);
    let (name, value) = NO_REFERRER;
    headers.insert(name, value);
    Ok(response)
}
