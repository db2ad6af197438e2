//! Connections to Redis: dialing, supervision, topologies, tracking and permissions.

pub(super) mod acl;
pub(super) mod cluster_client;
pub(super) mod cluster_map;
pub(super) mod connection;
pub(super) mod connection_context;
pub(super) mod dial;
pub(super) mod exchange_error;
pub(in crate::store) mod inspect;
pub(super) mod pipelined_connection;
pub(super) mod replicas;
pub(super) mod sentinel;
pub(super) mod slots;
pub(super) mod supervision;
pub(super) mod task_slot;
pub(super) mod tls;
pub(super) mod topology_client;
pub(super) mod tracking;
