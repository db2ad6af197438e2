//! The destination after sign-in. Only paths of the same origin are accepted, so that a link cannot
//! redirect the user to another site.

use url::form_urlencoded;

/// In bytes.
const MAX_BYTES: usize = 4096;

/// Reads `return_to` from a query string.
pub(super) fn from_query(query: Option<&str>) -> String {
    let query = query.unwrap_or_default().as_bytes();
    let mut pairs = form_urlencoded::parse(query);
    let found = pairs.find(|(name, _)| name == "return_to");
    path_or_root(&found.map(|(_, value)| value).unwrap_or_default()).to_owned()
}

/// Returns the text if it is a safe path, else `/`.
pub(super) fn path_or_root(text: &str) -> &str {
    if is_safe_path(text) { text } else { "/" }
}

/// A slash followed by anything that browsers do not parse as the start of a host. Browsers read a
/// backslash as a slash, and drop tabs and line breaks anywhere.
fn is_safe_path(text: &str) -> bool {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    text.len() <= MAX_BYTES
        && text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(visible)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn only_same_origin_paths_are_accepted() {
        for path in [
            "/",
            "/a",
            "/a/b?c=d&e=%2F%2Fevil",
            "/a#b",
            "/%2f%2fevil.example",
            "/.//evil",
        ] {
            assert_eq!(path_or_root(path), path);
        }
        for trick in [
            "",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "\\/evil.example",
            "/a\\b",
            "https://evil.example",
            "https:evil.example",
            "https:/evil.example",
            "HTTPS://evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "evil.example",
            "@evil.example",
            ".evil.example",
            ":80/",
            "?a",
            "#a",
            " //evil.example",
            " /a",
            "/\t/evil.example",
            "/\n/evil.example",
            "/a\r\nSet-Cookie: x=y",
            "/a\0",
            "/\u{e4}",
            "/\u{2028}",
            "\u{feff}//evil.example",
            &format!("/{}", "a".repeat(MAX_BYTES)),
        ] {
            assert_eq!(path_or_root(trick), "/", "{trick:?}");
        }
    }

    #[test]
    fn query_is_decoded_once() {
        for (query, expected) in [
            (None, "/"),
            (Some(""), "/"),
            (Some("x=y"), "/"),
            (Some("return_to=%2Fa%3Fb%3Dc%26d"), "/a?b=c&d"),
            (Some("return_to=%2F%2Fevil"), "/"),
            (Some("return_to=%2F%5Cevil"), "/"),
            (Some("return_to=%2F%09%2Fevil"), "/"),
            (Some("return_to=%252F%252Fevil"), "/"),
            (Some("return_to=/%252Fevil"), "/%2Fevil"),
        ] {
            assert_eq!(from_query(query), expected, "{query:?}");
        }
    }

    proptest! {
        #[test]
        fn browser_stays_on_its_origin(text in "[/\\\\:.@?#a-e\t\n %2fF5c-]{0,12}") {
            let here = Url::parse("https://here.example/api/v1/sign-in").unwrap();
            let there = here.join(path_or_root(&text)).unwrap();
            prop_assert_eq!(there.origin(), here.origin());
        }
    }
}
