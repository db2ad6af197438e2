//! Names of counters.

use sha2::{Digest, Sha256};

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
        // Neither call fails: the length fits, and hex is ASCII.
        let _ = hex::encode_to_slice(self.0, buffer);
        std::str::from_utf8(buffer).unwrap_or_default()
    }
}

impl std::fmt::Display for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.hex(&mut [0; 32]))
    }
}

/// Incremental hasher of a [`Counter`]'s key parts, which need not be collected first.
pub struct CounterHasher(Sha256);

impl CounterHasher {
    pub fn of(limit: &str) -> CounterHasher {
        let mut hasher = CounterHasher(Sha256::new());
        hasher.update(limit.as_bytes());
        hasher
    }

    pub fn add(&mut self, tag: u8, bytes: &[u8]) {
        self.update(&[tag]);
        self.update(bytes);
    }

    pub fn finish(self) -> Counter {
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(self.0.finalize()) {
            *to = from;
        }
        Counter(name)
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
