//! The stages of a request, each on its own: its path, its route, its credential, its token, the
//! decision, the arithmetic of limits, and the written headers. `cargo bench` runs all of them,
//! `cargo bench -- token` those with the word in their names.

#![expect(clippy::expect_used, reason = "a bench that cannot go on ends")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

mod decision;
mod limits;
mod parts;
#[path = "../../examples/sample/mod.rs"]
mod sample;
mod wire;

use std::time::Duration;

use criterion::Criterion;

/// The gateway's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    wire::path(&mut criterion);
    wire::routing(&mut criterion);
    wire::credential(&mut criterion);
    decision::token(&mut criterion);
    decision::admission(&mut criterion);
    limits::algorithms(&mut criterion);
    wire::headers(&mut criterion);
    criterion.final_summary();
}
