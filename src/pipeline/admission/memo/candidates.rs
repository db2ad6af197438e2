//! Credentials that wait for their second request.

/// Number of groups. The hash of a credential selects its group.
const GROUPS: usize = 512;
/// Number of credentials in a group.
const GROUP: usize = 8;

/// Multiplier of a linear congruential generator.
const MULTIPLIER: u64 = 0x5851_f42d_4c95_7f2d;

/// Hashes of credentials that were admitted once, so that one that does not come again displaces no
/// entry of the memo.
pub(super) struct Candidates {
    groups: Vec<[u64; GROUP]>,
    /// Selects the place of the next candidate in its group, as if at random: if a group has more
    /// credentials in turn than places, some of them stay until they come again.
    seed: u64,
}

impl Default for Candidates {
    fn default() -> Candidates {
        Candidates {
            groups: vec![[0; GROUP]; GROUPS],
            seed: 0,
        }
    }
}

impl Candidates {
    /// Whether a credential was admitted before; from now on it was.
    pub(super) fn recurs(&mut self, hash: u64) -> bool {
        // Truncated: the low bits select the group.
        let Some(group) = self.groups.get_mut(hash as usize % GROUPS) else {
            return false;
        };
        if group.contains(&hash) {
            return true;
        }
        self.seed = self.seed.wrapping_mul(MULTIPLIER).wrapping_add(hash);
        // Its low bits repeat soon.
        if let Some(displaced) = group.get_mut((self.seed >> 32) as usize % GROUP) {
            *displaced = hash;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use foldhash::fast::FixedState;

    use super::*;

    /// The number of users that have not recurred after each has sent this many requests, in turn.
    fn left_out(users: u64, requests: usize) -> usize {
        let mut candidates = Candidates::default();
        let hasher = FixedState::default();
        let mut waiting: Vec<u64> = (0..users).map(|user| hasher.hash_one(user)).collect();
        for _ in 0..requests {
            waiting.retain(|hash| !candidates.recurs(*hash));
        }
        waiting.len()
    }

    #[test]
    fn users_in_turn_recur() {
        assert_eq!(left_out(1, 1), 1);
        assert_eq!(left_out(1, 2), 0);
        assert!(left_out(1000, 3) <= 50);
        assert_eq!(left_out(1000, 10), 0);
        assert_eq!(left_out(4096, 20), 0);
    }

    #[test]
    fn users_who_come_once_do_not_recur() {
        let mut candidates = Candidates::default();
        let hasher = FixedState::default();
        assert!(!(0..100_000_u64).any(|user| candidates.recurs(hasher.hash_one(user))));
    }
}
