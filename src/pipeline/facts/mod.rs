//! What is known of a request before it is decided.

pub mod client_origin;
pub mod host;
pub mod trace_context;

pub use client_origin::ClientOrigin;
