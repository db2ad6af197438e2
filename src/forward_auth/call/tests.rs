#![expect(clippy::unwrap_used, reason = "tests")]

use http::{HeaderName, Method, Version};

use super::*;
use crate::forward_auth::call_fault::FORWARDED_FOR;
use crate::pipeline::fields::tests::list;

type FieldTexts<'t> = &'t [(&'t str, &'t str)];

/// The fields of calls that are well-formed.
const NGINX: [(&str, &str); 3] = [
    ("X-Original-Method", "POST"),
    ("X-Original-URL", "https://Shop.example:8443/a/b?c=d&e=/f"),
    ("X-Forwarded-For", "192.0.2.7"),
];
const TRAEFIK: [(&str, &str); 5] = [
    ("X-Forwarded-Method", "POST"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "Shop.example:8443"),
    ("X-Forwarded-Uri", "/a/b?c=d&e=/f"),
    ("X-Forwarded-For", "192.0.2.7"),
];
const ENVOY: [(&str, &str); 3] = [
    ("Host", "Shop.example:8443"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-For", "192.0.2.7"),
];

/// The original request as text, or the fault.
fn read(path: &str, method: &str, fields: FieldTexts<'_>) -> Result<String, CallFault> {
    let identity = ["x-user-id", "x-session-id"].map(HeaderName::from_static);
    let identity: NameSet = identity.into_iter().collect();
    let (list, method) = (list(fields), Method::from_bytes(method.as_bytes()).unwrap());
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let call = RequestHead {
        method: &method,
        version: Version::HTTP_11,
        path,
        query,
        fields: Fields::new(&list),
    };
    let dialect = crate::forward_auth::dialect_of(path).unwrap();
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let request = read_call(dialect, &call, &identity, &trusted)?;
    let (host, name) = request.host_and_name();
    let scheme = if request.client.https {
        "https"
    } else {
        "http"
    };
    let query = request
        .query
        .map_or(String::new(), |query| format!("?{query}"));
    Ok(format!(
        "{} {scheme} {host} {name} {}{query} {}",
        request.method, request.path, request.client.ip
    ))
}

/// The same fields with one replaced; an empty value removes it.
fn with<'t>(fields: FieldTexts<'t>, name: &str, value: &'t str) -> Vec<(&'t str, &'t str)> {
    let fields = fields
        .iter()
        .copied()
        .map(|(other, old)| match other == name {
            true => (other, value),
            false => (other, old),
        });
    fields.filter(|(_, value)| !value.is_empty()).collect()
}

fn and<'t>(fields: FieldTexts<'t>, name: &'t str, value: &'t str) -> Vec<(&'t str, &'t str)> {
    [fields, &[(name, value)]].concat()
}

#[test]
fn every_dialect_names_the_original_request() {
    let expected = "POST https Shop.example:8443 shop.example /a/b?c=d&e=/f 192.0.2.7";
    for (path, method, fields) in [
        ("/auth-request", "GET", &NGINX[..]),
        ("/auth-request?c=x", "HEAD", &NGINX),
        ("/forward-auth", "GET", &TRAEFIK),
        ("/forward-auth?X-Forwarded-Uri=/x", "GET", &TRAEFIK),
        ("/ext-authz/a/b?c=d&e=/f", "POST", &ENVOY),
    ] {
        assert_eq!(
            read(path, method, fields).as_deref(),
            Ok(expected),
            "{path}"
        );
    }
}

#[test]
fn every_field_of_the_dialect_is_present_exactly_once() {
    let rows: [(&str, FieldTexts<'_>, &FieldFaults, &str); 8] = [
        (
            "/auth-request",
            &NGINX,
            &ORIGINAL_METHOD,
            "X-Original-Method",
        ),
        ("/auth-request", &NGINX, &ORIGINAL_URL, "X-Original-URL"),
        (
            "/forward-auth",
            &TRAEFIK,
            &FORWARDED_METHOD,
            "X-Forwarded-Method",
        ),
        (
            "/forward-auth",
            &TRAEFIK,
            &FORWARDED_PROTO,
            "X-Forwarded-Proto",
        ),
        (
            "/forward-auth",
            &TRAEFIK,
            &FORWARDED_HOST,
            "X-Forwarded-Host",
        ),
        ("/forward-auth", &TRAEFIK, &FORWARDED_URI, "X-Forwarded-Uri"),
        ("/ext-authz/", &ENVOY, &FORWARDED_PROTO, "X-Forwarded-Proto"),
        ("/ext-authz/", &ENVOY, &HOST, "Host"),
    ];
    for (path, fields, faults, name) in rows {
        let missing = read(path, "GET", &with(fields, name, ""));
        assert_eq!(missing, Err(faults.missing), "{path} {name}");
        let value = fields.iter().find(|(other, _)| *other == name).unwrap().1;
        let repeated = read(path, "GET", &and(fields, name, value));
        assert_eq!(repeated, Err(faults.repeated), "{path} {name}");
    }
    for (path, fields) in [
        ("/auth-request", &NGINX[..]),
        ("/forward-auth", &TRAEFIK),
        ("/ext-authz/", &ENVOY),
    ] {
        let missing = read(path, "GET", &with(fields, "X-Forwarded-For", ""));
        assert_eq!(missing, Err(FORWARDED_FOR.missing), "{path}");
        let garbage = read(path, "GET", &and(fields, "X-Forwarded-For", "garbage"));
        assert_eq!(garbage, Err(FORWARDED_FOR.malformed), "{path}");
    }
}

/// URLs by which nginx may not name a request.
const MALFORMED_URLS: [&str; 17] = [
    "/a",
    "shop.example/a",
    "https:/shop.example/a",
    "https://shop.example",
    "https://shop.example?a",
    "https://user@shop.example/",
    "https://user:password@shop.example/",
    "https:///a",
    "ftp://shop.example/a",
    "ws://shop.example/a",
    "https://shop.example/a#b",
    "https://shop.example#b",
    "https://shop.example/a b",
    "https://shop.example/\u{e4}",
    "https://shop.example:x/",
    "https://a, https://b/",
    "https://a.example,b.example/",
];
const MALFORMED_HOSTS: [&str; 7] = [
    "a, b",
    "user@shop.example",
    "shop.example/a",
    "http://shop.example",
    "a b",
    ":80",
    "a,b",
];
const MALFORMED_TARGETS: [&str; 7] = [
    "a",
    "*",
    "?a",
    "https://shop.example/a",
    "/a#b",
    "/a b",
    "/\u{e4}",
];

#[test]
fn malformed_fields_are_not_replaced() {
    let methods = &["G T", "GET,POST", "G/T", "a\u{e4}"][..];
    let schemes = &["ftp", "https,http", "https://", "h2"][..];
    for (path, fields, name, values) in [
        ("/auth-request", &NGINX[..], "X-Original-Method", methods),
        ("/auth-request", &NGINX, "X-Original-URL", &MALFORMED_URLS),
        ("/forward-auth", &TRAEFIK, "X-Forwarded-Method", methods),
        ("/forward-auth", &TRAEFIK, "X-Forwarded-Proto", schemes),
        (
            "/forward-auth",
            &TRAEFIK,
            "X-Forwarded-Host",
            &MALFORMED_HOSTS,
        ),
        (
            "/forward-auth",
            &TRAEFIK,
            "X-Forwarded-Uri",
            &MALFORMED_TARGETS,
        ),
        ("/ext-authz/", &ENVOY, "X-Forwarded-Proto", schemes),
        ("/ext-authz/", &ENVOY, "X-Forwarded-Proto", &["ws", "wss"]),
        ("/ext-authz/", &ENVOY, "Host", &MALFORMED_HOSTS),
    ] {
        for value in values {
            let found = read(path, "GET", &with(fields, name, value));
            let CallFault(text) = found.unwrap_err();
            assert!(text.ends_with(" is malformed."), "{name}: {value}: {text}");
        }
    }
}

#[test]
fn schemes_are_read_in_any_case_and_include_those_of_upgrades() {
    for (proto, expected) in [
        ("http", "http"),
        ("HTTPS", "https"),
        ("ws", "http"),
        ("wss", "https"),
    ] {
        let found = read(
            "/forward-auth",
            "GET",
            &with(&TRAEFIK, "X-Forwarded-Proto", proto),
        );
        let found = found.unwrap();
        assert_eq!(found.split(' ').nth(1), Some(expected), "{proto}");
    }
}

#[test]
fn fields_of_other_dialects_are_not_looked_at() {
    let mut fields = NGINX.to_vec();
    fields.extend([
        ("X-Forwarded-Method", "x y"),
        ("X-Forwarded-Proto", "ftp"),
        ("X-Forwarded-Host", "evil"),
        ("X-Forwarded-Host", "evil"),
        ("X-Forwarded-Uri", "evil"),
        ("X_Original_URL", "evil"),
        ("Host", "a b"),
    ]);
    let found = read("/auth-request", "GET", &fields).unwrap();
    assert!(found.starts_with("POST https Shop.example:8443"), "{found}");
}

#[test]
fn names_that_could_be_mistaken_for_the_gateways_are_faults() {
    for (name, is_fault) in [
        ("X-User-Id", false),
        ("x-user-id", false),
        ("X-User_Id", true),
        ("X.User.Id", true),
        ("X_Session_ID", true),
        ("X-User-Idx", false),
        ("X-Portcullis-Code", true),
        ("x-portcullis-x", true),
        ("X_Portcullis_Assertion", true),
        ("X-Portcullis", false),
        ("X-Portcullisx", false),
        ("X-Other_Name", false),
    ] {
        for (path, fields) in [
            ("/auth-request", &NGINX[..]),
            ("/forward-auth", &TRAEFIK),
            ("/ext-authz/", &ENVOY),
        ] {
            let found = read(path, "GET", &and(fields, name, "admin"));
            let fault = found.err() == Some(RESERVED_NAME);
            assert_eq!(fault, is_fault, "{path} {name}");
        }
    }
}
