//! Portcullis: an auth gateway on Pingora.
//!
//! Modules in the order of a request:
//!
//! 1. [`proxy`] accepts connections, rejects malformed requests, forwards and streams.
//!    [`forward_auth`] reads the calls of front proxies.
//! 2. [`pipeline`] decides: route, limits without identity, credential, session and revocation,
//!    requirements, limits with identity. The result is a permit or a rejection.
//! 3. The pure modules hold the rules: [`routing`], [`auth`], [`limits`], [`rejection`]. They have no
//!    I/O and no clock; time is an argument.
//! 4. [`sessions`] looks up, creates and ends sessions, over [`store`] (the state that a fleet shares)
//!    and [`database`]; [`identity`] signs users in; [`api`] serves the gateway's own endpoints.
//! 5. [`config`] turns the configuration file into [`settings`]; [`gateway`] is the composition root.

// An optimized build lays out the whole of a request's future at once, which nests deep.
#![recursion_limit = "256"]
#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests measure time")
)]

pub mod cli;
pub mod config;
pub mod gateway;
pub mod settings;

pub mod api;
pub mod forward_auth;
pub mod pipeline;
pub mod proxy;

pub mod auth;
pub mod limits;
pub mod rejection;
pub mod routing;

pub mod database;
pub mod events;
pub mod identity;
pub mod issuers;
pub mod sessions;
pub mod store;
pub mod telemetry;
pub mod upstream;

pub mod clock;
pub mod hex_digits;
pub mod http_client;
pub mod json;
pub mod memory_budget;
pub mod tls;
