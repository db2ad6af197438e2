//! Series of the decisions for front proxies.

use super::{Dialect, Metrics, refusal_label};
use crate::rejection::Refusal;

/// The usual refusals of a decision.
const REFUSALS: [Refusal; 20] = [
    Refusal::BadRequest,
    Refusal::AmbiguousCredentials,
    Refusal::Unauthenticated,
    Refusal::TokenInvalid,
    Refusal::TokenExpired,
    Refusal::TokenRevoked,
    Refusal::SessionNotFound,
    Refusal::SessionExpired,
    Refusal::SessionRevoked,
    Refusal::SessionBindingMismatch,
    Refusal::InsufficientAuthentication,
    Refusal::Forbidden,
    Refusal::CsrfRejected,
    Refusal::RouteNotFound,
    Refusal::MethodNotAllowed,
    Refusal::RateLimited,
    Refusal::Internal,
    Refusal::ProviderUnavailable,
    Refusal::StoreUnavailable,
    Refusal::Overloaded,
];

impl Metrics {
    /// Counts a decision for a front proxy; `None` for a request that may pass.
    pub fn count_forward_auth(&self, dialect: Dialect, refusal: Option<Refusal>) {
        let index = refusal.map_or(0, |refusal| 1 + refusal as usize);
        let index = dialect as usize * (1 + Refusal::ALL.len()) + index;
        let look_up = || {
            let label = refusal.map_or("allowed".to_owned(), refusal_label);
            self.forward_auth
                .with_label_values(&[dialect.as_str(), &label])
        };
        if let Some(series) = self.request_series.forward_auth.get(index, look_up) {
            series.inc();
        }
    }

    pub(super) fn initialize_forward_auth_series(&self) {
        for dialect in Dialect::ALL {
            let codes = REFUSALS.map(refusal_label);
            for outcome in std::iter::once("allowed").chain(codes.iter().map(String::as_str)) {
                self.forward_auth
                    .with_label_values(&[dialect.as_str(), outcome]);
            }
        }
    }
}
