//! The names of fields that rules look for.

#![expect(
    clippy::indexing_slicing,
    reason = "in tables that are computed when they are compiled"
)]

use super::name_words::NameWords;

/// The name of a field, as far as a rule looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FieldKind {
    Accept,
    AccessControlRequestHeaders,
    AccessControlRequestMethod,
    Authorization,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    SecFetchMode,
    SecFetchSite,
    SecWebsocketKey,
    SecWebsocketVersion,
    SetCookie,
    Te,
    Traceparent,
    Tracestate,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedMethod,
    XForwardedProto,
    XForwardedUri,
    XOriginalMethod,
    XOriginalUrl,
    XRequestId,
    /// Another name of letters, digits and `-`.
    Other,
    /// A name with another character, for which CGI and its descendants have `_`.
    Irregular,
}

/// The names of kinds.
const NAMES: [(&str, FieldKind); KNOWN] = {
    use FieldKind::*;
    [
        ("te", Te),
        ("via", Via),
        ("date", Date),
        ("host", Host),
        ("accept", Accept),
        ("cookie", Cookie),
        ("expect", Expect),
        ("origin", Origin),
        ("trailer", Trailer),
        ("upgrade", Upgrade),
        ("forwarded", Forwarded),
        ("connection", Connection),
        ("keep-alive", KeepAlive),
        ("set-cookie", SetCookie),
        ("tracestate", Tracestate),
        ("user-agent", UserAgent),
        ("traceparent", Traceparent),
        ("content-type", ContentType),
        ("x-request-id", XRequestId),
        ("authorization", Authorization),
        ("content-length", ContentLength),
        ("http2-settings", Http2Settings),
        ("sec-fetch-mode", SecFetchMode),
        ("sec-fetch-site", SecFetchSite),
        ("x-original-url", XOriginalUrl),
        ("x-forwarded-for", XForwardedFor),
        ("x-forwarded-uri", XForwardedUri),
        ("proxy-connection", ProxyConnection),
        ("x-forwarded-host", XForwardedHost),
        ("sec-websocket-key", SecWebsocketKey),
        ("transfer-encoding", TransferEncoding),
        ("x-original-method", XOriginalMethod),
        ("x-forwarded-proto", XForwardedProto),
        ("x-forwarded-method", XForwardedMethod),
        ("proxy-authenticate", ProxyAuthenticate),
        ("proxy-authorization", ProxyAuthorization),
        ("sec-websocket-version", SecWebsocketVersion),
        ("access-control-request-method", AccessControlRequestMethod),
        (
            "access-control-request-headers",
            AccessControlRequestHeaders,
        ),
    ]
};

/// The number of names.
const KNOWN: usize = 39;

/// Number of slots in which names are looked up.
const SLOTS: usize = 128;

/// The names as words, each in the slot that its words select.
static KINDS: [(NameWords, FieldKind); SLOTS] = match place(MULTIPLIER) {
    Some(kinds) => kinds,
    None => panic!("two names select the same slot"),
};

/// A multiplier by which all names select different slots.
const MULTIPLIER: u64 = {
    let mut multiplier = 0x9e37_79b9_7f4a_7c15;
    while place(multiplier).is_none() {
        multiplier += 2;
    }
    multiplier
};

const fn place(multiplier: u64) -> Option<[(NameWords, FieldKind); SLOTS]> {
    let mut kinds = [(NameWords::EMPTY, FieldKind::Other); SLOTS];
    let mut at = 0;
    while at < KNOWN {
        let (name, kind) = NAMES[at];
        let words = NameWords::of_known(name.as_bytes());
        let slot = words.select(multiplier, SLOTS);
        if !matches!(kinds[slot].1, FieldKind::Other) {
            return None;
        }
        kinds[slot] = (words, kind);
        at += 1;
    }
    Some(kinds)
}

impl FieldKind {
    /// The kind of a name in any case.
    pub fn of(name: &[u8]) -> FieldKind {
        match FieldKind::at_start(name) {
            (length, kind) if length == name.len() => kind,
            _ => FieldKind::Irregular,
        }
    }

    /// Reads the letters, digits and `-` at the start of a line: their number, and the kind if they are
    /// the whole name.
    pub fn at_start(line: &[u8]) -> (usize, FieldKind) {
        let (length, words) = NameWords::at_start(line);
        match KINDS.get(words.select(MULTIPLIER, SLOTS)) {
            Some((known, kind)) if *known == words => (length, *kind),
            _ => (length, FieldKind::Other),
        }
    }
}

/// A set of kinds: a rule about a kind that a message does not have costs one test.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindSet(u64);

impl KindSet {
    pub const NONE: KindSet = KindSet(0);

    pub const fn with(self, kind: FieldKind) -> KindSet {
        KindSet(self.0 | 1 << kind as u8)
    }

    pub const fn with_if(self, kind: FieldKind, condition: bool) -> KindSet {
        match condition {
            true => self.with(kind),
            false => self,
        }
    }

    /// The kinds that are not in the set.
    pub const fn others(self) -> KindSet {
        KindSet(!self.0)
    }

    /// The kinds that are in both sets.
    pub const fn and(self, other: KindSet) -> KindSet {
        KindSet(self.0 & other.0)
    }

    pub const fn has(self, kind: FieldKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// Whether the sets have a kind in common.
    pub const fn intersects(self, other: KindSet) -> bool {
        self.0 & other.0 != 0
    }
}

impl FromIterator<FieldKind> for KindSet {
    fn from_iter<I: IntoIterator<Item = FieldKind>>(kinds: I) -> KindSet {
        let kinds = kinds.into_iter();
        kinds.fold(KindSet::NONE, KindSet::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_has_what_was_added() {
        use FieldKind::*;
        let set: KindSet = [Accept, Other].into_iter().collect();
        assert!(set.has(Accept) && set.has(Other) && !set.has(Cookie));
        assert!(set.intersects(KindSet::NONE.with(Other)));
        assert!(!set.intersects(KindSet::NONE.with(Cookie)));
        assert!(set.others().has(Cookie) && !set.others().has(Accept));
        assert_eq!(
            set.and(KindSet::NONE.with(Accept)),
            KindSet::NONE.with(Accept)
        );
    }

    #[test]
    fn kind_is_found_in_any_case_and_by_the_whole_name() {
        use FieldKind::*;
        for (name, kind) in NAMES {
            assert_eq!(FieldKind::of(name.as_bytes()), kind, "{name}");
            let upper = name.to_ascii_uppercase();
            assert_eq!(FieldKind::of(upper.as_bytes()), kind, "{upper}");
            let line = format!("{name}: value");
            let read = FieldKind::at_start(line.as_bytes());
            assert_eq!(read, (name.len(), kind), "{line}");
            for other in [format!("{name}s"), format!("{name}-"), format!("1{name}")] {
                assert_eq!(FieldKind::of(other.as_bytes()), Other, "{other}");
            }
            let shorter = name.get(1..).unwrap_or_default();
            assert_eq!(FieldKind::of(shorter.as_bytes()), Other, "{shorter}");
        }
        assert_eq!(FieldKind::of(b""), Other);
        assert_eq!(FieldKind::of(&[b'a'; 1000]), Other);
    }

    /// Each byte in each place of a name: only the case of a letter makes no difference.
    #[test]
    fn every_other_byte_makes_another_name() {
        for (name, kind) in NAMES {
            let mut bytes = name.as_bytes().to_vec();
            for at in 0..bytes.len() {
                let original = bytes[at];
                for byte in 0..=u8::MAX {
                    bytes[at] = byte;
                    let expected = match byte {
                        _ if byte.eq_ignore_ascii_case(&original) => Some(kind),
                        b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => None,
                        _ => Some(FieldKind::Irregular),
                    };
                    let found = FieldKind::of(&bytes);
                    let expected = expected.unwrap_or(FieldKind::Other);
                    assert_eq!(found, expected, "{byte} at {at} of {name}");
                }
                bytes[at] = original;
            }
        }
    }

    #[test]
    fn all_kinds_fit_into_a_set() {
        assert!((FieldKind::Irregular as u32) < u64::BITS);
        let distinct: std::collections::HashSet<_> = NAMES.map(|(_, kind)| kind as u8).into();
        assert_eq!(distinct.len(), KNOWN);
        assert_eq!(FieldKind::Other as usize, KNOWN, "every kind has a name");
    }
}
