//! Memory of a cached session, and the time of a look-up among many. `bench/near_cache` runs it.
//!
//! `near_cache MANY`: caches this many sessions of distinct users, as `bench/sessions` writes them,
//! and prints one line of JSON: bytes of this process per session, the number of sessions that are
//! still cached, and nanoseconds per look-up.

#![expect(clippy::expect_used, reason = "a bench that cannot go on ends")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "what it measured is what it prints")]

use std::sync::Arc;
use std::time::Instant;

use portcullis::auth::session::{Session, SessionId};
use portcullis::store::SessionLookup;
use portcullis::store::near_cache::NearCache;

mod sample;

use sample::{id, session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// When they were made.
const NOW: u64 = 1_790_000_000_000;
/// How many look-ups are measured.
const LOOKUPS: u64 = 200_000;

fn main() {
    let many: u64 = std::env::args()
        .nth(1)
        .and_then(|many| many.parse().ok())
        .expect("near_cache MANY");
    let near_cache = NearCache::default();
    // As records are read: equal values are shared.
    let shared = session(0, NOW);
    let before = resident();
    for n in 0..many {
        let session = Session {
            roles: shared.roles.clone(),
            scopes: shared.scopes.clone(),
            user_agent: shared.user_agent.clone(),
            device: shared.device.clone(),
            data: shared.data.clone(),
            ..session(n, NOW)
        };
        near_cache.insert_unconfirmed(session.id, &SessionLookup::Active(Arc::new(session), 1));
    }
    let each = (resident() - before) as f64 / many as f64;
    let cached = (0..many).filter(|n| near_cache.session(id(*n)).is_some());
    let cached = cached.count();
    // Far apart, so that none is in a cache by chance; computed beforehand, since that takes longer.
    let requested: Vec<SessionId> = (0..LOOKUPS).map(|n| id(n * 7_919 % many)).collect();
    let started = Instant::now();
    let found = requested
        .iter()
        .filter(|id| near_cache.last_access(**id) > 0);
    let found = found.count() as u128;
    let nanoseconds = started.elapsed().as_nanos() / found.max(1);
    println!("{{\"bytes\": {each:.0}, \"cached\": {cached}, \"look_up_ns\": {nanoseconds}}}");
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = status
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("pages");
    pages * 4096
}
