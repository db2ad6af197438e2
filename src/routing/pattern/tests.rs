#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

#[test]
fn prefixes_match_whole_segments() {
    for (prefix, path, matches) in [
        ("/", "/", true),
        ("/", "/anything/at/all", true),
        ("/api", "/api", true),
        ("/api", "/api/", true),
        ("/api/", "/api", true),
        ("/api", "/api/x", true),
        ("/api", "/api;v=1/x", true),
        ("/api", "/%61pi/x", true),
        ("/api", "/api-admin", false),
        ("/api", "/API", false),
        ("/api/admin", "/api", false),
        ("/café", "/caf%C3%A9/x", true),
        ("/a b", "/a%20b", true),
    ] {
        let pattern = PathPattern::prefix(prefix).unwrap();
        let read = Path::read(path.as_bytes()).unwrap();
        assert_eq!(pattern.matches(&read), matches, "{prefix} {path}");
    }
}

#[test]
fn exact_paths_match_the_whole_path() {
    for (exact, path, matches) in [
        ("/", "/", true),
        ("/", "/a", false),
        ("/a", "/a", true),
        ("/a", "/a/", false),
        ("/a/", "/a/", true),
        ("/a/", "/a", false),
        ("/a", "/a/b", false),
        ("/a", "/a;x", true),
    ] {
        let pattern = PathPattern::exact(exact).unwrap();
        let read = Path::read(path.as_bytes()).unwrap();
        assert_eq!(pattern.matches(&read), matches, "{exact} {path}");
    }
}

#[test]
fn patterns_that_never_match_are_rejected() {
    use PatternError as P;
    for (text, error) in [
        ("api", P::Path(PathError::NoLeadingSlash)),
        ("", P::Path(PathError::NoLeadingSlash)),
        ("/a/../b", P::Path(PathError::DotSegment)),
        ("/a/%2e", P::Path(PathError::DotSegment)),
        ("/a?b=c", P::Path(PathError::QuestionMark)),
        ("/a#b", P::Path(PathError::Fragment)),
        ("/a\\b", P::Path(PathError::Backslash)),
        ("/a\n", P::Path(PathError::Control)),
        ("/a%", P::Path(PathError::PercentEncoding)),
        ("/a;v=1", P::Parameter),
        ("/a//b", P::Ambiguous),
        ("/a%2fb", P::Ambiguous),
        ("/a%25b", P::Ambiguous),
        ("/a%ff", P::NotUtf8),
    ] {
        assert_eq!(PathPattern::prefix(text), Err(error), "{text:?}");
        assert_eq!(PathPattern::exact(text), Err(error), "{text:?}");
    }
}

#[test]
fn stripping_removes_whole_segments() {
    for (raw, prefix, rest) in [
        ("/orders", "/orders", "/"),
        ("/orders/", "/orders", "/"),
        ("/orders/7", "/orders", "/7"),
        ("/orders/7/", "/orders", "/7/"),
        ("/orders;v=1/7", "/orders", "/7"),
        ("/orders;v=1", "/orders", "/"),
        ("/%6frders/7;a", "/orders", "/7;a"),
        ("/orders//evil", "/orders", "/evil"),
        ("/orders/;x//evil", "/orders", "/evil"),
        ("//orders///", "/orders", "/"),
        ("/orders/%2fevil", "/orders", "/%2fevil"),
        ("/orders/..admin", "/orders", "/..admin"),
        ("/a/b/c", "/a/b", "/c"),
        ("/a/b/c", "/", "/a/b/c"),
        ("//a", "/", "/a"),
        ("/", "/", "/"),
    ] {
        let prefix = PathPattern::prefix(prefix).unwrap();
        assert_eq!(strip_prefix(raw, &prefix), rest, "{raw}");
    }
    let exact = PathPattern::exact("/a/").unwrap();
    assert_eq!(strip_prefix("/a/", &exact), "/");
}

#[test]
fn hosts_are_names_without_port() {
    let exact = |name: &str| Ok(HostPattern::Exact(name.to_owned()));
    assert_eq!(HostPattern::parse("Example.COM."), exact("example.com"));
    assert_eq!(HostPattern::parse("127.0.0.1"), exact("127.0.0.1"));
    assert_eq!(HostPattern::parse("[::1]"), exact("[::1]"));
    let wildcard = HostPattern::Wildcard("example.com".to_owned());
    assert_eq!(HostPattern::parse("*.example.com"), Ok(wildcard));
    for bad in [
        "", "*", "*.", "a.*.b", "*a.b", "a:80", "[::1]:80", "http://a", "a b", "*.[::1]",
    ] {
        assert_eq!(HostPattern::parse(bad), Err(PatternError::Host), "{bad}");
    }
}

#[test]
fn wildcard_matches_further_labels_only() {
    let matches = |pattern: &str, host: &str| HostPattern::parse(pattern).unwrap().matches(host);
    for (pattern, host, expected) in [
        ("example.com", "example.com", true),
        ("example.com", "a.example.com", false),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "a.b.example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", ".example.com", false),
        ("*.example.com", "badexample.com", false),
        ("*.example.com", "a.example.com.evil", false),
    ] {
        assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn stripped_path_keeps_its_segments_and_safety(
        pieces in proptest::collection::vec(
            prop::sample::select(vec![
                "/", "/a", "a", "/b", ";", ";x", ".", "..", "%61", "%2f", "%2e", "%3b", "%25",
            ]),
            1..12,
        ),
        prefix in prop::sample::select(vec!["/", "/a", "/a/b", "/a/a"]),
    ) {
        let raw = format!("/{}", pieces.concat());
        let prefix = PathPattern::prefix(prefix).unwrap();
        let path = Path::read(raw.as_bytes()).ok().filter(|path| prefix.matches(path));
        if let Some(path) = path {
            let stripped = strip_prefix(&raw, &prefix);
            prop_assert!(!stripped.starts_with("//"), "{raw} {stripped}");
            let parsed = Path::read(stripped.as_bytes());
            prop_assert!(parsed.is_ok(), "{raw} {stripped}");
            let parsed = parsed.unwrap();
            prop_assert!(path.ambiguities().allows(parsed.ambiguities()), "{raw} {stripped}");
            // The same segments, except the removed ones.
            let mut rest: Vec<&[u8]> = path.segments().skip(prefix.segments().len()).collect();
            if rest.is_empty() {
                rest.push(b"");
            }
            prop_assert_eq!(parsed.segments().collect::<Vec<_>>(), rest);
        }
    }
}
