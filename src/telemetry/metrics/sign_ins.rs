//! Metrics of sign-ins, by method and outcome, and of logouts that providers request.

use super::{BackchannelOutcome, Metrics, refusal_label};
use crate::rejection::Refusal;

/// Identity source that checks the password of a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignInMethod {
    /// The users in the gateway's database.
    Password,
    /// A backend (`identity.upstream`).
    Upstream,
}

impl SignInMethod {
    const ALL: [SignInMethod; 2] = [SignInMethod::Password, SignInMethod::Upstream];

    /// Whether a name is the label of a method, which no provider may share.
    pub fn is_label(name: &str) -> bool {
        SignInMethod::ALL
            .iter()
            .any(|method| method.as_str() == name)
    }

    fn as_str(self) -> &'static str {
        match self {
            SignInMethod::Password => "password",
            SignInMethod::Upstream => "upstream",
        }
    }
}

/// The usual refusals of a sign-in.
const REFUSALS: [Refusal; 11] = [
    Refusal::CsrfRejected,
    Refusal::ValidationFailed,
    Refusal::InvalidCredentials,
    Refusal::RateLimited,
    Refusal::SessionLimitReached,
    Refusal::Internal,
    Refusal::UpstreamUnreachable,
    Refusal::UpstreamProtocolError,
    Refusal::StoreUnavailable,
    Refusal::Overloaded,
    Refusal::UpstreamTimeout,
];

/// The usual refusals of a sign-in at a provider.
const PROVIDER_REFUSALS: [Refusal; 9] = [
    Refusal::FlowInvalid,
    Refusal::SignInRefused,
    Refusal::UserExists,
    Refusal::RateLimited,
    Refusal::SessionLimitReached,
    Refusal::Internal,
    Refusal::ProviderError,
    Refusal::ProviderUnavailable,
    Refusal::StoreUnavailable,
];

impl Metrics {
    /// Counts a sign-in at a provider of the configuration; `None` for a success.
    pub fn count_provider_sign_in(&self, provider: &str, refusal: Option<Refusal>) {
        let outcome = refusal.map_or("ok".to_owned(), refusal_label);
        let labels = [provider, &outcome];
        self.sign_ins.with_label_values(&labels).inc();
    }

    pub(super) fn initialize_provider_sign_in_series(&self, provider: &str) {
        let codes = PROVIDER_REFUSALS.map(refusal_label);
        for outcome in std::iter::once("ok").chain(codes.iter().map(String::as_str)) {
            self.sign_ins.with_label_values(&[provider, outcome]);
        }
    }

    /// Counts a sign-in; `None` for a success.
    pub fn count_sign_in(&self, method: SignInMethod, refusal: Option<Refusal>) {
        let outcome = refusal.map_or("ok".to_owned(), refusal_label);
        let labels = [method.as_str(), &outcome];
        self.sign_ins.with_label_values(&labels).inc();
    }

    /// Counts the response to a logout request of a provider.
    pub fn count_backchannel_logout(&self, provider: &str, outcome: BackchannelOutcome) {
        let labels = [provider, outcome.as_str()];
        self.backchannel_logouts.with_label_values(&labels).inc();
    }

    pub(super) fn initialize_sign_in_series(&self) {
        for method in SignInMethod::ALL {
            let codes = REFUSALS.map(refusal_label);
            for outcome in std::iter::once("ok").chain(codes.iter().map(String::as_str)) {
                self.sign_ins.with_label_values(&[method.as_str(), outcome]);
            }
        }
    }
}
