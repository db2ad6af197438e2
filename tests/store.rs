//! The store: the same promises from both engines, and what a real Redis may do to one of them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "store/agreement.rs"]
mod agreement;
#[path = "store/amendments.rs"]
mod amendments;
#[path = "store/breaker.rs"]
mod breaker;
#[path = "store/cancellation.rs"]
mod cancellation;
#[path = "store/captured.rs"]
mod captured;
#[path = "store/cluster.rs"]
mod cluster;
#[path = "support/cuttable.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "shared with the tests of the gateway"
)]
mod cuttable;
#[path = "store/decisions.rs"]
mod decisions;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/introspection.rs"]
mod introspection;
#[path = "store/journal.rs"]
mod journal;
#[path = "store/leases.rs"]
mod leases;
#[path = "store/listing.rs"]
mod listing;
#[path = "store/local.rs"]
mod local;
#[path = "store/marker.rs"]
mod marker;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/ports.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "shared with the tests of the gateway"
)]
mod ports;
#[path = "store/record_changes.rs"]
mod record_changes;
#[path = "store/refresh.rs"]
mod refresh;
#[path = "store/refusals.rs"]
mod refusals;
#[path = "store/replica.rs"]
mod replica;
#[path = "store/replicas.rs"]
mod replicas;
#[path = "store/server.rs"]
mod server;
#[path = "support/servers.rs"]
mod servers;
#[path = "store/sessions.rs"]
mod sessions;
#[path = "store/shared.rs"]
mod shared;
#[path = "store/spoilt.rs"]
mod spoilt;
#[path = "store/support.rs"]
mod support;
#[path = "store/tls.rs"]
mod tls;
