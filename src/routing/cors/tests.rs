use std::time::Duration;

use super::*;

fn shop() -> Cors {
    Cors {
        origins: vec!["https://shop.example".to_owned()],
        methods: vec![Method::PUT],
        headers: vec![HeaderName::from_static("x-cart")],
        expose: vec![HeaderName::from_static("x-total")],
        credentials: true,
        max_age: Some(Duration::from_secs(600)),
    }
}

fn text(headers: &[(HeaderName, HeaderValue)]) -> Vec<String> {
    let line = |(n, v): &(HeaderName, HeaderValue)| format!("{n}: {}", v.to_str().unwrap_or("?"));
    headers.iter().map(line).collect()
}

const VARY_ALL: &str =
    "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

#[test]
fn allowed_preflight_gets_every_permission() {
    let origin = b"https://shop.example";
    assert_eq!(
        text(&shop().preflight_headers(origin, "PUT", Some("X-Cart"))),
        [
            VARY_ALL,
            "access-control-allow-origin: https://shop.example",
            "access-control-allow-credentials: true",
            "access-control-allow-methods: PUT",
            "access-control-allow-headers: x-cart",
            "access-control-max-age: 600",
        ]
    );
}

#[test]
fn disallowed_preflight_gets_no_permission() {
    let shop_origin = "https://shop.example";
    for (origin, method, headers) in [
        ("https://evil.example", "PUT", None),
        ("https://shop.example.evil", "PUT", None),
        ("http://shop.example", "PUT", None),
        ("null", "PUT", None),
        ("*", "PUT", None),
        (shop_origin, "DELETE", None),
        (shop_origin, "put", None),
        (shop_origin, "PUT", Some("x-cart, x-other")),
    ] {
        let response = shop().preflight_headers(origin.as_bytes(), method, headers);
        assert_eq!(text(&response), [VARY_ALL], "{origin} {method} {headers:?}");
    }
}

#[test]
fn responses_name_the_origin_and_vary_by_it() {
    let origin = b"https://shop.example";
    assert_eq!(
        text(&shop().response_headers(Some(origin))),
        [
            "vary: Origin",
            "access-control-allow-origin: https://shop.example",
            "access-control-allow-credentials: true",
            "access-control-expose-headers: x-total",
        ]
    );
    let evil = b"https://evil.example";
    assert_eq!(text(&shop().response_headers(Some(evil))), ["vary: Origin"]);
    assert_eq!(text(&shop().response_headers(None)), ["vary: Origin"]);
}

#[test]
fn wildcard_origin_excludes_credentials_and_null() {
    let mut any = shop();
    any.origins = vec!["*".to_owned()];
    any.expose.clear();
    let origin = b"https://any.example";
    assert_eq!(
        text(&any.response_headers(Some(origin))),
        ["access-control-allow-origin: *"]
    );
    let null = b"null";
    assert!(any.response_headers(Some(null)).is_empty());
    any.origins.push("null".to_owned());
    assert_eq!(
        text(&any.response_headers(Some(null))),
        ["access-control-allow-origin: null"]
    );
}

#[test]
fn wildcard_header_echoes_the_requested_headers() {
    let mut any = shop();
    any.headers = vec![HeaderName::from_static("*")];
    let origin = b"https://shop.example";
    let response = text(&any.preflight_headers(origin, "PUT", Some("x-a, x-b")));
    assert!(response.contains(&"access-control-allow-headers: x-a, x-b".to_owned()));
}
