//! Metrics, logs and request ids.

pub mod logging;
pub mod metrics;
pub mod request_id;
pub mod trace_id;
