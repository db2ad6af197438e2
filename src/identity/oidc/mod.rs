//! Sign-in at OpenID providers.
//!
//! A [`ProviderClient`] is everything that the gateway does with a provider as a remote service. What
//! a provider sends is hostile input: each call has a deadline, reads at most 1 MiB, follows no
//! redirect, and is classified by [`CallbackFault`](crate::rejection::CallbackFault).

mod allow;
mod authorization;
mod backchannel_logout;
mod call;
pub mod callback;
mod client_authentication;
mod discovery;
mod end_session;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod flow;
mod github;
mod health;
mod kept_tokens;
mod link;
mod metadata;
mod probe;
mod proven_identity;
mod providers;
mod redeemed_codes;
mod revocation;
pub mod sign_in;
mod token_endpoint;
mod user;
mod userinfo;
mod verification;

pub use allow::is_allowed;
pub use authorization::AuthorizationRequest;
pub use backchannel_logout::LogoutFailure;
pub(super) use backchannel_logout::PendingLogouts;
pub use health::ProviderStatus;
pub use kept_tokens::{ProviderTokens, TokenContext};
pub use metadata::{ProviderMetadata, discovery_url};
pub use probe::{ProbeError, ProviderProbe, probe};
pub use providers::{ProviderClient, Providers};
pub use token_endpoint::{LateSuccessor, RefreshOutcome, TokenResponse};
pub use user::ProviderUser;

#[cfg(test)]
mod tests;
