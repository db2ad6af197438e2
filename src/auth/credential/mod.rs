//! Credentials of a request and the session cookie (RFC 6750, RFC 6265bis).
//!
//! The first credential that was attempted decides; an invalid one never falls through to another.

mod basic;
mod bearer_form;
mod credential_type;
mod joined;

use std::time::Duration;

pub use basic::bearer_or_password;
pub use bearer_form::{BearerForm, bearer_form};
use cookie::{Cookie, SameSite as CookieSameSite};
pub use credential_type::{AcceptedCredentials, CredentialType};
use http::HeaderValue;
pub use joined::find_joined;

use crate::auth::session::{CookieRules, SameSite, SessionToken};

/// Maximum `Max-Age` of a cookie, in seconds (RFC 6265bis, section 4.1.2.2).
const MAX_AGE: u64 = 400 * 24 * 60 * 60;
/// Names of the session cookie when none is configured.
const DEFAULT_NAMES: [&str; 2] = ["__Host-portcullis", "portcullis"];
/// Names of the cookie that protects the gateway's own forms against CSRF: secure and insecure.
///
/// Without the prefix, another host of the domain could set the cookie.
pub const FORM_COOKIES: [&str; 2] = ["__Host-portcullis-form", "portcullis-form"];
/// Beginnings of the names of the cookies that hold a sign-in at a provider: secure and insecure.
pub const FLOW_COOKIE_PREFIXES: [&str; 2] = ["__Secure-portcullis-flow-", "portcullis-flow-"];

/// The credential of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresentedCredential<'a> {
    Absent,
    /// An access token, of which only the characters are checked.
    Bearer(&'a str),
    /// `Authorization: Session`.
    Session(SessionToken),
    Cookie(SessionToken),
    /// The value of the header of API keys.
    ApiKey(&'a [u8]),
    MalformedBearer,
    MalformedSession,
    /// Treated like a cookie of a session that does not exist.
    MalformedCookie,
    /// More than one `Authorization`, session cookie, or header of API keys, or two of them that decide
    /// equally.
    Ambiguous {
        cookies: bool,
    },
}

/// Extracts the credential from the values of `Authorization`, of the header of API keys, and of `Cookie`:
/// one of the scheme `Bearer` or `Session`, equally an API key, or else the cookie.
pub fn extract<'a>(
    mut authorizations: impl Iterator<Item = &'a [u8]>,
    mut api_keys: impl Iterator<Item = &'a [u8]>,
    cookies: impl Iterator<Item = &'a [u8]>,
    cookie_name: &str,
) -> PresentedCredential<'a> {
    let authorization = authorizations.next();
    let api_key = api_keys.next();
    if authorizations.next().is_some() || api_keys.next().is_some() {
        return PresentedCredential::Ambiguous { cookies: false };
    }
    match (authorization.and_then(parse_authorization), api_key) {
        (Some(_), Some(_)) => PresentedCredential::Ambiguous { cookies: false },
        (Some(credential), None) => credential,
        (None, Some(key)) => PresentedCredential::ApiKey(key),
        (None, None) => extract_cookie(cookies, cookie_name),
    }
}

/// Extracts the session cookie, regardless of `Authorization`.
pub fn extract_cookie<'a>(
    cookies: impl Iterator<Item = &'a [u8]>,
    cookie_name: &str,
) -> PresentedCredential<'static> {
    let mut cookies = cookies
        .flat_map(cookie_pairs)
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

/// The scheme of an `Authorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthScheme {
    Bearer,
    Session,
    /// Not handled by the gateway; passed to the upstream.
    Other,
}

/// Parses the scheme of an `Authorization`, which determines whether an upstream may receive it.
pub fn auth_scheme(authorization: &[u8]) -> AuthScheme {
    // The usual spelling, by one comparison.
    if authorization.starts_with(b"Bearer ") {
        return AuthScheme::Bearer;
    }
    let (name, _) = split_scheme(authorization);
    if name.eq_ignore_ascii_case(b"session") {
        AuthScheme::Session
    } else if name.eq_ignore_ascii_case(b"bearer") {
        AuthScheme::Bearer
    } else {
        AuthScheme::Other
    }
}

/// Parses an `Authorization`; `None` for a scheme that the gateway does not handle.
fn parse_authorization(authorization: &[u8]) -> Option<PresentedCredential<'_>> {
    let (scheme, rest) = split_scheme(authorization);
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

/// Splits after the scheme, the token characters at the start.
///
/// Other characters directly after the scheme make the value malformed instead of one of another
/// scheme, because a lenient upstream could accept it.
fn split_scheme(authorization: &[u8]) -> (&[u8], &[u8]) {
    let value = authorization.trim_ascii();
    let end = value
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)));
    value.split_at(end.unwrap_or(value.len()))
}

/// Whether a text is a `token68` (RFC 9110, section 11.2).
///
/// The loop has no early exit and accumulates bytes, not booleans, so that it is vectorized.
pub fn is_token68(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_allowed = |byte: u8| {
        ((byte | 0x20).wrapping_sub(b'a') < 26)
            | (byte.wrapping_sub(b'-') < 13) // - . / and the digits
            | (byte == b'_')
            | (byte == b'~')
            | (byte == b'+')
    };
    let accumulate = |invalid, byte| invalid | u8::from(!is_allowed(byte));
    !body.is_empty() && body.bytes().fold(0, accumulate) == 0
}

/// Returns the value of a `name=value` pair with the given name.
fn value_if_named<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (key, value) = split_pair(pair)?;
    (key == name.as_bytes()).then_some(value)
}

/// The pairs of a `Cookie` field.
pub fn cookie_pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b';', field).chain([field.len()]);
    ends.scan(0, |start, end| {
        let pair = field.get(*start..end);
        *start = end + 1;
        pair
    })
}

fn split_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = memchr::memchr(b'=', pair)?;
    let (key, value) = pair.split_at(equals);
    let value = value.strip_prefix(b"=").unwrap_or(value);
    Some((key.trim_ascii(), value.trim_ascii()))
}

/// Whether a `Cookie` field holds one of the gateway's cookies.
pub fn has_own_cookie(field: &[u8], name: &str) -> bool {
    cookie_pairs(field).any(|pair| is_own_cookie(pair, name))
}

/// Removes the gateway's cookies from the `Cookie` fields of a request. The others are kept byte
/// for byte, in one field; `None` if there are none.
pub fn strip_own_cookies<'a>(
    fields: impl IntoIterator<Item = &'a [u8]>,
    name: &str,
) -> Option<HeaderValue> {
    let mut result: Vec<u8> = Vec::new();
    for field in fields {
        let before = result.len();
        if before > 0 {
            result.extend_from_slice(b"; ");
        }
        let start = result.len();
        let pairs = cookie_pairs(field);
        for (index, pair) in pairs.filter(|pair| !is_own_cookie(pair, name)).enumerate() {
            if index == 0 {
                result.extend_from_slice(pair.trim_ascii_start());
            } else {
                result.push(b';');
                result.extend_from_slice(pair);
            }
        }
        if result.len() == start {
            result.truncate(before);
        }
    }
    if result.is_empty() {
        return None;
    }
    HeaderValue::try_from(result).ok()
}

/// Builds the `Set-Cookie` value with a session token.
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

/// Builds the `Set-Cookie` values that delete the session cookie in every form that a browser may
/// have: with and without `Domain`, and under both default names if it has one of them.
pub fn clearing_cookies(rules: &CookieRules) -> Vec<HeaderValue> {
    // The name in use comes first: nginx passes on one cookie of an authorizer.
    let name = rules.name.as_str();
    let mut names = vec![name];
    if DEFAULT_NAMES.contains(&name) {
        names.extend(DEFAULT_NAMES.iter().filter(|other| **other != name));
    }
    let mut cookies = Vec::new();
    for name in names {
        // Accepted only with `Path=/` and without `Domain` (RFC 6265bis, section 4.1.3.2).
        if has_prefix(name, "__Host-") {
            cookies.push(set_cookie(rules, name, "", None, "/", 0));
            continue;
        }
        cookies.push(set_cookie(rules, name, "", None, &rules.path, 0));
        if let Some(domain) = &rules.domain {
            cookies.push(set_cookie(rules, name, "", Some(domain), &rules.path, 0));
        }
    }
    cookies
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
        // Browsers reject cookies with these prefixes that are not secure.
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
    // Rules and tokens are valid in a header, so this never fails; an empty value sets nothing.
    HeaderValue::from_str(&cookie.build().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Whether a cookie name has a prefix. Browsers compare these prefixes case-insensitively.
fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The names of the gateway's cookies, beside the configured one of the session cookie.
///
/// Both default names are reserved, because after a change of `cookie.secure`, browsers still send
/// a session token under the other one.
static RESERVED_NAMES: [&str; 4] = {
    let ([secure, plain], [secure_form, plain_form]) = (DEFAULT_NAMES, FORM_COOKIES);
    [secure, plain, secure_form, plain_form]
};

/// Whether a pair of a `Cookie` field is one of the gateway's cookies.
fn is_own_cookie(pair: &[u8], name: &str) -> bool {
    split_pair(pair).is_some_and(|(key, _)| {
        key == name.as_bytes()
            || RESERVED_NAMES.iter().any(|own| own.as_bytes() == key)
            || is_flow_cookie(key)
    })
}

/// Whether a name is that of a cookie that holds a sign-in at a provider, in any case: some programs
/// ignore the case of names.
fn is_flow_cookie(name: &[u8]) -> bool {
    FLOW_COOKIE_PREFIXES.iter().any(|prefix| {
        let start = name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    })
}

/// Whether an upstream's `Set-Cookie` would set one of the gateway's cookies.
pub fn sets_own_cookie(set_cookie: &[u8], name: &str) -> bool {
    let pair = set_cookie.split(|byte| *byte == b';').next();
    let pair = pair.unwrap_or(set_cookie);
    // A cookie without a name is returned as its value alone, which then looks like `name=value`.
    let start = pair
        .iter()
        .position(|byte| *byte != b'=' && !byte.is_ascii_whitespace())
        .unwrap_or(pair.len());
    let (_, pair) = pair.split_at(start);
    let set_name = pair
        .split(|byte| *byte == b'=')
        .next()
        .unwrap_or(pair)
        .trim_ascii();
    let mut names = std::iter::once(name).chain(RESERVED_NAMES);
    is_flow_cookie(set_name)
        || names.any(|name| {
            // Browsers ignore the case of the prefixes, but other programs may not.
            if has_prefix(name, "__Host-") || has_prefix(name, "__Secure-") {
                set_name.eq_ignore_ascii_case(name.as_bytes())
            } else {
                set_name == name.as_bytes()
            }
        })
}

#[cfg(test)]
mod tests;
