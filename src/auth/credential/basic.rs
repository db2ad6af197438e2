//! Secrets in the scheme Basic (RFC 7617), for clients that have no other.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{PresentedCredential, parse_authorization, split_scheme};

/// The bearer token of an `Authorization`, or the password of Basic, whose user name is ignored.
pub fn bearer_or_password(authorization: &[u8]) -> Option<Cow<'_, str>> {
    match parse_authorization(authorization) {
        Some(PresentedCredential::Bearer(token)) => return Some(token.into()),
        Some(_) => return None,
        None => {}
    }
    let (scheme, rest) = split_scheme(authorization);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let encoded = rest.strip_prefix(b" ")?.trim_ascii();
    let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (_, password) = pair.split_once(':')?;
    Some(password.to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_a_bearer_token_or_a_password() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (authorization, expected) in [
            ("Bearer pck_a".to_owned(), Some("pck_a")),
            ("bearer  pck_a ".to_owned(), Some("pck_a")),
            (basic("any:pck_a"), Some("pck_a")),
            (basic(":pck_a"), Some("pck_a")),
            (basic("any:"), Some("")),
            (basic("a:b:c"), Some("b:c")),
            (basic("any:pck_a").replace("Basic", "bASIC"), Some("pck_a")),
            (basic("any:pck_a").replace("Basic", " Basic"), Some("pck_a")),
            (
                basic("any:pck_a").replace("Basic", "Basic  "),
                Some("pck_a"),
            ),
            (basic("pck_a"), None),
            (basic("any:pck_a").replace("Basic ", "Basic:"), None),
            (basic("any:pck_a").replace("Basic ", "Basic"), None),
            (basic("any:pck_a").replace("Basic", "Digest"), None),
            ("Basic !".to_owned(), None),
            ("Basic YW55Og".to_owned(), None),
            ("Basic".to_owned(), None),
            ("Basic /w==".to_owned(), None),
            ("Bearer a b".to_owned(), None),
            ("Session pck_a".to_owned(), None),
            ("pck_a".to_owned(), None),
            (String::new(), None),
        ] {
            let secret = bearer_or_password(authorization.as_bytes());
            assert_eq!(secret.as_deref(), expected, "{authorization}");
        }
    }
}
