//! What a request presents to be let in, and the cookie that carries it (RFC 6750, RFC 6265bis).
//! What was attempted decides: a bad credential never falls through to another one.

use std::time::Duration;

use cookie::{Cookie, SameSite as CookieSameSite};
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::auth::session::{CookieRules, SameSite, SessionToken};

/// The longest life of a cookie (RFC 6265bis, section 4.1.2.2), seconds.
const MAX_AGE: u64 = 400 * 24 * 60 * 60;
/// The names that the cookie has when none is configured.
const DEFAULT_NAMES: [&str; 2] = ["__Host-portcullis", "portcullis"];
/// The cookie that a form of the gateway's own pages is compared with: where cookies are secure, and
/// where they are not. Without the prefix another host of the domain could set it.
pub const FORM_COOKIES: [&str; 2] = ["__Host-portcullis-form", "portcullis-form"];

/// The one credential of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresentedCredential<'a> {
    Absent,
    /// An access token; nothing is known of it but that its characters are allowed.
    Bearer(&'a str),
    /// `Authorization: Session`.
    Session(SessionToken),
    Cookie(SessionToken),
    MalformedBearer,
    MalformedSession,
    /// As good as a cookie of a session that does not exist.
    MalformedCookie,
    /// More than one `Authorization`, or more than one session cookie.
    Ambiguous {
        cookies: bool,
    },
}

/// Finds the credential. An `Authorization` of scheme `Bearer` or `Session` decides when there is
/// one; only else is the cookie looked at.
pub fn extract<'a>(headers: &'a HeaderMap, cookie_name: &str) -> PresentedCredential<'a> {
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    if let Some(authorization) = authorizations.next() {
        if authorizations.next().is_some() {
            return PresentedCredential::Ambiguous { cookies: false };
        }
        if let Some(presented) = parse_authorization(authorization) {
            return presented;
        }
    }
    extract_cookie(headers, cookie_name)
}

/// Finds what the session cookie holds, whatever `Authorization` says.
pub fn extract_cookie(headers: &HeaderMap, cookie_name: &str) -> PresentedCredential<'static> {
    let mut cookies = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| value_if_named(pair, cookie_name));
    match (cookies.next(), cookies.next()) {
        (None, _) => PresentedCredential::Absent,
        (Some(_), Some(_)) => PresentedCredential::Ambiguous { cookies: true },
        (Some(value), None) => std::str::from_utf8(value)
            .ok()
            .and_then(SessionToken::parse)
            .map_or(
                PresentedCredential::MalformedCookie,
                PresentedCredential::Cookie,
            ),
    }
}

/// Whose an `Authorization` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthScheme {
    Bearer,
    Session,
    /// Not ours; it is passed on.
    Other,
}

/// Reads the scheme of an `Authorization`, which decides whether it may go to an upstream.
pub fn auth_scheme(authorization: &[u8]) -> AuthScheme {
    let (name, _) = split_scheme(authorization);
    if name.eq_ignore_ascii_case(b"session") {
        AuthScheme::Session
    } else if name.eq_ignore_ascii_case(b"bearer") {
        AuthScheme::Bearer
    } else {
        AuthScheme::Other
    }
}

/// `None`: of a scheme that is not ours.
fn parse_authorization(authorization: &HeaderValue) -> Option<PresentedCredential<'_>> {
    let (scheme, rest) = split_scheme(authorization.as_bytes());
    let secret = rest
        .strip_prefix(b" ")
        .and_then(|rest| std::str::from_utf8(rest).ok())
        .map(|secret| secret.trim_matches(' '));
    if scheme.eq_ignore_ascii_case(b"bearer") {
        let bearer = secret.filter(|secret| is_token68(secret));
        return Some(bearer.map_or(
            PresentedCredential::MalformedBearer,
            PresentedCredential::Bearer,
        ));
    }
    if scheme.eq_ignore_ascii_case(b"session") {
        let session = secret.and_then(SessionToken::parse);
        return Some(session.map_or(
            PresentedCredential::MalformedSession,
            PresentedCredential::Session,
        ));
    }
    None
}

/// Splits after the scheme: the letters at the start. What follows without a space makes the value
/// malformed, not of another scheme, for somebody may read it leniently.
fn split_scheme(authorization: &[u8]) -> (&[u8], &[u8]) {
    let value = authorization.trim_ascii();
    let end = value
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)));
    value.split_at(end.unwrap_or(value.len()))
}

/// RFC 9110, section 11.2. It does not leave early and adds up bytes, not booleans: so many are compared
/// at once.
fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let fits = |byte: u8| {
        ((byte | 0x20).wrapping_sub(b'a') < 26)
            | (byte.wrapping_sub(b'-') < 13) // - . / and the digits
            | (byte == b'_')
            | (byte == b'~')
            | (byte == b'+')
    };
    let bad = |bad, byte| bad | u8::from(!fits(byte));
    !body.is_empty() && body.bytes().fold(0, bad) == 0
}

/// The value of a `name=value` pair, if it has that name.
fn value_if_named<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (key, value) = split_pair(pair)?;
    (key == name.as_bytes()).then_some(value)
}

fn split_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = pair.split_at(equals);
    let value = value.strip_prefix(b"=").unwrap_or(value);
    Some((key.trim_ascii(), value.trim_ascii()))
}

/// Takes our cookies out of the `Cookie` fields of a request; the others stay byte for byte, in one
/// field. `None`: nothing is left.
pub fn strip_own_cookies<'a>(
    fields: impl IntoIterator<Item = &'a [u8]>,
    name: &str,
) -> Option<HeaderValue> {
    let mut left: Vec<u8> = Vec::new();
    for field in fields {
        let kept: Vec<&[u8]> = field
            .split(|byte| *byte == b';')
            .filter(|pair| !is_own_cookie(pair, name))
            .collect();
        let kept = kept.join(&b';');
        let kept = kept.trim_ascii_start();
        if !kept.is_empty() {
            if !left.is_empty() {
                left.extend_from_slice(b"; ");
            }
            left.extend_from_slice(kept);
        }
    }
    if left.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&left).ok()
}

/// The `Set-Cookie` value that hands a session token to a browser.
pub fn session_cookie(rules: &CookieRules, token: &SessionToken, max_age: Duration) -> HeaderValue {
    let seconds = max_age.as_secs().min(MAX_AGE);
    let domain = rules.domain.as_deref();
    set_cookie(
        rules,
        &rules.name,
        token.expose(),
        domain,
        &rules.path,
        seconds,
    )
}

/// The `Set-Cookie` values that take the session cookie from a browser, in every form that it may
/// have there: with and without `Domain`, and under both default names when it has one of them.
pub fn clearing_cookies(rules: &CookieRules) -> Vec<HeaderValue> {
    let names: Vec<&str> = if DEFAULT_NAMES.contains(&rules.name.as_str()) {
        DEFAULT_NAMES.to_vec()
    } else {
        vec![&rules.name]
    };
    let mut cleared = Vec::new();
    for name in names {
        // Accepted only with `Path=/` and without `Domain` (RFC 6265bis, section 4.1.3.2).
        if has_prefix(name, "__Host-") {
            cleared.push(set_cookie(rules, name, "", None, "/", 0));
            continue;
        }
        cleared.push(set_cookie(rules, name, "", None, &rules.path, 0));
        if let Some(domain) = &rules.domain {
            cleared.push(set_cookie(rules, name, "", Some(domain), &rules.path, 0));
        }
    }
    cleared
}

fn set_cookie(
    rules: &CookieRules,
    name: &str,
    value: &str,
    domain: Option<&str>,
    path: &str,
    seconds: u64,
) -> HeaderValue {
    let mut cookie = Cookie::build((name, value))
        .http_only(true)
        // A browser drops a cookie of such a name that is not secure.
        .secure(rules.secure || has_prefix(name, "__Host-") || has_prefix(name, "__Secure-"))
        .path(path)
        .same_site(match rules.same_site {
            SameSite::Strict => CookieSameSite::Strict,
            SameSite::Lax => CookieSameSite::Lax,
            SameSite::None => CookieSameSite::None,
        })
        .max_age(cookie::time::Duration::seconds(seconds.cast_signed()));
    if let Some(domain) = domain {
        cookie = cookie.domain(domain);
    }
    // The rules hold what a header can carry, and so does a token; an empty field sets nothing.
    HeaderValue::from_str(&cookie.build().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Browsers compare the prefixes of cookie names without case.
fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Every cookie that is the gateway's, where the session's has this name. Both default names are
/// reserved: after a change of `cookie.secure` browsers still hold a session token under the other.
fn own_cookie_names(name: &str) -> impl Iterator<Item = &str> {
    std::iter::once(name)
        .chain(DEFAULT_NAMES)
        .chain(FORM_COOKIES)
}

/// Whether a pair of a `Cookie` field is one of them.
fn is_own_cookie(pair: &[u8], name: &str) -> bool {
    split_pair(pair)
        .is_some_and(|(key, _)| own_cookie_names(name).any(|ours| ours.as_bytes() == key))
}

/// Tells whether an upstream's `Set-Cookie` would set one of our cookies.
pub fn sets_own_cookie(set_cookie: &[u8], name: &str) -> bool {
    let pair = set_cookie.split(|byte| *byte == b';').next();
    let pair = pair.unwrap_or(set_cookie);
    // A cookie without name is sent back as its value alone, which then reads as one with a name.
    let start = pair
        .iter()
        .position(|byte| *byte != b'=' && !byte.is_ascii_whitespace())
        .unwrap_or(pair.len());
    let (_, pair) = pair.split_at(start);
    let set = pair
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or(pair)
        .trim_ascii();
    own_cookie_names(name).any(|name| {
        // Browsers see through the spelling of the prefixes; who else reads the cookie may not.
        if has_prefix(name, "__Host-") || has_prefix(name, "__Secure-") {
            set.eq_ignore_ascii_case(name.as_bytes())
        } else {
            set == name.as_bytes()
        }
    })
}

#[cfg(test)]
mod tests;
