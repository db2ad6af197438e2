//! Names of all Redis keys; `docs/redis-keys.md` describes their content for operators.
//!
//! Each constructor documents type, TTL and owner, the module that writes the key. Keys that change
//! together have the same hash tag and are therefore in one slot of a cluster.

use crate::auth::api_key::ApiKeyId;
use crate::auth::provider_logout::SignInGroup;
use crate::auth::session::SessionId;
use crate::limits::{Algorithm, Charge, Rule};
use crate::store::redis::links::slots;
use crate::store::{CacheKey, UserHash, user_hash};

pub(in crate::store::redis) const SESSION: &str = "session:{";
const API_KEY: &str = "api-key:{";
const API_KEY_LEASE: &str = "api-key-lease:{";
const USE: &str = "use:{";
const LIVE: &str = "live:{";
const PROVIDER_TOKENS: &str = "provider-tokens:{";
const SIGN_IN_USERS: &str = "provider-users:";
const LOGOUT_MARK: &str = "provider-logout:";
const LOGOUT_TOKEN: &str = "logout-token:";
const PROVIDER_CODE: &str = "provider-code:";
const IDENTITY: &str = "identity:{";
const USER: &str = "user:";
const PROFILE: &str = "profile:";
const BLACKLIST: &str = "blacklist:";
const CUT_OFF: &str = "cutoff:";
const LEASE: &str = "lease:";
const LIMIT: &str = "limit:";
const PROBE: &str = "probe:";
const EVENTS: &str = "events:";
const ACME: &str = "acme:";
/// Beginnings of the gateway's keys after the prefix; [`SINGLE_KEYS`] are whole names.
const FAMILIES: [&str; 21] = [
    SESSION,
    API_KEY,
    API_KEY_LEASE,
    USE,
    IDENTITY,
    LIVE,
    PROVIDER_TOKENS,
    SIGN_IN_USERS,
    LOGOUT_MARK,
    LOGOUT_TOKEN,
    PROVIDER_CODE,
    USER,
    PROFILE,
    LEASE,
    BLACKLIST,
    CUT_OFF,
    LIMIT,
    PROBE,
    MARKER,
    EVENTS,
    ACME,
];
const SINGLE_KEYS: [&str; 5] = ["events", "counts", "gateways", "cleaning", "logouts"];
const MARKER: &str = "marker";
/// Number of slot ranges with a marker each: up to 64 masters with contiguous slots have at least one.
const MARKER_RANGES: u16 = 64;

/// Kinds of keys that a clean-up processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum KeyKind {
    Session,
    User,
    Live,
    Profile,
    Blacklist,
}

/// Constructor and parser of key names.
pub(in crate::store::redis) struct Keys {
    prefix: String,
}

impl Keys {
    pub(in crate::store::redis) fn new(prefix: &str) -> Keys {
        Keys {
            prefix: prefix.to_owned(),
        }
    }

    /// Record of a session, or of an API key; gateways cache it.
    ///
    /// String; until one hour after the expiry, or at least one hour after the end; `sessions`. That of an
    /// API key: one day from its latest use; `api_keys`.
    pub(in crate::store::redis) fn session(&self, id: &SessionId) -> String {
        match id.api_key() {
            Some(_) => self.for_session(API_KEY, id),
            None => self.for_session(SESSION, id),
        }
    }

    /// Record of an API key, and the lease to store it.
    ///
    /// Two strings; one day from the latest use, and 30 s; `api_keys`.
    pub(in crate::store::redis) fn api_key_and_lease(&self, id: &SessionId) -> [String; 2] {
        [self.session(id), self.for_session(API_KEY_LEASE, id)]
    }

    /// Use of a session, and its refresh tokens.
    ///
    /// String; as long as the record; `sessions`, `refresh_tokens`.
    pub(in crate::store::redis) fn usage(&self, id: &SessionId) -> String {
        self.for_session(USE, id)
    }

    /// Record and use of a session, the keys of most scripts about sessions.
    pub(in crate::store::redis) fn record_and_usage(&self, id: &SessionId) -> [String; 2] {
        [self.session(id), self.usage(id)]
    }

    /// The keys of a session that its end changes.
    pub(in crate::store::redis) fn ended_with_session(&self, id: &SessionId) -> [String; 3] {
        [self.session(id), self.usage(id), self.provider_tokens(id)]
    }

    /// Sealed provider tokens of a session.
    ///
    /// String; until the session ends, or a clean-up finds that it has expired; `provider_tokens`.
    pub(in crate::store::redis) fn provider_tokens(&self, id: &SessionId) -> String {
        self.for_session(PROVIDER_TOKENS, id)
    }

    /// Version of the user's identity that was last written to the session's record.
    ///
    /// String; as long as the record; `user_sessions`.
    pub(in crate::store::redis) fn identity(&self, id: &SessionId) -> String {
        self.for_session(IDENTITY, id)
    }

    /// Number of open connections of the session on each gateway.
    ///
    /// Hash; 30 s from the latest report; `open_connections`.
    pub(in crate::store::redis) fn live(&self, id: &SessionId) -> String {
        self.for_session(LIVE, id)
    }

    /// Built without `format!`, like [`Keys::limit`], because every request needs one.
    fn for_session(&self, family: &str, id: &SessionId) -> String {
        let mut key = String::with_capacity(self.prefix.len() + family.len() + 65);
        key.push_str(&self.prefix);
        key.push_str(family);
        match id.api_key() {
            Some(id) => key.push_str(id.as_str()),
            None => key.push_str(id.write_hex(&mut [0; 64])),
        }
        key.push('}');
        key
    }

    /// Index of a user's sessions, active and ended.
    ///
    /// Hash; until one hour after the last session expires; `user_index`.
    pub(in crate::store::redis) fn user(&self, user: &str) -> String {
        format!("{}{USER}{{{}}}", self.prefix, short_hash(user))
    }

    /// Users that signed in at a provider, by its session or its `sub` of them.
    ///
    /// Hash; until the last of their sessions expires; `provider_logout`.
    pub(in crate::store::redis) fn sign_in_users(&self, group: &SignInGroup) -> String {
        format!("{}{SIGN_IN_USERS}{}", self.prefix, hex::encode(group))
    }

    /// Number of the latest logout at a provider.
    ///
    /// String; one hour; `provider_logout`.
    pub(in crate::store::redis) fn logouts(&self) -> String {
        format!("{}logouts", self.prefix)
    }

    /// Number of the latest logout at a provider of these sign-ins.
    ///
    /// String; 10 minutes; `provider_logout`.
    pub(in crate::store::redis) fn logout_mark(&self, group: &SignInGroup) -> String {
        format!("{}{LOGOUT_MARK}{}", self.prefix, hex::encode(group))
    }

    /// Use of a logout token.
    ///
    /// String; until the token expires; `provider_logout`.
    pub(in crate::store::redis) fn logout_token(&self, token: &[u8; 16]) -> String {
        format!("{}{LOGOUT_TOKEN}{}", self.prefix, hex::encode(token))
    }

    /// Redemption of a code.
    ///
    /// String; 10 minutes; `provider_logout`.
    pub(in crate::store::redis) fn provider_code(&self, code: &[u8; 16]) -> String {
        format!("{}{PROVIDER_CODE}{}", self.prefix, hex::encode(code))
    }

    /// Response to a challenge of a certificate authority.
    ///
    /// String; until the order ends, at most 10 minutes; `acme_challenges`.
    pub(in crate::store::redis) fn acme_challenge(&self, name: &str) -> String {
        format!("{}{ACME}{name}", self.prefix)
    }

    /// Cached profile of a user, and the lease to store it.
    ///
    /// Two strings; 30 minutes and 30 s; `profiles`.
    pub(in crate::store::redis) fn profile(&self, user: &str) -> [String; 2] {
        let hash = short_hash(user);
        let key = |family| format!("{}{family}{{{hash}}}", self.prefix);
        [key(PROFILE), key(LEASE)]
    }

    /// Second up to which a user's tokens without a session are rejected; gateways cache it.
    ///
    /// String; 366 days; `revocations`.
    pub(in crate::store::redis) fn cut_off(&self, user: &UserHash) -> String {
        format!("{}{CUT_OFF}{}", self.prefix, hex::encode(user))
    }

    /// Latest events of one bulk kind, or of all other kinds.
    ///
    /// Stream; 90 days from the latest event; `journal`. All streams are in one slot, so that the clock
    /// of one server orders the events.
    pub(in crate::store::redis) fn events(&self, kind: Option<&str>) -> String {
        let others = format!("{}events", self.prefix);
        match kind {
            Some(kind) => format!("{}{EVENTS}{{{others}}}:{kind}", self.prefix),
            None => others,
        }
    }

    /// Counter of a limit. Its name contains algorithm and window, so that a change starts it anew.
    ///
    /// String (sliding window, token bucket) or list (sliding log); until nothing counts any more, plus
    /// one second; `limits`, `lease_grants`.
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
        let width = Rule::of(&charge.limit).width;
        key.push_str(itoa::Buffer::new().format(width));
        key
    }

    /// Blacklist entry of a token; gateways cache its existence.
    ///
    /// String; as set by the revocation; `revocations` and other programs.
    pub(in crate::store::redis) fn blacklist(&self, key: &str) -> String {
        format!("{}{BLACKLIST}{key}", self.prefix)
    }

    /// Counts of the last clean-up.
    ///
    /// String; one day; `maintenance`.
    pub(in crate::store::redis) fn counts(&self) -> String {
        format!("{}counts", self.prefix)
    }

    /// Gateways of the fleet, with the time up to which each has confirmed changes.
    ///
    /// Hash; 3 s from the latest announcement; `fleet`.
    pub(in crate::store::redis) fn gateways(&self) -> String {
        format!("{}gateways", self.prefix)
    }

    /// Markers of the store's data; in a cluster, one in each of [`MARKER_RANGES`] slot ranges.
    ///
    /// Strings; 366 days from the latest extension; `marker`.
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

    /// Lease of the clean-up.
    ///
    /// String; 60 s, extended while the clean-up runs; `maintenance`.
    pub(in crate::store::redis) fn clean_up_lease(&self) -> String {
        format!("{}cleaning", self.prefix)
    }

    /// Trial write of the probe, with a random name.
    ///
    /// String; 10 s; `maintenance`.
    pub(in crate::store::redis) fn probe(&self) -> String {
        format!("{}{PROBE}{:016x}", self.prefix, rand::random::<u64>())
    }

    /// Whether a key under the prefix is one of the gateway's.
    pub(in crate::store::redis) fn is_gateway_key(&self, key: &str) -> bool {
        key.strip_prefix(&self.prefix).is_some_and(|name| {
            SINGLE_KEYS.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family))
        })
    }

    /// The kind of a key; `None`: a clean-up ignores it.
    pub(in crate::store::redis) fn kind(&self, key: &str) -> Option<KeyKind> {
        let name = key.strip_prefix(&self.prefix)?;
        let kinds = [
            (SESSION, KeyKind::Session),
            (USER, KeyKind::User),
            (LIVE, KeyKind::Live),
            (PROFILE, KeyKind::Profile),
            (BLACKLIST, KeyKind::Blacklist),
        ];
        let matching = kinds.iter().find(|(family, _)| name.starts_with(family));
        matching.map(|(_, kind)| *kind)
    }

    /// The revoked item, if the key is a blacklist entry or a cut-off.
    pub(in crate::store::redis) fn revocation_item(&self, key: &str) -> Option<CacheKey> {
        let item = self.tracked_item(key.as_bytes())?;
        (!matches!(item, CacheKey::Session(_))).then_some(item)
    }

    /// Prefixes of the keys that gateways cache, for `CLIENT TRACKING`.
    pub(in crate::store::redis) fn tracked_prefixes(&self) -> [String; 4] {
        [SESSION, API_KEY, BLACKLIST, CUT_OFF].map(|family| format!("{}{family}", self.prefix))
    }

    /// The cached item of a tracked key; `None`: the key is not one of the gateway's.
    pub(in crate::store::redis) fn tracked_item(&self, key: &[u8]) -> Option<CacheKey> {
        let key = std::str::from_utf8(key).ok()?;
        if let Some(id) = self.session_id(key) {
            return Some(CacheKey::Session(id));
        }
        let name = key.strip_prefix(&self.prefix)?;
        if let Some(id) = name.strip_prefix(API_KEY) {
            let id = ApiKeyId::parse(id.strip_suffix('}')?)?;
            return Some(CacheKey::Session(SessionId::of_api_key(id)));
        }
        if let Some(user) = name.strip_prefix(CUT_OFF) {
            let mut hash = UserHash::default();
            hex::decode_to_slice(user, &mut hash).ok()?;
            return Some(CacheKey::User(hash));
        }
        let token = name.strip_prefix(BLACKLIST)?;
        Some(CacheKey::Token(token.to_owned()))
    }

    /// Parses the session id in the key of a record.
    pub(in crate::store::redis) fn session_id(&self, key: &str) -> Option<SessionId> {
        let id = key.strip_prefix(&self.prefix)?.strip_prefix(SESSION)?;
        SessionId::parse(id.strip_suffix('}')?)
    }

    /// The `SCAN` pattern of the keys of a family.
    pub(in crate::store::redis) fn scan_pattern(&self, family: &str) -> String {
        let mut pattern = String::new();
        for character in self.prefix.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + family + "*"
    }
}

/// The letter of an algorithm in the scripts.
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
mod tests;
