//! Codes that this gateway has redeemed a short while ago. The store knows those of the fleet; while it is
//! away, each gateway knows its own.

use std::collections::VecDeque;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Codes that are remembered; a code lives for a minute or so (RFC 6749, section 4.1.2).
const MAX_CODES: usize = 1024;

/// Hashes of the codes that were redeemed last. A provider may revoke all tokens of a code that it sees
/// twice, so a callback that a browser repeats would end the sign-in of the first one.
#[derive(Default)]
pub(super) struct RedeemedCodes(Mutex<VecDeque<[u8; 32]>>);

impl RedeemedCodes {
    /// Adds a code. Returns false if it was redeemed before.
    pub(super) fn add(&self, code: &str) -> bool {
        let hash = Sha256::digest(code).into();
        let mut codes = self.0.lock();
        if codes.contains(&hash) {
            return false;
        }
        if codes.len() == MAX_CODES {
            codes.pop_front();
        }
        codes.push_back(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_added_once_among_the_latest() {
        let codes = RedeemedCodes::default();
        assert!(codes.add("a"));
        assert!(!codes.add("a"));
        for number in 0..MAX_CODES {
            assert!(codes.add(&number.to_string()));
        }
        assert!(codes.add("a"), "the list is bounded");
        assert!(!codes.add("1023"));
    }
}
