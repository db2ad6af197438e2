#![expect(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]

use std::time::Duration;

use super::{
    AuthScheme, PresentedCredential, auth_scheme, clearing_cookies, extract, session_cookie,
    sets_own_cookie, strip_own_cookies,
};
use crate::auth::session::{CookieRules, SameSite, SessionToken};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NAME: &str = "__Host-portcullis";

fn token() -> SessionToken {
    SessionToken::parse(TOKEN).unwrap()
}

fn check(fields: &[(&'static str, &[u8])], expected: PresentedCredential<'_>) {
    let named = |wanted: &'static str| {
        let fields = fields.iter().filter(move |(name, _)| *name == wanted);
        fields.map(|(_, value)| *value)
    };
    let values: Vec<_> = fields
        .iter()
        .map(|(_, value)| String::from_utf8_lossy(value))
        .collect();
    let found = extract(
        named("authorization"),
        named("x-api-key"),
        named("cookie"),
        NAME,
    );
    assert_eq!(found, expected, "{values:?}");
}

fn check_authorization(value: &str, expected: PresentedCredential<'_>) {
    check(&[("authorization", value.as_bytes())], expected);
}

#[test]
fn bearer_token_is_one_token68_word() {
    use PresentedCredential::{Absent, Bearer, MalformedBearer};
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        check_authorization(
            &format!("{scheme} a.b-c_d~e+f/g=="),
            Bearer("a.b-c_d~e+f/g=="),
        );
        check_authorization(&format!("{scheme}   abc  "), Bearer("abc"));
        for bad in [
            "",
            " ",
            " a b",
            " a, Bearer b",
            " a,b",
            ",a",
            ":a",
            "=a",
            "\ta",
            " \ta",
            " \"a\"",
            " =",
            " a=b",
            " {}",
            " ä",
            " a;b",
        ] {
            check_authorization(&format!("{scheme}{bad}"), MalformedBearer);
        }
    }
    check_authorization("Bearerabc", Absent);
    check_authorization("Bearer2 abc", Absent);
}

#[test]
fn session_token_is_64_lower_case_hex_characters() {
    use PresentedCredential::{MalformedSession, Session};
    check_authorization(&format!("Session {TOKEN}"), Session(token()));
    check_authorization(&format!("sESSION  {TOKEN}"), Session(token()));
    for bad in [
        "",
        " ",
        " abc",
        &format!(" {TOKEN}0"),
        &format!(" {}", TOKEN.to_uppercase()),
    ] {
        check_authorization(&format!("Session{bad}"), MalformedSession);
    }
    assert_eq!(auth_scheme(b"session abc"), AuthScheme::Session);
    assert_eq!(auth_scheme(b"Session"), AuthScheme::Session);
    assert_eq!(auth_scheme(b"Bearer abc"), AuthScheme::Bearer);
    assert_eq!(auth_scheme(b"Sessions abc"), AuthScheme::Other);
}

#[test]
fn attempted_credential_decides() {
    use PresentedCredential::{Absent, Ambiguous, Bearer, Cookie, MalformedBearer};
    let auth = |value: &'static str| ("authorization", value.as_bytes());
    let cookie = format!("{NAME}={TOKEN}");
    let ours = ("cookie", cookie.as_bytes());
    check(&[], Absent);
    check(&[ours], Cookie(token()));
    check(&[auth("Bearer abc"), ours], Bearer("abc"));
    check(&[auth("Bearer"), ours], MalformedBearer);
    check(&[auth("Basic YTpi"), ours], Cookie(token()));
    check(&[auth(""), ours], Cookie(token()));
    check(&[auth("Basic YTpi")], Absent);
    check(
        &[auth("Bearer abc"), auth("Bearer abc")],
        Ambiguous { cookies: false },
    );
    check(
        &[auth("Basic YTpi"), auth("Bearer abc")],
        Ambiguous { cookies: false },
    );
    check(
        &[auth("Basic a"), auth("Basic b"), ours],
        Ambiguous { cookies: false },
    );
    check(&[ours, ours], Ambiguous { cookies: true });
    check(
        &[auth("Basic YTpi"), ours, ours],
        Ambiguous { cookies: true },
    );
    check(&[auth("Bearer abc"), ours, ours], Bearer("abc"));
}

#[test]
fn cookie_is_found_by_its_exact_name() {
    use PresentedCredential::{Absent, Ambiguous, Cookie, MalformedCookie};
    let cookie = format!("{NAME}={TOKEN}");
    let twice = format!("{NAME}=x; {cookie}");
    check(&[("cookie", twice.as_bytes())], Ambiguous { cookies: true });
    let empty_twice = format!("{NAME}=;{NAME}=");
    check(
        &[("cookie", empty_twice.as_bytes())],
        Ambiguous { cookies: true },
    );
    let among = format!("a=1;{cookie} ; b={NAME}; {NAME}; __host-portcullis=2; x{NAME}=3;;=");
    check(
        &[("cookie", among.as_bytes()), ("cookie", b"c=3")],
        Cookie(token()),
    );
    for bad in [
        "",
        "abc",
        &format!("\"{TOKEN}\""),
        &TOKEN.to_uppercase(),
        &format!("{TOKEN}0"),
        "ü",
    ] {
        check(
            &[("cookie", format!("{NAME}={bad}").as_bytes())],
            MalformedCookie,
        );
    }
    check(&[("cookie", b"__Host-portcullis=\xff")], MalformedCookie);
    check(&[("cookie", b"portcullis=abc")], Absent);
}

#[test]
fn only_own_cookies_are_stripped() {
    let check = |fields: &[&'static str], expected: Option<&str>| {
        let stripped = strip_own_cookies(fields.iter().map(|field| field.as_bytes()), "portcullis");
        assert_eq!(
            stripped.as_ref().map(|stripped| stripped.to_str().unwrap()),
            expected,
            "{fields:?}"
        );
    };
    check(&[], None);
    check(&[""], None);
    check(&["portcullis=a"], None);
    check(&["portcullis=a; portcullis=b", "portcullis=c"], None);
    check(&["a=1; portcullis=a; b=2"], Some("a=1; b=2"));
    check(&["portcullis=a; b=2"], Some("b=2"));
    check(&["a=1; portcullis=a"], Some("a=1"));
    check(&["a=1; portcullis =a"], Some("a=1"));
    check(
        &["a=1;b=\"2\";  c ; portcullisx=3"],
        Some("a=1;b=\"2\";  c ; portcullisx=3"),
    );
    check(&["a=1", "portcullis=a", "b=2"], Some("a=1; b=2"));
    for flow in [
        "portcullis-flow-=a",
        "portcullis-flow-0123456789abcdef=a",
        "Portcullis-Flow-0=a",
        "__Secure-portcullis-flow-0=a",
        " __secure-PORTCULLIS-flow-0 =a",
    ] {
        check(&["a=1", flow, "b=2"], Some("a=1; b=2"));
    }
    check(&["portcullis-flo=1"], Some("portcullis-flo=1"));
}

/// A cookie of one host.
fn host_prefixed_rules() -> CookieRules {
    CookieRules {
        name: NAME.to_owned(),
        secure: true,
        same_site: SameSite::Lax,
        domain: None,
        path: "/".to_owned(),
    }
}

/// A cookie of a domain, over cleartext.
fn plain_rules() -> CookieRules {
    CookieRules {
        name: "portcullis".to_owned(),
        secure: false,
        same_site: SameSite::Strict,
        domain: Some("example.com".to_owned()),
        path: "/app".to_owned(),
    }
}

/// A cookie with a configured name.
fn custom_name_rules() -> CookieRules {
    CookieRules {
        name: "sid".to_owned(),
        secure: true,
        same_site: SameSite::None,
        domain: None,
        path: "/".to_owned(),
    }
}

const ATTRIBUTES: &str = "HttpOnly; SameSite=Lax; Secure; Path=/";

#[test]
fn cookie_is_written_with_its_attributes() {
    let set = |rules: CookieRules, seconds| {
        session_cookie(&rules, &token(), Duration::from_secs(seconds))
    };
    assert_eq!(
        set(host_prefixed_rules(), 60),
        format!("{NAME}={TOKEN}; {ATTRIBUTES}; Max-Age=60")
    );
    let day = 24 * 60 * 60;
    let longest = format!("{NAME}={TOKEN}; {ATTRIBUTES}; Max-Age=34560000");
    assert_eq!(set(host_prefixed_rules(), 401 * day), longest);
    assert_eq!(
        set(plain_rules(), 60),
        format!(
            "portcullis={TOKEN}; HttpOnly; SameSite=Strict; Path=/app; Domain=example.com; Max-Age=60"
        )
    );
    assert_eq!(
        set(custom_name_rules(), 60),
        format!("sid={TOKEN}; HttpOnly; SameSite=None; Secure; Path=/; Max-Age=60")
    );
}

#[test]
fn cookie_is_cleared_with_matching_attributes() {
    let cleared = |rules: CookieRules| -> Vec<String> {
        let fields = clearing_cookies(&rules);
        fields
            .iter()
            .map(|field| field.to_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        cleared(host_prefixed_rules()),
        [
            format!("{NAME}=; {ATTRIBUTES}; Max-Age=0"),
            format!("portcullis=; {ATTRIBUTES}; Max-Age=0"),
        ]
    );
    assert_eq!(
        cleared(plain_rules()),
        [
            "portcullis=; HttpOnly; SameSite=Strict; Path=/app; Max-Age=0".to_owned(),
            "portcullis=; HttpOnly; SameSite=Strict; Path=/app; Domain=example.com; Max-Age=0"
                .to_owned(),
            format!("{NAME}=; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=0"),
        ]
    );
    assert_eq!(
        cleared(custom_name_rules()),
        ["sid=; HttpOnly; SameSite=None; Secure; Path=/; Max-Age=0"]
    );
}

#[test]
fn upstream_cannot_set_own_cookies() {
    let check = |set_cookie: &[u8], name: &str, expected: bool| {
        let text = String::from_utf8_lossy(set_cookie);
        assert_eq!(sets_own_cookie(set_cookie, name), expected, "{text}");
    };
    for ours in [
        "portcullis=x; Path=/",
        " portcullis =x",
        "portcullis",
        "=portcullis=x",
        "= \tportcullis=x",
    ] {
        check(ours.as_bytes(), "portcullis", true);
    }
    for other in [
        "Portcullis=x",
        "portcullis2=x",
        "a=portcullis=x",
        "a=1; portcullis=x",
        "",
        ";",
        "=",
        "\"portcullis\"=x",
        "xportcullis-flow-0=x",
        "a=portcullis-flow-0=x",
    ] {
        check(other.as_bytes(), "portcullis", false);
    }
    for flow in [
        "portcullis-flow-0=x; Path=/",
        "portcullis-flow-",
        " PORTCULLIS-flow-0 =x",
        "=portcullis-flow-0=x",
        "__Secure-portcullis-flow-0=x",
        "__secure-Portcullis-Flow-0=x; Domain=example.com",
        "= \t__SECURE-portcullis-flow-0=x",
    ] {
        check(flow.as_bytes(), "sid", true);
    }
    check(b"portcullis=\xff", "portcullis", true);
    for ours in [
        "__Host-portcullis=x",
        "__host-portcullis=x",
        "__HOST-PORTCULLIS=x",
    ] {
        check(ours.as_bytes(), NAME, true);
    }
    // Both default names, whatever the cookie is called now.
    for name in [NAME, "portcullis", "sid"] {
        check(b"portcullis=x", name, true);
        check(b"__Host-portcullis=x", name, true);
    }
    check(b"sid=x", NAME, false);
}

proptest::proptest! {
    #[test]
    fn extract_never_panics(authorization: Vec<u8>, cookie: Vec<u8>) {
        sets_own_cookie(&cookie, NAME);
        extract(
            [&*authorization].into_iter(),
            std::iter::empty(),
            [&*cookie].into_iter(),
            NAME,
        );
        strip_own_cookies([&*cookie], NAME);
    }
}
