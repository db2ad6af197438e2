//! Operations of the Redis engine, by subject.

pub(super) mod acme_challenges;
pub(super) mod amend;
mod api_keys;
pub(super) mod cluster_decide;
pub(super) mod fleet;
pub(super) mod journal;
pub(super) mod lease_grants;
pub(super) mod limits;
pub(super) mod listing;
pub(super) mod lookup_batch;
pub(super) mod maintenance;
pub(super) mod marker;
pub(super) mod open_connections;
pub(super) mod profiles;
pub(super) mod provider_logout;
pub(super) mod provider_tokens;
pub(super) mod refresh_tokens;
pub(super) mod revocations;
pub(super) mod sessions;
pub(super) mod user_index;
pub(super) mod user_sessions;
