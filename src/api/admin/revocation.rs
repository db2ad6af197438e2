//! Responses to revocations.

use axum::response::Response;
use http::Uri;
use serde::Serialize;

use super::super::query::QueryParams;
use super::super::response;
use super::AdminState;
use crate::rejection::Rejection;
use crate::store::FleetConfirmation;

/// Whether the caller waits until every gateway has applied the revocation.
pub(super) fn waits_for_fleet(uri: &Uri) -> Result<bool, Rejection> {
    let mut query = QueryParams::parse(uri);
    let waits = query.parse_param("wait", "must be \"fleet\" if present", |value| {
        (value == "fleet").then_some(())
    });
    query.check()?;
    Ok(waits.is_some())
}

/// Response to a revocation.
#[derive(Serialize)]
struct RevocationResult {
    revoked: usize,
    /// The gateways that have applied it.
    #[serde(flatten)]
    fleet: Option<FleetConfirmation>,
}

/// Responds to a revocation, after its confirmation by all gateways if the caller waits for it.
pub(super) async fn revocation_response(
    state: &AdminState,
    revoked: usize,
    waits: bool,
) -> Result<Response, Rejection> {
    let fleet = match waits {
        true => Some(state.store.wait_for_confirmation().await?),
        false => None,
    };
    Ok(response::data(&RevocationResult { revoked, fleet }))
}
