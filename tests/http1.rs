//! The HTTP/1.1 engine from within: what a request allocates, and how its readers take any bytes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests"
)]
#![expect(
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "the harness and the oracles are shared"
)]

#[path = "support/mod.rs"]
mod support;

#[path = "http1/allocations.rs"]
mod allocations;
#[path = "http1/fuzz.rs"]
mod fuzz;
#[path = "fuzz/oracles.rs"]
mod oracles;
