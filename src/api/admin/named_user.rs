//! The user that the path of a call names.

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use super::super::caller;
use super::AdminState;
use crate::identity::User;
use crate::rejection::{Refusal, Rejection};

/// The user whose ID is the path's `{id}`. Extracting it rejects IDs without a user.
pub(super) struct NamedUser(pub(super) User);

impl FromRequestParts<AdminState> for NamedUser {
    type Rejection = Rejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AdminState,
    ) -> Result<NamedUser, Rejection> {
        let named: Result<RawPathParams, _> = parts.extract().await;
        let params = named.map_err(|_| Refusal::NotFound)?;
        let id = params.iter().find(|(name, _)| *name == "id");
        let (_, id) = id.ok_or(Refusal::NotFound)?;
        caller::find_user(&state.accounts, id).await.map(NamedUser)
    }
}
