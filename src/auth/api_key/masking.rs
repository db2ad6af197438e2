//! Secrets of keys that clients have put into texts, such as the path of a request.

use super::{ID_ALPHABET, ID_LENGTH};

/// Length from which on the characters after an ID are a secret, perhaps not a whole one.
const MIN_SECRET: usize = 32;
/// Length of the shortest text with a key in it: a prefix, `_`, the ID, `_` and the secret.
const MIN_TEXT: usize = 1 + 1 + ID_LENGTH + 1 + MIN_SECRET;

/// Returns a text without the secrets of the keys in it, whatever their prefix. `None`: it has none.
#[inline]
pub fn mask_secrets(text: &str) -> Option<String> {
    match text.len() < MIN_TEXT {
        true => None,
        false => mask_long(text),
    }
}

fn mask_long(text: &str) -> Option<String> {
    let mut masked = String::new();
    let mut rest = text;
    while let Some((before, length)) = find_secret(rest) {
        let (start, secret) = rest.split_at_checked(before)?;
        masked.push_str(start);
        masked.push_str("...");
        (_, rest) = secret.split_at_checked(length)?;
    }
    masked.push_str(rest);
    (rest.len() < text.len()).then_some(masked)
}

/// The place and the length of the first secret.
fn find_secret(text: &str) -> Option<(usize, usize)> {
    let marks = text.match_indices('_');
    let mut secrets = marks.filter_map(|(at, _)| {
        let (id, rest) = text.get(at + 1..)?.split_at_checked(ID_LENGTH)?;
        let secret = rest.strip_prefix('_')?;
        let is_id = id.bytes().all(|byte| ID_ALPHABET.contains(&byte));
        let bytes = secret.bytes();
        let length = bytes.take_while(u8::is_ascii_alphanumeric).count();
        let start = text.len() - secret.len();
        (is_id && length >= MIN_SECRET).then_some((start, length))
    });
    secrets.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_are() {
        let key = format!("pck_0123456789abcdef_{}", "7".repeat(49));
        let own = key.replace("pck", "acme_live");
        let cut = key.split_at(55).0;
        for (text, expected) in [
            ("/orders/7".to_owned(), None),
            (format!("/{}", "a".repeat(200)), None),
            (format!("/pck_0123456789ABCDEF_{}", "7".repeat(49)), None),
            (format!("/pck_0123456789abcdef_{}-", "7".repeat(31)), None),
            (
                format!("/api-keys/{key}/rotate"),
                Some("/api-keys/pck_0123456789abcdef_.../rotate"),
            ),
            (format!("/a/{key}"), Some("/a/pck_0123456789abcdef_...")),
            (format!("/a/{cut}"), Some("/a/pck_0123456789abcdef_...")),
            (
                format!("/é_{own}.json"),
                Some("/é_acme_live_0123456789abcdef_....json"),
            ),
            (
                format!("/{key}/{key}"),
                Some("/pck_0123456789abcdef_.../pck_0123456789abcdef_..."),
            ),
        ] {
            assert_eq!(mask_secrets(&text).as_deref(), expected, "{text}");
        }
    }
}
