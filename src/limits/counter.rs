//! Names of counters.

use std::cell::RefCell;
use std::collections::HashMap;

use foldhash::fast::RandomState;
use sha2::{Digest, Sha256};

use crate::hex_digits;

/// Maximum number of names in one generation of the cache.
const GENERATION: usize = 2048;
/// Maximum size of a cached key, in bytes. A part may be a whole header.
const MAX_CACHED_KEY: usize = 256;

thread_local! {
    /// Names that this thread has used recently. A worker serves the same principals again and
    /// again, and hashing a key costs more than the rest of a decision.
    static CACHE: RefCell<NameCache> = RefCell::default();
}

/// Name of one counter of one limit: a hash of the length-prefixed key parts.
///
/// The hash does not reveal the principal, and the length prefixes keep different combinations of
/// parts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Counter(pub [u8; 16]);

impl Counter {
    /// Names the counter of a limit for these key parts, each with the tag of its kind.
    pub fn of<'a>(limit: &str, parts: impl IntoIterator<Item = (u8, &'a [u8])>) -> Counter {
        let mut hasher = CounterHasher::of(limit);
        for (tag, bytes) in parts {
            hasher.add(tag, bytes);
        }
        hasher.finish()
    }

    /// Parses the 32 hex characters that [`Counter`] is displayed as.
    pub fn parse(text: &str) -> Option<Counter> {
        let mut name = [0; 16];
        hex::decode_to_slice(text, &mut name).ok()?;
        Some(Counter(name))
    }

    /// Writes the 32 hex characters into the caller's buffer.
    pub fn hex<'b>(&self, buffer: &'b mut [u8; 32]) -> &'b str {
        *buffer = hex_digits::encode(&self.0);
        // It cannot fail: the digits are ASCII.
        std::str::from_utf8(buffer).unwrap_or_default()
    }

    fn hash(key: &[u8]) -> Counter {
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(Sha256::digest(key)) {
            *to = from;
        }
        Counter(name)
    }
}

impl std::fmt::Display for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.hex(&mut [0; 32]))
    }
}

/// Collects the key parts of a [`Counter`], and hashes them unless the name is cached.
pub struct CounterHasher {
    key: Vec<u8>,
}

impl CounterHasher {
    pub fn of(limit: &str) -> CounterHasher {
        let key = CACHE.with_borrow_mut(|cache| std::mem::take(&mut cache.buffer));
        let mut hasher = CounterHasher { key };
        hasher.key.clear();
        hasher.update(limit.as_bytes());
        hasher
    }

    pub fn add(&mut self, tag: u8, bytes: &[u8]) {
        self.update(&[tag]);
        self.update(bytes);
    }

    pub fn finish(self) -> Counter {
        CACHE.with_borrow_mut(|cache| {
            let name = cache.name(&self.key);
            // A buffer that one request has made large is not kept.
            if self.key.capacity() <= 4 * MAX_CACHED_KEY {
                cache.buffer = self.key;
            }
            name
        })
    }

    fn update(&mut self, bytes: &[u8]) {
        let length = (bytes.len() as u64).to_be_bytes();
        self.key.extend_from_slice(&length);
        self.key.extend_from_slice(bytes);
    }
}

/// Names by their keys, in two generations: when the recent one is full, it replaces the older one,
/// so a client that sends many keys evicts names but does not use more memory.
#[derive(Default)]
struct NameCache {
    recent: HashMap<Box<[u8]>, Counter, RandomState>,
    older: HashMap<Box<[u8]>, Counter, RandomState>,
    /// Memory for the next key.
    buffer: Vec<u8>,
}

impl NameCache {
    fn name(&mut self, key: &[u8]) -> Counter {
        if let Some(name) = self.recent.get(key) {
            return *name;
        }
        let older = self.older.get(key).copied();
        let name = older.unwrap_or_else(|| Counter::hash(key));
        if key.len() <= MAX_CACHED_KEY {
            self.insert(key, name);
        }
        name
    }

    fn insert(&mut self, key: &[u8], name: Counter) {
        if self.recent.len() >= GENERATION {
            std::mem::swap(&mut self.recent, &mut self.older);
            self.recent.clear();
        }
        self.recent.insert(key.into(), name);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    /// The name by its definition, without a cache.
    fn defined(limit: &str, parts: &[(u8, Vec<u8>)]) -> Counter {
        let mut hasher = Sha256::new();
        let mut update = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        update(limit.as_bytes());
        for (tag, bytes) in parts {
            update(&[*tag]);
            update(bytes);
        }
        let mut name = [0; 16];
        name.copy_from_slice(&hasher.finalize()[..16]);
        Counter(name)
    }

    #[test]
    fn names_are_stable() {
        for (parts, name) in [
            (&[][..], "fcf894b4fbd43fbc7c5bc996c52b73c3"),
            (
                &[(b'u', &b"alice"[..])][..],
                "01a1f4a0d3416d5df91085d5fbfdc6b0",
            ),
        ] {
            let counter = Counter::of("per-user", parts.iter().copied());
            assert_eq!(counter.to_string(), name, "{parts:?}");
        }
    }

    #[test]
    fn counters_of_different_parts_differ() {
        let parts = |parts: &[(u8, &'static str)]| {
            Counter::of("l", parts.iter().map(|(tag, text)| (*tag, text.as_bytes())))
        };
        let all = [
            parts(&[(1, "a:b"), (2, "c")]),
            parts(&[(1, "a"), (2, "b:c")]),
            parts(&[(1, "a:bc"), (2, "")]),
            parts(&[(2, "a:b"), (1, "c")]),
            parts(&[(1, "a:b")]),
            Counter::of("l2", [(1, b"a:b".as_slice())]),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all.iter().skip(n + 1).all(|other| other != one));
            assert_eq!(Counter::parse(&one.to_string()), Some(*one));
        }
    }

    #[test]
    fn number_of_cached_names_is_bounded() {
        let mut cache = NameCache::default();
        for n in 0..5 * GENERATION as u64 {
            let key = n.to_be_bytes();
            assert_eq!(cache.name(&key), Counter::hash(&key));
            assert!(cache.recent.len() <= GENERATION && cache.older.len() <= GENERATION);
            // A name in use survives the generations.
            assert_eq!(cache.name(b"in use"), Counter::hash(b"in use"));
        }
        let longest = cache.recent.keys().map(|key| key.len()).max();
        cache.name(&[0; MAX_CACHED_KEY + 1]);
        assert_eq!(cache.recent.keys().map(|key| key.len()).max(), longest);
    }

    proptest! {
        #[test]
        fn cached_names_equal_their_definition(
            keys in prop::collection::vec(
                ("[a-c]{0,2}", prop::collection::vec((0..3u8, prop::collection::vec(0..3u8, 0..300)), 0..4)),
                1..20,
            ),
        ) {
            for (limit, parts) in keys.iter().chain(&keys) {
                let borrowed = parts.iter().map(|(tag, bytes)| (*tag, &bytes[..]));
                prop_assert_eq!(Counter::of(limit, borrowed), defined(limit, parts));
            }
        }
    }
}
