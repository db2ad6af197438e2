//! The bytes of a target (RFC 3986, section 2).

/// Returns the length of a target without its query; `None` for an empty target, and for one with a byte
/// that no URI contains, or with a fragment: a reader that cuts one off sees another path.
pub fn path_length(target: &[u8]) -> Option<usize> {
    let length = target.iter().position(|byte| !is_in(*byte, PATH));
    let (path, query) = target.split_at(length.unwrap_or(target.len()));
    // It begins with a question mark, or with a byte that no path contains.
    let is_query = matches!(query, [] | [b'?', ..]);
    let is_valid = !target.is_empty() && is_query && query.iter().all(|byte| is_in(*byte, QUERY));
    is_valid.then_some(path.len())
}

/// The bytes of a path, without the question mark that ends it.
const PATH: u8 = 1;
/// The bytes of a query, with the question mark before it.
const QUERY: u8 = 2;

/// The parts of a target that may contain each byte.
#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
const PARTS: [u8; 256] = {
    let mut parts = [0; 256];
    let mut byte = 0x21;
    while byte <= 0x7e {
        parts[byte as usize] = match byte {
            b'#' | b'<' | b'>' => 0,
            b'?' | b'`' => QUERY,
            b'"' => PATH,
            _ => PATH | QUERY,
        };
        byte += 1;
    }
    parts
};

#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn is_in(byte: u8, part: u8) -> bool {
    PARTS[byte as usize] & part != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_ends_at_its_query_and_has_no_illegal_byte() {
        for (target, expected) in [
            ("/", Some(1)),
            ("/a/b", Some(4)),
            ("/a?b=/c?d", Some(2)),
            ("/a?`", Some(2)),
            ("*", Some(1)),
            ("", None),
            ("/a b", None),
            ("/a#b", None),
            ("/a?b#c", None),
            ("/a\r\n", None),
            ("/a?<", None),
            ("/\u{e4}", None),
        ] {
            assert_eq!(path_length(target.as_bytes()), expected, "{target:?}");
        }
    }
}
