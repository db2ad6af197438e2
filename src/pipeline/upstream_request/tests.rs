#![expect(clippy::unwrap_used, reason = "tests")]
use http::header::{HeaderName, HeaderValue};

use super::hygiene::is_dropped;
use super::identity::encode_visible;
use crate::routing::HeaderEdits;
use crate::settings::IdentityHeaderNames;

fn names() -> IdentityHeaderNames {
    let names = ["x-user-id", "x-user-email", "x-user-roles", "x-session-id"];
    IdentityHeaderNames::new(names.map(HeaderName::from_static))
}

fn edits() -> HeaderEdits {
    HeaderEdits {
        set: vec![(
            HeaderName::from_static("x-api-key"),
            HeaderValue::from_static("k"),
        )],
        remove: vec![
            HeaderName::from_static("x-debug"),
            HeaderName::from_static("x_tenant"),
        ],
    }
}

fn dropped(name: &str, peer_trusted: bool) -> bool {
    is_dropped(name.as_bytes(), &names(), &edits(), peer_trusted)
}

#[test]
fn reserved_headers_are_dropped() {
    for name in [
        "x-user-id",
        "x-session-id",
        "x-portcullis-anything",
        "x-forwarded-for",
        "x-forwarded",
        "forwarded",
        "x-original-url",
        "x-rewrite-anything",
        "x-forwarded-user",
        "client-ip",
        "true-client-ip",
        "x-http-method-override",
        "x-real-ip",
        "proxy",
    ] {
        assert!(dropped(name, false), "{name}");
    }
    for name in [
        "x-user",
        "accept",
        "x-userid",
        "x-request-id",
        "traceparent",
        "a.b",
        "proxying",
        "x-api-key",
        "x~other",
    ] {
        assert!(!dropped(name, false), "{name}");
    }
}

#[test]
fn cgi_equivalent_spellings_are_dropped() {
    for name in [
        "x-user-id",
        "x-session-id",
        "x-portcullis-anything",
        "x-forwarded-for",
        "x-real-ip",
        "client-ip",
        "x-request-id",
        "x-api-key",
        "x-debug",
    ] {
        for other in "!#$%&'*+.^_`|~".chars() {
            let respelled = name.replace('-', &other.to_string());
            assert!(dropped(&respelled, false), "{respelled}");
            assert!(dropped(&respelled, true), "{respelled} of a trusted peer");
            let once = name.replacen('-', &other.to_string(), 1);
            assert!(dropped(&once, false), "{once}");
        }
    }
    assert!(dropped("some_name", true));
    // For an edit in such a spelling, the plain one is the other spelling.
    assert!(dropped("x-tenant", true));
    assert!(!dropped("x-tenants", false));
}

#[test]
fn a_trusted_peer_may_forward_but_not_identify() {
    assert!(!dropped("x-forwarded-port", true));
    assert!(!dropped("x-real-ip", true));
    assert!(dropped("forwarded", true));
    assert!(dropped("x-user-id", true));
    assert!(dropped("proxy", true));
}

#[test]
fn identity_values_are_percent_encoded() {
    assert_eq!(encode_visible("a,b").unwrap(), "a,b");
    assert_eq!(encode_visible("é x\r\n").unwrap(), "%C3%A9%20x%0D%0A");
}
