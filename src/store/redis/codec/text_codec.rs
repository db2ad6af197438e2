//! Encoding of lists of names and of user ids.
//!
//! A list is one text, `"\nadmin\neditor\n"`, with `%` and line feeds escaped in the names, so that a
//! script finds a name by a plain search.

use uuid::Uuid;

/// Encodes a list of names.
pub(in crate::store::redis) fn encode_list(names: &[String]) -> String {
    let mut text = String::new();
    for name in names {
        if text.is_empty() {
            text.push('\n');
        }
        if name.is_empty() {
            text.push('%');
        }
        for character in name.chars() {
            match character {
                '%' => text.push_str("%25"),
                '\n' => text.push_str("%0A"),
                other => text.push(other),
            }
        }
        text.push('\n');
    }
    text
}

/// Decodes a list of names; `None`: it is malformed.
pub(in crate::store::redis) fn decode_list(list: &str) -> Option<Vec<String>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    let inner = list.strip_prefix('\n')?.strip_suffix('\n')?;
    let unescape = |name: &str| match name {
        "%" => String::new(),
        name => name.replace("%0A", "\n").replace("%25", "%"),
    };
    Some(inner.split('\n').map(unescape).collect())
}

/// First byte of an encoded UUID; no UTF-8 text contains it.
const UUID_TAG: u8 = 0xff;

/// Encodes a user id. A UUID is stored as 16 bytes, which takes half the space.
pub(in crate::store::redis) fn encode_user_id(id: &str) -> Vec<u8> {
    match Uuid::parse_str(id) {
        Ok(uuid) if uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == id => {
            [&[UUID_TAG], &uuid.as_bytes()[..]].concat()
        }
        _ => id.as_bytes().to_vec(),
    }
}

/// Decodes a user id.
pub(in crate::store::redis) fn decode_user_id(encoded: &[u8]) -> Option<String> {
    match encoded.split_first() {
        Some((&UUID_TAG, uuid)) => Uuid::from_slice(uuid).ok().map(|uuid| uuid.to_string()),
        _ => String::from_utf8(encoded.to_vec()).ok(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn user_ids_round_trip() {
        for id in [
            "",
            "ann",
            "00000000-0000-4000-8000-00000000ab1f",
            "00000000-0000-4000-8000-00000000AB1F",
            "0000000000004000800000000000ab1f",
            "ü\0",
        ] {
            assert_eq!(decode_user_id(&encode_user_id(id)).unwrap(), id);
        }
        assert_eq!(
            encode_user_id("00000000-0000-4000-8000-00000000ab1f").len(),
            17
        );
        assert_eq!(decode_user_id(&[0xff, 1]), None);
    }

    #[test]
    fn lists_round_trip() {
        for case in [
            vec![],
            vec![""],
            vec!["admin"],
            vec!["admin", "", "a\nb", "100%", "%0A", "%25", "%"],
        ] {
            let case: Vec<String> = case.into_iter().map(str::to_owned).collect();
            assert_eq!(decode_list(&encode_list(&case)).unwrap(), case);
        }
    }
}
