//! `POST auth/backchannel-logout/{provider}`.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use utoipa::ToSchema;

use super::super::response::{self, ResponseInfo};
use super::super::{ApiState, body};
use super::provider_call::ProviderCall;
use crate::identity::oidc::LogoutFailure;
use crate::rejection::{Reason, Refusal, Rejection};

/// A logout request of a provider.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form")]
pub(in crate::api) struct BackchannelLogout {
    logout_token: String,
}

/// Log users out at a provider's request
///
/// For OpenID providers (OpenID Connect Back-Channel Logout 1.0): ends the sessions of the `sid`, or of
/// the `sub`, that the logout token names.
#[utoipa::path(
    post,
    path = "/auth/backchannel-logout/{provider}",
    tag = "auth",
    params(("provider" = String, Path, description = "Name of the provider")),
    request_body(
        content = BackchannelLogout,
        content_type = "application/x-www-form-urlencoded",
    ),
    responses(
        (status = 200, description = "The logout is in force"),
        (status = 400, description = "The logout token fails a check, or was used before"),
        (status = 404, description = "There is no such provider, or it may not end sessions"),
        (status = 503, description = "The logout could not be ensured"),
    ),
)]
pub(in crate::api) async fn log_out(
    State(state): State<ApiState>,
    call: ProviderCall,
    request: Request,
) -> Result<Response, Rejection> {
    let provider = call.provider_settings();
    if !provider.logout.back_channel || !provider.has_id_tokens() {
        return Err(Refusal::NotFound.into());
    }
    let (parts, sent) = request.into_parts();
    // A request without a token is refused like one with a malformed token.
    let token = read_token(&parts.headers, sent).await?.unwrap_or_default();
    let logged_out = state
        .accounts
        .log_out_by_provider(call.settings(), &call.provider, &token, call.client.ip)
        .await;
    Ok(match logged_out {
        Ok(()) => Response::default(),
        Err(LogoutFailure::Refused(fault)) => {
            let rejection = Rejection::new(Refusal::BadRequest, Reason::Callback(fault));
            failure(StatusCode::BAD_REQUEST, "invalid_request", rejection)
        }
        Err(LogoutFailure::Unavailable(error)) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            failure(status, "temporarily_unavailable", error.into())
        }
    })
}

/// The one `logout_token` of a form.
async fn read_token(headers: &HeaderMap, sent: Body) -> Result<Option<String>, Rejection> {
    if !body::is_form(headers) {
        return Ok(None);
    }
    let sent = body::read_bytes(sent).await?;
    let mut tokens = url::form_urlencoded::parse(&sent).filter(|(name, _)| name == "logout_token");
    Ok(match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Some(token.into_owned()),
        _ => None,
    })
}

/// An error as the specification requires it (section 2.8).
fn failure(status: StatusCode, error: &str, rejection: Rejection) -> Response {
    let mut response = response::json(status, &json!({ "error": error }));
    let info = response
        .extensions_mut()
        .get_or_insert_default::<ResponseInfo>();
    info.rejection = Some(rejection);
    response
}
