//! Limits, upstreams and routes.

pub(in crate::config) mod limit;
pub(in crate::config) mod route;
pub(in crate::config) mod upstream;
