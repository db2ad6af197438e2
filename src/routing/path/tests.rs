#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn read(raw: &str) -> Result<(Vec<String>, PathAmbiguities), PathError> {
    Path::read(raw.as_bytes()).map(|path| {
        let segments = path.segments();
        let text = segments.map(|s| String::from_utf8_lossy(s).into_owned());
        (text.collect(), path.ambiguities())
    })
}

#[test]
fn segments_are_decoded_up_to_their_parameters() {
    let none = PathAmbiguities::NONE;
    for (raw, segments, ambiguities) in [
        ("/", vec![""], none),
        ("/a", vec!["a"], none),
        ("/a/", vec!["a", ""], none),
        ("/ADMIN", vec!["ADMIN"], none),
        ("/%61dmin", vec!["admin"], none),
        ("/admin;x", vec!["admin"], none),
        ("/admin;x=%61/b;y", vec!["admin", "b"], none),
        ("/admin%20", vec!["admin "], none),
        ("/public/..admin", vec!["public", "..admin"], none),
        ("/api./...", vec!["api.", "..."], none),
        ("/caf%c3%A9", vec!["café"], none),
        ("/a;", vec!["a"], none),
        ("/a/;x", vec!["a", ""], none),
        ("//admin", vec!["admin"], PathAmbiguities::DOUBLE_SLASH),
        ("/;x/admin", vec!["admin"], PathAmbiguities::DOUBLE_SLASH),
        ("/a//", vec!["a", ""], PathAmbiguities::DOUBLE_SLASH),
        ("//%61", vec!["a"], PathAmbiguities::DOUBLE_SLASH),
        ("/a%2fb", vec!["a/b"], PathAmbiguities::ENCODED_SLASH),
        ("/a%2Fb/c", vec!["a/b", "c"], PathAmbiguities::ENCODED_SLASH),
        ("/a%5Cb", vec!["a\\b"], PathAmbiguities::ENCODED_BACKSLASH),
        ("/a%3bb", vec!["a;b"], PathAmbiguities::ENCODED_SEMICOLON),
        ("/a%2561", vec!["a%61"], PathAmbiguities::ENCODED_PERCENT),
        (
            "/admin%3f",
            vec!["admin?"],
            PathAmbiguities::ENCODED_QUESTION_MARK,
        ),
        ("/admin%23", vec!["admin#"], PathAmbiguities::ENCODED_HASH),
    ] {
        let segments: Vec<String> = segments.into_iter().map(str::to_owned).collect();
        assert_eq!(read(raw), Ok((segments, ambiguities)), "{raw}");
    }
}

#[test]
fn dot_segments_are_rejected_in_every_spelling() {
    for raw in [
        "/.",
        "/..",
        "/./admin",
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/%2E./admin",
        "/public/.%2e/admin",
        "/public/%2e/admin",
        "/public/..;/admin",
        "/public/..;x",
        "/public/.;x/admin",
        "/public/..%3bx/admin",
        "/public/..%3fx",
        "/public/..%2fadmin",
        "/public/..%5cadmin",
        "/public%2f..",
        "/public%5C%2e%2E%5Cadmin",
        "/public/%252e%252e/admin",
        "/public/..%252fadmin",
        "/public/%25252e%2e/admin",
        "/public/%25%32%65./admin",
        "/a;x/../b",
        "/a;%2f..%2fb",
    ] {
        assert_eq!(read(raw), Err(PathError::DotSegment), "{raw:?}");
    }
}

#[test]
fn ambiguous_paths_are_rejected() {
    use PathError as E;
    for (raw, error) in [
        ("", E::NoLeadingSlash),
        ("*", E::NoLeadingSlash),
        ("a/b", E::NoLeadingSlash),
        ("http://host/", E::NoLeadingSlash),
        ("/public/%c0%ae%c0%ae/admin", E::Overlong),
        ("/a%c0%afb", E::Overlong),
        ("/a%e0%80%afb", E::Overlong),
        ("/a\\b", E::Backslash),
        ("/..\\b", E::Backslash),
        ("/admin%00", E::Control),
        ("/a%0d%0ab", E::Control),
        ("/a%7f", E::Control),
        ("/a\tb", E::Control),
        ("/a\u{7f}", E::Control),
        ("/a b", E::Space),
        ("/admin#/public", E::Fragment),
        ("/a?b", E::QuestionMark),
        ("/a%", E::PercentEncoding),
        ("/a%2", E::PercentEncoding),
        ("/a%zz", E::PercentEncoding),
        ("/a%+1", E::PercentEncoding),
        ("/caf\u{e9}", E::NotAscii),
    ] {
        assert_eq!(read(raw), Err(error), "{raw:?}");
    }
}

/// Compares with Traefik's test vectors: paths that Traefik sanitizes are rejected, others are
/// parsed alike.
#[test]
fn public_vectors_agree() {
    let Ok(directory) = std::env::var("PORTCULLIS_VECTORS") else {
        eprintln!("skipped: PORTCULLIS_VECTORS names no directory");
        return;
    };
    let file = std::path::Path::new(&directory).join("traefik_paths.json");
    let text = std::fs::read_to_string(file).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = |group: &str| vectors.get(group).unwrap().as_array().unwrap().clone();
    let field = |case: &serde_json::Value, name: &str| {
        case.get(name).and_then(|v| v.as_str()).map(str::to_owned)
    };
    for case in cases("sanitize") {
        let input = field(&case, "input").unwrap();
        let unchanged = field(&case, "expected_path").as_deref() == Some(input.as_str());
        let accepted =
            read(&input).is_ok_and(|(_, ambiguities)| ambiguities == PathAmbiguities::NONE);
        assert_eq!(accepted, unchanged, "{input}");
    }
    for case in cases("path_operations") {
        let input = field(&case, "input").unwrap();
        let plain = field(&case, "expected_path").unwrap();
        let reads = read(&input)
            .ok()
            .filter(|(_, ambiguities)| *ambiguities == PathAmbiguities::NONE);
        if let Some((segments, _)) = reads {
            assert_eq!(format!("/{}", segments.join("/")), plain, "{input}");
        } else {
            let rejected = ["..", "/./", "//", "%2e", "%2E", "%2f", "%2F", "%25"];
            assert!(
                rejected.iter().any(|spelling| input.contains(spelling)),
                "{input}"
            );
        }
    }
    for case in cases("encoded_characters") {
        let input = field(&case, "input").unwrap();
        let clean = read(&input).is_ok_and(|(_, ambiguities)| ambiguities == PathAmbiguities::NONE);
        assert!(!clean, "{input}");
    }
    for case in cases("routing_path") {
        let path = field(&case, "path").unwrap();
        assert!(read(&path).is_ok(), "{path}");
    }
}

#[test]
fn deeply_encoded_path_is_decoded_in_one_pass() {
    let raw = format!("/%{}2e./x", "25".repeat(30_000));
    assert_eq!(read(&raw), Err(PathError::DotSegment));
}

fn has_dot_segment(bytes: &[u8]) -> bool {
    bytes
        .split(|byte| matches!(byte, b'/' | b'\\'))
        .any(|s| matches!(s.split(|b| *b == b';').next(), Some(b"." | b"..")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_further_decoding_yields_a_dot_segment(
        pieces in proptest::collection::vec(
            prop::sample::select(vec![
                "/", ".", "%", "2", "5", "e", "E", "f", "%2e", "%25", "%2f", "%5c", ";", "a",
                "%3b", "32", "65", "%c0", "%ae",
            ]),
            0..24,
        )
    ) {
        let raw = format!("/{}", pieces.concat());
        if let Ok(path) = Path::read(raw.as_bytes()) {
            let mut bytes = path.raw.to_vec();
            for _ in 0..40 {
                prop_assert!(!has_dot_segment(&bytes), "{raw}");
                bytes = percent_encoding::percent_decode(&bytes).collect();
            }
        }
    }

    #[test]
    fn plain_paths_pass_every_check(raw in "/[ -~\x7f\u{e9}\n/.%;]{0,40}|/[a-z/.]{0,20}") {
        if is_plain(raw.as_bytes()) {
            prop_assert_eq!(check_bytes(raw.as_bytes()), Ok(false));
            prop_assert_eq!(check_segments(raw.as_bytes()), Ok(false));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(path) = Path::read(&raw) {
            prop_assert_eq!(path.raw, raw.as_slice());
            prop_assert!(path.segments().count() > 0);
        }
    }
}
