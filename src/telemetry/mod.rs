//! Metrics, logs, text for terminals, and the IDs of requests and traces.

pub mod logging;
pub mod metrics;
pub mod printable;
pub mod random;
pub mod request_id;
pub mod trace_id;
