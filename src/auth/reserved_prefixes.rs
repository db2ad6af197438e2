//! Prefixes by which upstreams recognize the users of other sources.

/// Prefix of the services that own API keys, as users.
pub const SERVICE_PREFIX: &str = "service:";

/// Prefixes that a user ID of a source without prefix must not begin with: upstreams could not
/// distinguish its user from another source's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReservedPrefixes(Vec<String>);

impl ReservedPrefixes {
    /// Collects the prefixes of other sources; empty ones reserve nothing.
    pub fn new<'p>(prefixes: impl IntoIterator<Item = &'p str>) -> ReservedPrefixes {
        let prefixes = prefixes.into_iter().filter(|prefix| !prefix.is_empty());
        ReservedPrefixes(prefixes.map(str::to_owned).collect())
    }

    /// Whether a user ID reads like one of another source.
    pub fn cover(&self, user: &str) -> bool {
        self.0
            .iter()
            .any(|prefix| user.starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_with_another_sources_prefix_are_covered() {
        let reserved = ReservedPrefixes::new(["corp:", "", "é/"]);
        for (user, expected) in [
            ("corp:1", true),
            ("corp:", true),
            ("corp", false),
            ("Corp:1", false),
            (" corp:1", false),
            ("1corp:", false),
            ("é/1", true),
            ("e\u{301}/1", false),
            ("", false),
            ("1", false),
        ] {
            assert_eq!(reserved.cover(user), expected, "{user}");
        }
        assert!(!ReservedPrefixes::default().cover("corp:1"));
    }
}
