//! Portcullis: an auth gateway on Pingora.
//!
//! A request walks through the rooms in this order:
//!
//! 1. [`proxy`] takes it off the wire, refuses what is malformed, and asks
//! 2. [`admission`], which reads top-down in order of cost: route, limits without identity,
//!    credential, session and revocation, requirements, limits with identity. It answers with a
//!    permit or a refusal; nothing is forwarded without a permit.
//! 3. The pure domain decides: [`routing`], [`credential`], [`token`], [`session`], [`limits`],
//!    [`refusal`]. No I/O and no clock there; time is an argument.
//! 4. [`store`] is the memory that a fleet shares (or one process keeps), [`directory`] the people
//!    in a database, [`accounts`] the stories that need both, [`api`] the front desk that tells them.
//! 5. [`config`] turns what the operator wrote into [`settings`]; [`gateway`] is the one place that
//!    knows every room and puts them together.

// An optimised build lays out the whole of a request's future at once, which nests deep.
#![recursion_limit = "256"]

pub mod gateway;

pub mod proxy;

pub mod admission;

pub mod credential;
pub mod json;
pub mod limits;
pub mod refusal;
pub mod routing;
pub mod session;
pub mod settings;
pub mod token;

pub mod store;

pub mod accounts;
pub mod api;
pub mod directory;
pub mod durable;

pub mod assertions;
pub mod config;
pub mod events;
pub mod html_page;
pub mod issuers;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod request_id;
pub mod verifier;

pub mod cli;
