//! Configured names of header fields, for look-ups of received names.

use http::HeaderName;

/// Names of header fields. Comparisons ignore case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameSet {
    names: Vec<HeaderName>,
    /// A bit for each length (modulo 64) of a name: most look-ups of other names end here.
    lengths: u64,
    initials: Initials,
}

/// The first characters of names, folded into 32 bits: where the bit of a name's is not set, none of
/// the names is that one in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Initials(u32);

impl Initials {
    pub const fn of(name: &[u8]) -> Initials {
        match name {
            [] => Initials(0),
            // The case of a letter is in none of these bits.
            [first, ..] => Initials(1 << (*first & 0x1f)),
        }
    }

    pub const fn union(self, other: Initials) -> Initials {
        Initials(self.0 | other.0)
    }

    pub const fn intersects(self, other: Initials) -> bool {
        self.0 & other.0 != 0
    }
}

impl NameSet {
    /// The set with another name.
    #[must_use]
    pub fn with(self, name: Option<&HeaderName>) -> NameSet {
        self.names.into_iter().chain(name.cloned()).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &HeaderName> {
        self.names.iter()
    }

    /// Whether the set has this name.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.has_length(name) && {
            let mut names = self.names.iter();
            names.any(|one| one.as_str().as_bytes().eq_ignore_ascii_case(name))
        }
    }

    /// Whether the set has this name in some spelling: CGI and its descendants turn every character
    /// other than a letter or digit into `_`, so these are equal.
    pub fn contains_spelling(&self, name: &[u8]) -> bool {
        self.has_length(name) && {
            let mut names = self.names.iter();
            names.any(|one| is_spelling(one.as_str().as_bytes(), name))
        }
    }

    /// The first characters of the names, each read as `-` if it is neither letter nor digit.
    pub fn initials(&self) -> Initials {
        self.initials
    }

    fn has_length(&self, name: &[u8]) -> bool {
        self.lengths & length_bit(name) != 0
    }
}

impl FromIterator<HeaderName> for NameSet {
    fn from_iter<I: IntoIterator<Item = HeaderName>>(names: I) -> NameSet {
        let mut names: Vec<HeaderName> = names.into_iter().collect();
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        let bytes = names.iter().map(|name| name.as_str().as_bytes());
        let first = |name: &[u8]| name.first().copied().map(fold).unwrap_or_default();
        NameSet {
            lengths: bytes.clone().fold(0, |bits, name| bits | length_bit(name)),
            initials: bytes.fold(Initials::default(), |initials, name| {
                initials.union(Initials::of(&[first(name)]))
            }),
            names,
        }
    }
}

fn length_bit(name: &[u8]) -> u64 {
    1 << (name.len() % 64)
}

/// Whether two names are equal with every character other than a letter or digit read as `-`.
pub fn is_spelling(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| fold(*one) == fold(*other))
}

/// A character in lower case, and `-` for every other than a letter or digit.
pub fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_spelling() {
        let names = ["x-user-id", "x_tenant", "x-user-id"].map(HeaderName::from_static);
        let names: NameSet = names.into_iter().collect();
        for (name, exact, spelling) in [
            ("x-user-id", true, true),
            ("X-User-ID", true, true),
            ("x.User_id", false, true),
            ("x_tenant", true, true),
            ("X-Tenant", false, true),
            ("x-user-ids", false, false),
            ("x-user-i", false, false),
            ("xxuser-id", false, false),
            ("", false, false),
        ] {
            assert_eq!(names.contains(name.as_bytes()), exact, "{name}");
            assert_eq!(names.contains_spelling(name.as_bytes()), spelling, "{name}");
        }
        let long = "x".repeat("x-user-id".len() + 64);
        assert!(!names.contains_spelling(long.as_bytes()));
        assert!(!NameSet::default().contains(b""));
    }

    #[test]
    fn initials_exclude_other_names() {
        let names = ["x-user-id", "_tenant"].map(HeaderName::from_static);
        let names: NameSet = names.into_iter().collect();
        for (name, may_be) in [
            ("x", true),
            ("X-Other", true),
            ("-tenant", true),
            ("accept", false),
            ("", false),
        ] {
            let initial = Initials::of(name.as_bytes());
            assert_eq!(names.initials().intersects(initial), may_be, "{name}");
        }
    }
}
