//! The store: the same promises from both engines, and what a real Redis may do to one of them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

#[path = "store/acme_challenges.rs"]
mod acme_challenges;
#[path = "store/amendments.rs"]
mod amendments;
#[path = "store/api_keys.rs"]
mod api_keys;
#[path = "store/breaker.rs"]
mod breaker;
#[path = "store/cached_refusals.rs"]
mod cached_refusals;
#[path = "store/cancellation.rs"]
mod cancellation;
#[path = "store/captured_logs.rs"]
mod captured_logs;
#[path = "store/cluster.rs"]
mod cluster;
#[path = "store/corrupt_keys.rs"]
mod corrupt_keys;
#[path = "store/decisions.rs"]
mod decisions;
#[path = "support/fault_proxy.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "shared with the tests of the gateway"
)]
mod fault_proxy;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/fleet_state.rs"]
mod fleet_state;
#[path = "store/journal.rs"]
mod journal;
#[path = "store/leased_limits.rs"]
mod leased_limits;
#[path = "store/listing.rs"]
mod listing;
#[path = "store/local_limits.rs"]
mod local_limits;
#[path = "store/lookup_batch.rs"]
mod lookup_batch;
#[path = "store/marker.rs"]
mod marker;
#[path = "store/near_cache.rs"]
mod near_cache;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/ports.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "shared with the tests of the gateway"
)]
mod ports;
#[path = "store/provider_logouts.rs"]
mod provider_logouts;
#[path = "store/provider_sessions.rs"]
mod provider_sessions;
#[path = "store/provider_tokens.rs"]
mod provider_tokens;
#[path = "store/record_changes.rs"]
mod record_changes;
#[path = "store/refresh.rs"]
mod refresh;
#[path = "store/revocation_replicas.rs"]
mod revocation_replicas;
#[path = "store/script_agreement.rs"]
mod script_agreement;
#[path = "store/server.rs"]
mod server;
#[path = "support/servers.rs"]
mod servers;
#[path = "store/sessions.rs"]
mod sessions;
#[path = "store/support.rs"]
mod support;
#[path = "store/tls.rs"]
mod tls;
