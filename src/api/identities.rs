//! The identities at providers with which the caller signs in.

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::caller::AuthenticatedCaller;
use super::response;
use super::view::{Success, rfc3339};
use crate::identity::{UnlinkedBy, UserIdentity};
use crate::rejection::Rejection;

/// An identity at a provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identity)]
pub(super) struct IdentityView {
    #[schema(format = "uuid")]
    id: String,
    /// Name of the provider.
    provider: String,
    issuer: String,
    /// The user's ID at the provider.
    subject: String,
    /// The verified email of the latest sign-in.
    email: Option<String>,
    #[schema(format = "date-time")]
    created_at: String,
    /// At most a minute behind; null if the identity was linked and not used yet.
    #[schema(format = "date-time")]
    last_sign_in_at: Option<String>,
}

/// The identities of a user, the latest used first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identities)]
pub(super) struct IdentitiesView {
    identities: Vec<IdentityView>,
    count: usize,
}

impl IdentityView {
    pub(super) fn of(identity: &UserIdentity) -> IdentityView {
        IdentityView {
            id: identity.id.clone(),
            provider: identity.provider.clone(),
            issuer: identity.issuer.clone(),
            subject: identity.subject.clone(),
            email: identity.email.clone(),
            created_at: rfc3339(identity.created_at),
            last_sign_in_at: identity.last_sign_in_at.map(rfc3339),
        }
    }
}

impl IdentitiesView {
    pub(super) fn of(identities: &[UserIdentity]) -> IdentitiesView {
        IdentitiesView {
            count: identities.len(),
            identities: identities.iter().map(IdentityView::of).collect(),
        }
    }
}

/// List the caller's identities at providers
#[utoipa::path(
    get,
    path = "/profile/identities",
    tag = "profile",
    responses(
        (status = 200, description = "The identities", body = Success<IdentitiesView>),
        (status = 404, description = "The caller is not a user of this gateway"),
    ),
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
) -> Result<Response, Rejection> {
    let user = caller.find_user(&state).await?;
    let identities = state.accounts.identities_of(&user.id).await?;
    Ok(response::data(&IdentitiesView::of(&identities)))
}

/// Unlink an identity
///
/// Ends the sessions of sign-ins with it, except for the current one.
#[utoipa::path(
    delete,
    path = "/profile/identities/{id}",
    tag = "profile",
    params(("id" = String, Path, description = "ID of the identity")),
    responses(
        (status = 204, description = "The identity is unlinked"),
        (status = 404, description = "The caller has no such identity"),
        (status = 409, description = "It is the caller's last way to sign in"),
    ),
)]
pub(super) async fn unlink(
    State(state): State<ApiState>,
    caller: AuthenticatedCaller,
    Path(id): Path<String>,
) -> Result<Response, Rejection> {
    let user = caller.find_user(&state).await?;
    let by = UnlinkedBy::User(caller.session_id(), caller.client.ip);
    let unlinked = state
        .accounts
        .unlink_identity(caller.settings(), &user.id, &id, by);
    unlinked.await?;
    Ok(response::no_content())
}
