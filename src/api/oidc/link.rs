//! `POST auth/link/{provider}`.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;

use super::super::caller::AuthenticatedCaller;
use super::super::{ApiState, return_to};
use super::provider_call::ProviderCall;
use super::start::{begin, redirect_uri};
use crate::auth::session::SessionId;
use crate::identity::oidc::flow::FlowRequest;
use crate::identity::oidc::sign_in::SignInRequest;
use crate::rejection::{CallbackFault, DisclosedDetails, Refusal, Rejection, RequiredSignIn};
use crate::settings::provider::UserStorage;

/// Maximum age of the sign-in of a session that links an identity.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// Link an identity at a provider
///
/// Redirects the browser to the provider. The identity with which the user signs in there becomes a
/// further way to sign in for the caller.
#[utoipa::path(
    post,
    path = "/auth/link/{provider}",
    tag = "auth",
    params(
        ("provider" = String, Path, description = "Name of the provider"),
        ("return_to" = Option<String>, Query, description = "Where the browser goes afterwards"),
    ),
    responses(
        (status = 303, description = "To the provider; also sets the cookie of the flow"),
        (status = 404, description = "There is no such provider, or the caller is not a user of this gateway"),
        (status = 429, description = "Too many attempts from this address"),
        (status = 503, description = "The provider is not available"),
    ),
)]
pub(in crate::api) async fn link(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    call: ProviderCall,
    request: Request,
) -> Result<Response, Rejection> {
    let (settings, provider) = (call.settings(), call.provider_settings());
    if !matches!(provider.users, UserStorage::Database { .. }) {
        return Err(Refusal::NotFound.into());
    }
    caller.find_user(&state).await?;
    let session = recent_session(&caller)?;
    let query = request.uri().query();
    let request = SignInRequest {
        flow: FlowRequest {
            redirect_uri: redirect_uri(settings, provider, &call.client)?,
            return_to: return_to::from_query(query, return_to::listed_hosts(settings)),
            acr: Vec::new(),
            max_age: None,
            link_to: Some(session),
        },
        prompt: None,
        login_hint: None,
    };
    Ok(begin(&state, settings, &call.provider, &call.client, request).await)
}

/// The caller's session, if its user has just authenticated: an identity is a key to the account.
fn recent_session(caller: &AuthenticatedCaller) -> Result<SessionId, Rejection> {
    let oldest = MAX_AGE.saturating_add(caller.settings().tokens.leeway);
    let session = caller.identity.session().filter(|session| {
        let age = caller.identity.confirmed_at;
        let age = age.saturating_sub(session.authenticated_at());
        u128::from(age) <= oldest.as_millis()
    });
    let required = RequiredSignIn {
        acr: Vec::new(),
        max_age: Some(MAX_AGE.as_secs()),
    };
    session.map(|session| session.id).ok_or_else(|| Rejection {
        disclosed: Some(Box::new(DisclosedDetails {
            required_sign_in: Some(required),
            ..DisclosedDetails::default()
        })),
        ..CallbackFault::SignInTooOldToLink.into()
    })
}
