//! The names of all keys; `docs/redis-keys.md` says what is in them and how long they live. What
//! must change together has the same hash tag, and so lies in one slot of a cluster.

use sha2::{Digest, Sha256};

use crate::limits::{Algorithm, Charge, Rule};
use crate::session::SessionId;

pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Keys {
        Keys {
            prefix: prefix.to_owned(),
        }
    }

    /// A hash: who signed in, when, from where, and how it ended.
    pub(super) fn session(&self, id: &SessionId) -> String {
        self.of("session:{", id)
    }

    /// A hash: how the session is used.
    pub(super) fn activity(&self, id: &SessionId) -> String {
        self.of("activity:{", id)
    }

    /// A hash: the session's refresh tokens, by their hashes.
    pub(super) fn refresh(&self, id: &SessionId) -> String {
        self.of("refresh:{", id)
    }

    /// Put together by hand, as [`Keys::limit`] is: every request names two of these.
    fn of(&self, word: &str, id: &SessionId) -> String {
        let mut key = String::with_capacity(self.prefix.len() + word.len() + 65);
        key.push_str(&self.prefix);
        key.push_str(word);
        key.push_str(id.hex(&mut [0; 64]));
        key.push('}');
        key
    }

    /// Two sorted sets: a user's sessions that are alive, and those that have ended.
    pub(super) fn user(&self, user: &str) -> [String; 2] {
        let hash = Sha256::digest(user.as_bytes());
        let name = hex::encode(hash.get(..16).unwrap_or(&hash));
        let alive = format!("{}user:{{{name}}}", self.prefix);
        let ended = format!("{alive}:ended");
        [alive, ended]
    }

    /// A string or a list: one counter of one limit, begun anew when its algorithm or window
    /// changes.
    pub(super) fn limit(&self, charge: &Charge) -> String {
        let name = &charge.limit.name;
        let mut key = String::with_capacity(self.prefix.len() + name.len() + 64);
        key.push_str(&self.prefix);
        key.push_str("limit:");
        key.push_str(name);
        key.push(':');
        key.push_str(charge.counter.hex(&mut [0; 32]));
        key.push(':');
        key.push(algorithm(charge));
        key.push_str(&Rule::of(&charge.limit).width.to_string());
        key
    }

    /// A string: a token that is refused.
    pub(super) fn blacklist(&self, key: &str) -> String {
        format!("{}blacklist:{key}", self.prefix)
    }

    /// A string: the counts of the last clean-up.
    pub(super) fn counts(&self) -> String {
        format!("{}counts", self.prefix)
    }

    /// A string: that a gateway is cleaning up.
    pub(super) fn cleaning(&self) -> String {
        format!("{}cleaning", self.prefix)
    }

    /// A string: a trial write.
    pub(super) fn probe(&self) -> String {
        format!("{}probe:{:016x}", self.prefix, rand::random::<u64>())
    }

    /// Reads the id back from the key of a session.
    pub(super) fn session_id(&self, key: &str) -> Option<SessionId> {
        let id = key.strip_prefix(&self.prefix)?.strip_prefix("session:{")?;
        SessionId::parse(id.strip_suffix('}')?)
    }

    /// The pattern of keys that begin with this word, for `SCAN`.
    pub(super) fn pattern(&self, word: &str) -> String {
        let mut pattern = String::new();
        for character in self.prefix.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + word + "*"
    }
}

/// The letter that the scripts know an algorithm by.
pub(super) fn algorithm(charge: &Charge) -> char {
    match charge.limit.algorithm {
        Algorithm::SlidingWindow => 'w',
        Algorithm::SlidingLog => 'l',
        Algorithm::TokenBucket { .. } => 'b',
    }
}
