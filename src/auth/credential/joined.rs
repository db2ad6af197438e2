//! Credentials that a front proxy has joined with a comma, as some do with repeated fields.

use super::{AuthScheme, PresentedCredential, auth_scheme, split_scheme};

/// Finds two credentials in one value: an `Authorization` in which a comma is followed by a scheme of
/// the gateway, or a `Cookie` in which a comma is followed by the session cookie. They are as ambiguous
/// as two fields.
pub fn find_joined<'a>(
    mut authorizations: impl Iterator<Item = &'a [u8]>,
    mut cookies: impl Iterator<Item = &'a [u8]>,
    cookie_name: &str,
) -> Option<PresentedCredential<'a>> {
    if let Some(authorization) = authorizations.next() {
        if after_commas(authorization).any(begins_with_own_scheme) {
            return Some(PresentedCredential::Ambiguous { cookies: false });
        }
        // It decides, and cookies are not looked at.
        if auth_scheme(authorization) != AuthScheme::Other {
            return None;
        }
    }
    let is_cookie = |rest: &[u8]| begins_with_cookie(rest, cookie_name);
    let is_joined = cookies.any(|cookie| after_commas(cookie).any(is_cookie));
    is_joined.then_some(PresentedCredential::Ambiguous { cookies: true })
}

/// What follows each comma, without the whitespace before it.
fn after_commas(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let commas = memchr::memchr_iter(b',', value);
    commas.filter_map(|at| Some(value.get(at + 1..)?.trim_ascii_start()))
}

fn begins_with_own_scheme(rest: &[u8]) -> bool {
    let (_, after) = split_scheme(rest);
    // Otherwise it is a parameter of the scheme before.
    let is_parameter = after.trim_ascii_start().starts_with(b"=");
    !is_parameter && auth_scheme(rest) != AuthScheme::Other
}

fn begins_with_cookie(rest: &[u8], name: &str) -> bool {
    let after = rest.strip_prefix(name.as_bytes());
    after.is_some_and(|after| after.trim_ascii_start().starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_joined(authorization: Option<&str>, cookie: Option<&str>) -> Option<bool> {
        let authorization = authorization.map(str::as_bytes);
        let cookie = cookie.map(str::as_bytes);
        let found = find_joined(authorization.into_iter(), cookie.into_iter(), "sid");
        found.map(|found| found == PresentedCredential::Ambiguous { cookies: true })
    }

    #[test]
    fn schemes_behind_a_comma_are_ambiguous() {
        for (authorization, expected) in [
            ("Bearer a", None),
            ("Basic a", None),
            ("Bearer a,Bearer b", Some(false)),
            ("Basic a, Bearer b", Some(false)),
            ("Basic a,\tbearer b", Some(false)),
            ("Basic a, SESSION b", Some(false)),
            ("Basic a, Bearer", Some(false)),
            ("Bearer a, Basic b", None),
            ("Basic a, Basic b, Session c", Some(false)),
            ("Digest username=\"a\", session=\"b\"", None),
            ("Digest username=\"a\", bearer = b", None),
            ("Basic a, Bearers b", None),
            (",Bearer b", Some(false)),
        ] {
            assert_eq!(
                is_joined(Some(authorization), None),
                expected,
                "{authorization}"
            );
        }
    }

    #[test]
    fn session_cookie_behind_a_comma_is_ambiguous() {
        for (cookie, expected) in [
            ("sid=a", None),
            ("a=1; sid=a", None),
            ("a=1, sid=a", Some(true)),
            ("sid=a,sid=b", Some(true)),
            ("sid=a, b=1; c=2, sid =b", Some(true)),
            ("a=1, side=b", None),
            ("a=1, sid", None),
            ("a=1, b=sid=c", None),
        ] {
            assert_eq!(is_joined(None, Some(cookie)), expected, "{cookie}");
            assert_eq!(
                is_joined(Some("Basic a"), Some(cookie)),
                expected,
                "{cookie}"
            );
            assert_eq!(is_joined(Some("Bearer a"), Some(cookie)), None, "{cookie}");
        }
    }
}
