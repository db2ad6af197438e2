#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

const NO_HOSTS: AllowedHosts<'static> = AllowedHosts {
    machine: None,
    configured: Some(&[]),
};

#[test]
fn only_loopback_addresses_and_own_names_are_allowed() {
    let configured = ["gateway".to_owned()];
    let names = AllowedHosts {
        machine: Some("machine.example"),
        configured: Some(&configured),
    };
    for good in [
        "localhost",
        "LocalHost:9090",
        "127.0.0.1:9090",
        "[::1]:9090",
        "10.1.2.3",
        "gateway:9090",
        "Gateway",
        "gateway.",
        "Machine.Example:9090",
    ] {
        assert!(names.contains(good), "{good}");
    }
    for bad in [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil@localhost",
        "gateway.evil",
        "local host",
        "machine",
    ] {
        assert!(!names.contains(bad), "{bad}");
    }
    let any = AllowedHosts {
        configured: None,
        ..names
    };
    assert!(any.contains("evil.example") && !any.contains("evil@localhost"));
}

#[test]
fn host_is_optional_in_http_1_0_only() {
    let check = |version, list: &[_]| {
        let uri = Uri::from_static("/health");
        check_site(NO_HOSTS, version, &uri, &headers(list)).is_ok()
    };
    assert!(check(Version::HTTP_10, &[]));
    assert!(!check(Version::HTTP_11, &[]));
    assert!(!check(Version::HTTP_10, &[("host", "evil.example")]));
    assert!(!check(Version::HTTP_10, &[("origin", "http://localhost")]));
}

#[test]
fn other_origins_are_rejected() {
    let site =
        |name: &'static str, value: &'static str| vec![("host", "127.0.0.1:9090"), (name, value)];
    for (fields, expected) in [
        (vec![("host", "127.0.0.1:9090")], true),
        (site("origin", "http://127.0.0.1:9090"), true),
        (site("sec-fetch-site", "same-origin"), true),
        (site("sec-fetch-site", "none"), true),
        (site("origin", "http://evil.example"), false),
        (site("origin", "http://127.0.0.1:8080"), false),
        (site("origin", "null"), false),
        (site("sec-fetch-site", "cross-site"), false),
        (site("sec-fetch-site", "same-site"), false),
        (vec![], false),
        (vec![("host", "127.0.0.1"), ("host", "localhost")], false),
    ] {
        let headers = headers(&fields);
        let uri = Uri::from_static("/health");
        let passed = check_site(NO_HOSTS, Version::HTTP_11, &uri, &headers).is_ok();
        assert_eq!(passed, expected, "{headers:?}");
    }
    let rebound = Uri::from_static("http://evil.example/health");
    let headers = headers(&[("host", "localhost")]);
    assert!(check_site(NO_HOSTS, Version::HTTP_11, &rebound, &headers).is_err());
}

#[test]
fn admin_token_is_required_and_compared_whole() {
    let wanted = Some("0123456789abcdef");
    let check = |value: &str| check_token(wanted, &headers(&[("authorization", value)]));
    assert_eq!(check("Bearer 0123456789abcdef"), Ok(()));
    assert_eq!(check("bearer 0123456789abcdef"), Ok(()));
    for bad in [
        "Bearer 0123456789abcdeF",
        "Bearer 0123456789abcde",
        "Bearer 0123456789abcdef0",
        "Bearer",
        "Basic 0123456789abcdef",
        "0123456789abcdef",
    ] {
        assert_eq!(check(bad), Err(Refusal::Unauthenticated), "{bad}");
    }
    assert_eq!(
        check_token(wanted, &HeaderMap::new()),
        Err(Refusal::Unauthenticated)
    );
    let twice = [
        ("authorization", "Bearer 0123456789abcdef"),
        ("authorization", "Bearer 0123456789abcdef"),
    ];
    assert!(check_token(wanted, &headers(&twice)).is_err());
    assert_eq!(
        check_token(None, &headers(&[("authorization", "Bearer ")])),
        Err(Refusal::Forbidden)
    );
}
