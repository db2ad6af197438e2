//! Whether a form came from our own page. Browsers say so in `Origin` and `Sec-Fetch-Site`, which no
//! page can forge. One that says neither has to send the same secret in a cookie and in the form:
//! another site can make it send the cookie's, but cannot know it.

use http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;

use crate::auth::credential::FORM_COOKIES;
use crate::auth::session::{CookieRules, SameSite, SessionToken};
use crate::pipeline::admission::Client;
use crate::pipeline::same_origin;

/// The secret that a page and a cookie share.
pub(super) struct FormToken(SessionToken);

impl FormToken {
    /// Gives one to a browser that may not say where its forms come from: the one that it holds
    /// already, so that the form in another of its tabs stays good.
    pub(super) fn for_form(headers: &HeaderMap, rules: &CookieRules) -> Option<FormToken> {
        let says = headers.contains_key("sec-fetch-site");
        (!says).then(|| {
            cookie_token(headers, rules).unwrap_or_else(|| FormToken(SessionToken::random()))
        })
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.expose()
    }

    /// The cookie that holds it, as long as the browser is open.
    pub(super) fn cookie(&self, rules: &CookieRules) -> Option<HeaderValue> {
        let mut cookie = cookie::Cookie::build((cookie_name(rules), self.0.expose()))
            .http_only(true)
            .secure(rules.secure)
            .path("/")
            .same_site(cookie::SameSite::Strict);
        if rules.same_site == SameSite::None {
            // A page that may be used from other sites has cookies that may.
            cookie = cookie.same_site(cookie::SameSite::None);
        }
        HeaderValue::from_str(&cookie.build().to_string()).ok()
    }
}

fn cookie_name(rules: &CookieRules) -> &'static str {
    let [secure, plain] = FORM_COOKIES;
    if rules.secure { secure } else { plain }
}

/// Tells whether a form that brought `token` came from our own page.
pub(super) fn is_own_form(
    headers: &HeaderMap,
    client: &Client,
    token: &str,
    rules: &CookieRules,
) -> bool {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return same_origin::is_same_origin(headers, client, &[]);
    }
    cookie_token(headers, rules)
        .is_some_and(|held| bool::from(held.as_str().as_bytes().ct_eq(token.as_bytes())))
}

/// What the browser's cookie holds; of two, nobody knows which is ours.
fn cookie_token(headers: &HeaderMap, rules: &CookieRules) -> Option<FormToken> {
    let name = cookie_name(rules);
    let values = headers.get_all(header::COOKIE).iter();
    let mut held = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=")
        });
    match (held.next(), held.next()) {
        (Some(held), None) => SessionToken::parse(std::str::from_utf8(held).ok()?).map(FormToken),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn check(list: &[(&'static str, &str)], token: &str, secure: bool) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        let client = Client {
            ip: "192.0.2.1".parse().unwrap(),
            https: secure,
            host: "here.example".to_owned(),
        };
        let rules = CookieRules {
            name: "x".to_owned(),
            secure,
            same_site: SameSite::Lax,
            domain: None,
            path: "/".to_owned(),
        };
        is_own_form(&headers, &client, token, &rules)
    }

    #[test]
    fn origin_headers_decide() {
        let token = "a".repeat(64);
        let cookie = format!("portcullis-form={token}");
        let held = ("cookie", cookie.as_str());
        assert!(check(&[("origin", "http://here.example")], "", false));
        assert!(check(&[("sec-fetch-site", "same-origin")], "", false));
        // A token makes no other site ours.
        assert!(!check(
            &[("origin", "http://evil.example"), held],
            &token,
            false
        ));
        assert!(!check(&[("origin", "null"), held], &token, false));
        assert!(!check(
            &[("sec-fetch-site", "same-site"), held],
            &token,
            false
        ));
    }

    #[test]
    fn form_token_must_match_the_cookie() {
        let (token, other) = ("a".repeat(64), "b".repeat(64));
        let cookie = format!("x=y; portcullis-form={token}");
        let twice = format!("{cookie}; portcullis-form={token}");
        assert!(check(&[("cookie", &cookie)], &token, false));
        assert!(!check(&[("cookie", &cookie)], &other, false));
        assert!(!check(&[("cookie", &cookie)], "", false));
        assert!(!check(&[("cookie", "portcullis-form=")], "", false));
        assert!(!check(&[], "", false));
        assert!(!check(&[("cookie", &twice)], &token, false));
        // Where cookies are secure, only the one that no other host can set counts.
        assert!(!check(&[("cookie", &cookie)], &token, true));
        let host = format!("__Host-portcullis-form={token}");
        assert!(check(&[("cookie", &host)], &token, true));
    }
}
