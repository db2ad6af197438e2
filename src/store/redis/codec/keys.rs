//! The names of all keys; `docs/redis-keys.md` says what is in them and how long they live. What
//! must change together has the same hash tag, and so lies in one slot of a cluster.

use crate::auth::session::SessionId;
use crate::limits::{Algorithm, Charge, Rule};
use crate::store::redis::links::slots;
use crate::store::{CacheKey, UserHash, user_hash};

pub(in crate::store::redis) const SESSION: &str = "session:{";
const USE: &str = "use:{";
const LIVE: &str = "live:{";
const IDENTITY: &str = "identity:{";
const USER: &str = "user:";
const PROFILE: &str = "profile:";
const BLACKLIST: &str = "blacklist:";
const CUT_OFF: &str = "cutoff:";
const LEASE: &str = "lease:";
const LIMIT: &str = "limit:";
const PROBE: &str = "probe:";
const EVENTS: &str = "events:";
/// What the gateway's keys begin with after the prefix, and those that have one name.
const FAMILIES: [&str; 13] = [
    SESSION, USE, IDENTITY, LIVE, USER, PROFILE, LEASE, BLACKLIST, CUT_OFF, LIMIT, PROBE, MARKER,
    EVENTS,
];
const SINGLE_KEYS: [&str; 4] = ["events", "counts", "gateways", "cleaning"];
const MARKER: &str = "marker";
/// Of as many masters each has a marker, if their slots lie together.
const MARKER_RANGES: u16 = 64;

/// The keys that a clean-up looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum KeyKind {
    Session,
    User,
    Live,
    Profile,
    Blacklist,
}

pub(in crate::store::redis) struct Keys {
    prefix: String,
}

impl Keys {
    pub(in crate::store::redis) fn new(prefix: &str) -> Keys {
        Keys {
            prefix: prefix.to_owned(),
        }
    }

    /// A string: the record of a session, which gateways remember.
    pub(in crate::store::redis) fn session(&self, id: &SessionId) -> String {
        self.for_session(SESSION, id)
    }

    /// A string: how the session is used, and its refresh tokens.
    pub(in crate::store::redis) fn usage(&self, id: &SessionId) -> String {
        self.for_session(USE, id)
    }

    /// Both of them: what a script about a session is given.
    pub(in crate::store::redis) fn record_and_usage(&self, id: &SessionId) -> [String; 2] {
        [self.session(id), self.usage(id)]
    }

    /// A string: the version of its user's identity that was last written to the session's record.
    pub(in crate::store::redis) fn identity(&self, id: &SessionId) -> String {
        self.for_session(IDENTITY, id)
    }

    /// A hash: how many connections each gateway has open for the session.
    pub(in crate::store::redis) fn live(&self, id: &SessionId) -> String {
        self.for_session(LIVE, id)
    }

    /// Put together by hand, as [`Keys::limit`] is: every request names one of these.
    fn for_session(&self, word: &str, id: &SessionId) -> String {
        let mut key = String::with_capacity(self.prefix.len() + word.len() + 65);
        key.push_str(&self.prefix);
        key.push_str(word);
        key.push_str(id.write_hex(&mut [0; 64]));
        key.push('}');
        key
    }

    /// A hash: a user's sessions, alive and ended.
    pub(in crate::store::redis) fn user(&self, user: &str) -> String {
        format!("{}{USER}{{{}}}", self.prefix, short_hash(user))
    }

    /// Two strings: a user's cached profile, and the lease to put it.
    pub(in crate::store::redis) fn profile(&self, user: &str) -> [String; 2] {
        let hash = short_hash(user);
        let name = |word| format!("{}{word}{{{hash}}}", self.prefix);
        [name(PROFILE), name(LEASE)]
    }

    /// A string: the second up to which a person's tokens without session are refused.
    pub(in crate::store::redis) fn cut_off(&self, person: &UserHash) -> String {
        format!("{}{CUT_OFF}{}", self.prefix, hex::encode(person))
    }

    /// A stream: the latest events of a kind of high volume, or of all other kinds. All are in the slot of
    /// the latter: the clock of one server orders them.
    pub(in crate::store::redis) fn events(&self, kind: Option<&str>) -> String {
        let others = format!("{}events", self.prefix);
        match kind {
            Some(kind) => format!("{}{EVENTS}{{{others}}}:{kind}", self.prefix),
            None => others,
        }
    }

    /// A string or a list: one counter of one limit, begun anew when its algorithm or window
    /// changes.
    pub(in crate::store::redis) fn limit(&self, charge: &Charge) -> String {
        let name = &charge.limit.name;
        let mut key = String::with_capacity(self.prefix.len() + name.len() + 64);
        key.push_str(&self.prefix);
        key.push_str(LIMIT);
        key.push_str(name);
        key.push(':');
        key.push_str(charge.counter.hex(&mut [0; 32]));
        key.push(':');
        key.push(char::from(algorithm_code(charge)));
        key.push_str(&Rule::of(&charge.limit).width.to_string());
        key
    }

    /// A string: a token that is refused.
    pub(in crate::store::redis) fn blacklist(&self, key: &str) -> String {
        format!("{}{BLACKLIST}{key}", self.prefix)
    }

    /// A string: the counts of the last clean-up.
    pub(in crate::store::redis) fn counts(&self) -> String {
        format!("{}counts", self.prefix)
    }

    /// A hash: the gateways that are there.
    pub(in crate::store::redis) fn gateways(&self) -> String {
        format!("{}gateways", self.prefix)
    }

    /// Strings: what the store is known by; in a cluster one in each of so many ranges of slots.
    pub(in crate::store::redis) fn markers(&self, clustered: bool) -> Vec<String> {
        if !clustered {
            return vec![format!("{}{MARKER}", self.prefix)];
        }
        let mut markers = vec![None; usize::from(MARKER_RANGES)];
        for number in 0_u32.. {
            let slot = slots::slot(number.to_string().as_bytes());
            if let Some(free @ None) =
                markers.get_mut(usize::from(slot / (slots::SLOTS / MARKER_RANGES)))
            {
                *free = Some(format!("{}{MARKER}:{{{number}}}", self.prefix));
            }
            if markers.iter().all(Option::is_some) {
                break;
            }
        }
        markers.into_iter().flatten().collect()
    }

    /// A string: that a gateway is cleaning up.
    pub(in crate::store::redis) fn clean_up_lease(&self) -> String {
        format!("{}cleaning", self.prefix)
    }

    /// A string: a trial write.
    pub(in crate::store::redis) fn probe(&self) -> String {
        format!("{}{PROBE}{:016x}", self.prefix, rand::random::<u64>())
    }

    /// Whether a key that has the prefix is one that the gateway would write.
    pub(in crate::store::redis) fn is_gateway_key(&self, key: &str) -> bool {
        key.strip_prefix(&self.prefix).is_some_and(|name| {
            SINGLE_KEYS.contains(&name) || FAMILIES.iter().any(|word| name.starts_with(word))
        })
    }

    /// What a key is, by its first word; `None`: none of those that are looked for.
    pub(in crate::store::redis) fn kind(&self, key: &str) -> Option<KeyKind> {
        let name = key.strip_prefix(&self.prefix)?;
        let kinds = [
            (SESSION, KeyKind::Session),
            (USER, KeyKind::User),
            (LIVE, KeyKind::Live),
            (PROFILE, KeyKind::Profile),
            (BLACKLIST, KeyKind::Blacklist),
        ];
        let found = kinds.iter().find(|(word, _)| name.starts_with(word));
        found.map(|(_, kind)| *kind)
    }

    /// What is refused by this key, if it is an entry of the blacklist or a cut-off.
    pub(in crate::store::redis) fn revocation_item(&self, key: &str) -> Option<CacheKey> {
        let item = self.tracked_item(key.as_bytes())?;
        (!matches!(item, CacheKey::Session(_))).then_some(item)
    }

    /// The prefixes of what gateways remember.
    pub(in crate::store::redis) fn tracked_prefixes(&self) -> [String; 3] {
        [SESSION, BLACKLIST, CUT_OFF].map(|word| format!("{}{word}", self.prefix))
    }

    /// What a key of those is about; `None`: it is none of ours.
    pub(in crate::store::redis) fn tracked_item(&self, key: &[u8]) -> Option<CacheKey> {
        let key = std::str::from_utf8(key).ok()?;
        if let Some(id) = self.session_id(key) {
            return Some(CacheKey::Session(id));
        }
        let name = key.strip_prefix(&self.prefix)?;
        if let Some(person) = name.strip_prefix(CUT_OFF) {
            let mut hash = UserHash::default();
            hex::decode_to_slice(person, &mut hash).ok()?;
            return Some(CacheKey::User(hash));
        }
        let token = name.strip_prefix(BLACKLIST)?;
        Some(CacheKey::Token(token.to_owned()))
    }

    /// Reads the id back from the key of a session.
    pub(in crate::store::redis) fn session_id(&self, key: &str) -> Option<SessionId> {
        let id = key.strip_prefix(&self.prefix)?.strip_prefix(SESSION)?;
        SessionId::parse(id.strip_suffix('}')?)
    }

    /// The pattern of keys that begin with this word, for `SCAN`.
    pub(in crate::store::redis) fn scan_pattern(&self, word: &str) -> String {
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
pub(in crate::store::redis) fn algorithm_code(charge: &Charge) -> u8 {
    match charge.limit.algorithm {
        Algorithm::SlidingWindow => b'w',
        Algorithm::SlidingLog => b'l',
        Algorithm::TokenBucket { .. } => b'b',
    }
}

fn short_hash(user: &str) -> String {
    hex::encode(user_hash(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_events_are_in_one_slot() {
        for prefix in ["portcullis:", "{app}:", ""] {
            let keys = Keys::new(prefix);
            let others = keys.events(None);
            let bulk = keys.events(Some("csrf_rejected"));
            assert!(bulk.starts_with(prefix) && bulk.ends_with(":csrf_rejected"));
            assert_eq!(slots::slot(bulk.as_bytes()), slots::slot(others.as_bytes()));
        }
    }
}
