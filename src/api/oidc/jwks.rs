//! `GET auth/jwks/{provider}`.

use axum::response::Response;
use http::StatusCode;

use super::super::response;
use super::provider_call::ProviderCall;
use crate::rejection::{Refusal, Rejection};
use crate::settings::provider::ClientAuthentication;

/// Get the gateway's public key for a provider
///
/// The key that verifies how the gateway authenticates at the provider (`client_key`): a JSON Web Key Set
/// (RFC 7517) without envelope.
#[utoipa::path(
    get,
    path = "/auth/jwks/{provider}",
    tag = "auth",
    params(("provider" = String, Path, description = "Name of the provider")),
    responses(
        (status = 200, description = "The public key", body = Object),
        (status = 404, description = "There is no such provider, or it has no `client_key`"),
    ),
)]
pub(in crate::api) async fn keys(call: ProviderCall) -> Result<Response, Rejection> {
    match &call.provider_settings().client_auth {
        ClientAuthentication::PrivateKey(key) => {
            Ok(response::json(StatusCode::OK, &key.public_jwks()))
        }
        ClientAuthentication::SecretBasic(_)
        | ClientAuthentication::SecretPost(_)
        | ClientAuthentication::None => Err(Refusal::NotFound.into()),
    }
}
