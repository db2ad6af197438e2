//! Envoy's `ext_authz` over gRPC: the messages of `envoy.service.auth.v3.Authorization/Check`.
//!
//! The HTTP/2 engine carries the calls: it has the limits and the drain of every connection, and keeps
//! a call on the worker whose memo has the decisions on known credentials. A server of gRPC would need
//! connections of its own, and futures that may move to another thread.

mod framing;
mod health;
pub mod messages;
mod request;
mod response;

pub use health::{CHECK_HEALTH, health};
pub use request::Call;
pub use response::{allow, deny};

/// The path of the service's only method.
pub const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
