//! Random numbers of identifiers that are no secrets.

use std::cell::RefCell;

use rand::rngs::SmallRng;
use rand::{Rng as _, make_rng};

thread_local! {
    // Seeded by the operating system. An observer of some numbers can predict the next ones.
    static GENERATOR: RefCell<SmallRng> = RefCell::new(make_rng());
}

/// Returns 64 random bits.
pub fn bits_64() -> u64 {
    GENERATOR.with_borrow_mut(SmallRng::next_u64)
}

/// Returns 128 random bits.
pub fn bits_128() -> u128 {
    u128::from(bits_64()) << 64 | u128::from(bits_64())
}
