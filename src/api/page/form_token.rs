//! CSRF protection of the forms. Browsers send `Origin` or `Sec-Fetch-Site`, which pages cannot
//! forge. A browser that sends neither must submit the same secret in a cookie and in the form:
//! another site can make it send the cookie but cannot read its value.

use http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;

use crate::auth::credential::FORM_COOKIES;
use crate::auth::session::{CookieRules, SameSite, SessionToken};
use crate::pipeline::facts::Client;
use crate::pipeline::fields::{Field, FieldList, Fields};
use crate::pipeline::same_origin;

/// The secret shared by a form and a cookie.
pub(super) struct FormToken(SessionToken);

impl FormToken {
    /// Returns a token for browsers that may not send origin headers, reusing the current cookie's
    /// so that forms in other tabs remain valid.
    pub(super) fn for_form(headers: &HeaderMap, rules: &CookieRules) -> Option<FormToken> {
        let sends_fetch_metadata = headers.contains_key("sec-fetch-site");
        (!sends_fetch_metadata).then(|| {
            cookie_token(headers, rules).unwrap_or_else(|| FormToken(SessionToken::random()))
        })
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.expose()
    }

    /// The session-lifetime cookie that holds the token.
    pub(super) fn cookie(&self, rules: &CookieRules) -> Option<HeaderValue> {
        let mut cookie = cookie::Cookie::build((cookie_name(rules), self.0.expose()))
            .http_only(true)
            .secure(rules.secure)
            .path("/")
            .same_site(cookie::SameSite::Strict);
        if rules.same_site == SameSite::None {
            // A page that other sites may embed needs a cookie that is sent there.
            cookie = cookie.same_site(cookie::SameSite::None);
        }
        HeaderValue::from_str(&cookie.build().to_string()).ok()
    }
}

fn cookie_name(rules: &CookieRules) -> &'static str {
    let [secure, plain] = FORM_COOKIES;
    if rules.secure { secure } else { plain }
}

/// Whether a form submitted with `token` came from the gateway's own page.
pub(super) fn is_own_form(
    headers: &HeaderMap,
    client: &Client,
    token: &str,
    rules: &CookieRules,
) -> bool {
    let list: FieldList<'_> = headers.iter().map(Field::from).collect();
    let fields = Fields::new(&list);
    if same_origin::states_origin(fields) {
        return same_origin::is_same_origin(fields, client, &[]);
    }
    cookie_token(headers, rules)
        .is_some_and(|expected| bool::from(expected.as_str().as_bytes().ct_eq(token.as_bytes())))
}

/// Reads the token cookie; with two of them, neither is trusted.
fn cookie_token(headers: &HeaderMap, rules: &CookieRules) -> Option<FormToken> {
    let name = cookie_name(rules);
    let values = headers.get_all(header::COOKIE).iter();
    let mut tokens = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=")
        });
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => SessionToken::parse(std::str::from_utf8(token).ok()?).map(FormToken),
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
        // A token does not make a foreign origin acceptable.
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
        // With secure cookies only the `__Host-` cookie counts, which no other host can set.
        assert!(!check(&[("cookie", &cookie)], &token, true));
        let host = format!("__Host-portcullis-form={token}");
        assert!(check(&[("cookie", &host)], &token, true));
    }
}
