#![expect(clippy::unwrap_used, reason = "tests")]
use http::header::HeaderName;

use super::*;
use crate::pipeline::fields::tests::list;
use crate::routing::HeaderEdits;

fn is_forbidden(name: &str, peer_trusted: bool) -> bool {
    let identity = ["x-user-id", "x-user-email", "x-user-roles", "x-session-id"];
    let key = (
        HeaderName::from_static("x-api-key"),
        HeaderValue::from_static("k"),
    );
    let removed = ["x-debug", "x_tenant"].map(HeaderName::from_static);
    let identity = identity.map(HeaderName::from_static).into_iter().collect();
    let edits = HeaderEdits::new(vec![key], removed.to_vec());
    let names = ForbiddenNames::new(&identity, &edits.names, peer_trusted);
    names.contains(&Field::new(name.as_bytes(), b""))
}

#[test]
fn reserved_names_are_forbidden_in_any_case() {
    for name in [
        "x-user-id",
        "x-session-id",
        "x-api-key",
        "x-debug",
        "x-portcullis-anything",
        "x-portcullis-name-that-is-longer-than-every-listed-one",
        "x-forwarded-port",
        "x-forwarded",
        "x-original-url",
        "x-rewrite-anything",
        "x-forwarded-user",
        "client-ip",
        "true-client-ip",
        "x-http-method-override",
        "x-envoy-external-address",
        "x-real-ip",
        "proxy",
    ] {
        assert!(is_forbidden(name, false), "{name}");
        assert!(is_forbidden(&name.to_ascii_uppercase(), false), "{name}");
    }
    for name in [
        "x-user",
        "accept",
        "x-userid",
        "a.b",
        "proxying",
        "x~other",
        "content-language",
        "x-envoy-external-address-and-more-than-that",
    ] {
        assert!(!is_forbidden(name, false), "{name}");
    }
}

#[test]
fn cgi_equivalent_spellings_are_forbidden() {
    for name in [
        "x-user-id",
        "X-Session-ID",
        "x-portcullis-anything",
        "X-Forwarded-For",
        "x-real-ip",
        "client-ip",
        "x-request-id",
        "x-api-key",
        "x-debug",
    ] {
        for other in "!#$%&'*+.^_`|~".chars() {
            let respelled = name.replace('-', &other.to_string());
            assert!(is_forbidden(&respelled, false), "{respelled}");
            assert!(
                is_forbidden(&respelled, true),
                "{respelled} of a trusted peer"
            );
            let once = name.replacen('-', &other.to_string(), 1);
            assert!(is_forbidden(&once, false), "{once}");
        }
    }
    assert!(is_forbidden("some_name", true));
    // For an edit in such a spelling, the plain one is the other spelling.
    assert!(is_forbidden("x-tenant", true));
    assert!(!is_forbidden("x-tenants", false));
}

#[test]
fn trusted_peer_may_forward_but_not_identify() {
    assert!(!is_forbidden("x-forwarded-port", true));
    assert!(!is_forbidden("x-real-ip", true));
    assert!(is_forbidden("x-user-id", true));
    assert!(is_forbidden("x-portcullis-assertion", true));
    assert!(is_forbidden("proxy", true));
}

#[test]
fn only_the_gateways_cookies_are_withheld() {
    let own = "portcullis=1; __Host-portcullis=2";
    for (cookies, expected) in [
        (&[][..], Some(None)),
        (&["a=1; b"], Some(None)),
        (&[own], None),
        (&[""], None),
        (&["a=1;portcullis=1; b=2;"], Some(Some("a=1; b=2;"))),
        (&["portcullis=1; a=1"], Some(Some("a=1"))),
        (&["a=1", "b=2"], Some(Some("a=1; b=2"))),
        (&[own, "b=2", "", "c=3"], Some(Some("b=2; c=3"))),
    ] {
        let fields: Vec<_> = cookies.iter().map(|value| ("Cookie", *value)).collect();
        let found = Cookies::of(Fields::new(&list(&fields)), "portcullis");
        let found = match &found {
            Cookies::Pass => Some(None),
            Cookies::Withheld => None,
            Cookies::Rewritten(left) => Some(Some(left.to_str().unwrap())),
        };
        assert_eq!(found, expected, "{cookies:?}");
    }
}

#[test]
fn authorization_of_the_gateway_is_withheld() {
    for (values, bearer_passes, expected) in [
        (&[][..], false, false),
        (&["Basic YTpi"], false, false),
        (&["Session x"], true, true),
        (&["bearer x"], false, true),
        (&["bearer x"], true, false),
        (&["Basic YTpi", "session=x"], true, true),
    ] {
        let fields = values.iter().map(|value| ("Authorization", *value));
        let fields = list(&fields.collect::<Vec<_>>());
        let withheld = withholds_authorization(Fields::new(&fields), bearer_passes);
        assert_eq!(withheld, expected, "{values:?} {bearer_passes}");
    }
}

#[test]
fn repeated_length_is_sent_once() {
    for (values, expected) in [
        (&[][..], Ok(None)),
        (&["5"], Ok(None)),
        (&["5", "5"], Ok(Some("5"))),
        (&["5", "5", "6"], Err(())),
        (&["5", "05"], Err(())),
    ] {
        let fields = values.iter().map(|value| ("Content-Length", *value));
        let fields = list(&fields.collect::<Vec<_>>());
        let found = repeated_length(Fields::new(&fields)).map_err(|_| ());
        assert_eq!(
            found,
            expected.map(|it| it.map(str::as_bytes)),
            "{values:?}"
        );
    }
}
