//! Public listeners and the HTTP engine.

pub mod connection;
pub mod connection_auth;
pub mod http1;
pub mod listener;
pub mod local_response;
pub mod open_streams;
pub mod request_context;
pub mod worker;

mod api_bridge;
mod authorize;
mod grpc;
mod grpc_query;
mod pingora;
mod retry;
mod server_selection;
mod upstream_failures;

pub use self::pingora::{WorkerProxy, probe_sender};
pub use worker::Worker;
