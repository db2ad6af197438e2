#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use http::HeaderValue;

use super::*;
use crate::settings::UpstreamTls;
use crate::settings::backend::SignInResponse;

fn backend(user_id: &str) -> BackendSettings {
    let at = |text: &str| match text.strip_prefix("header:") {
        Some(name) => ResponseField::Header(name.parse().unwrap()),
        None => ResponseField::Pointer(text.to_owned()),
    };
    BackendSettings {
        method: http::Method::POST,
        login: "http://127.0.0.1/login".parse().unwrap(),
        tls: UpstreamTls::default(),
        user_id: at(user_id),
        email: Some(at("/user/email")),
        name: Some(at("/user/name")),
        roles: Some(at("/user/roles")),
        scopes: Some(at("/user/scopes")),
        account: vec!["email".to_owned()],
        response: SignInResponse::Replace,
        pass_set_cookie: false,
        timeout: Duration::from_secs(1),
        concurrency: 1,
    }
}

fn read(user_id: &str, body: &str) -> Result<BackendUser, &'static str> {
    BackendUser::parse(&backend(user_id), &HeaderMap::new(), body.as_bytes())
}

#[test]
fn user_is_read_by_json_pointers() {
    let body = r#"{"user":{"id":7,"email":"Ann@Example.com","name":"Ann",
                       "roles":["admin","ops"],"scopes":"read write"}}"#;
    let user = read("/user/id", body).unwrap();
    assert_eq!(
        user,
        BackendUser {
            id: "7".to_owned(),
            email: "Ann@Example.com".to_owned(),
            name: Some("Ann".to_owned()),
            roles: vec!["admin".to_owned(), "ops".to_owned()],
            scopes: vec!["read".to_owned(), "write".to_owned()],
        }
    );
    let bare = read("/user/id", r#"{"user":{"id":"x","email":null}}"#).unwrap();
    assert_eq!((bare.email.as_str(), bare.roles.len()), ("", 0));
}

#[test]
fn user_id_is_an_integer_or_visible_text() {
    let long = format!("\"{}\"", "x".repeat(256));
    let longest = format!("\"{}\"", "x".repeat(255));
    for (id, expected) in [
        ("0", Some("0")),
        ("-5", Some("-5")),
        ("18446744073709551615", Some("18446744073709551615")),
        // Digits would be lost, and two users would share an ID.
        ("18446744073709551616", None),
        ("1.5", None),
        ("1e3", None),
        ("\"a|b@c\"", Some("a|b@c")),
        (longest.as_str(), Some(longest.trim_matches('"'))),
        (long.as_str(), None),
        ("\"\"", None),
        ("\"a b\"", None),
        ("\"a\\u0000\"", None),
        ("null", None),
        ("true", None),
        ("[1]", None),
        ("{}", None),
    ] {
        let user = read("/id", &format!("{{\"id\":{id}}}"));
        assert_eq!(user.ok().map(|p| p.id).as_deref(), expected, "{id}");
    }
    assert!(read("/id", "{}").is_err());
    assert!(read("/id", "not JSON").is_err());
    // Two parsers could pick different IDs.
    assert!(read("/id", r#"{"id":"ann","id":"admin"}"#).is_err());
    assert_eq!(read("/0/id", r#"[{"id":"a"}]"#).unwrap().id, "a");
}

#[test]
fn repeated_header_is_rejected() {
    let mut backend = backend("header:x-user-id");
    (backend.email, backend.name, backend.scopes) = (None, None, None);
    backend.roles = Some(ResponseField::Header("x-roles".parse().unwrap()));
    let mut headers = HeaderMap::new();
    assert!(BackendUser::parse(&backend, &headers, b"not JSON").is_err());
    headers.insert("x-user-id", HeaderValue::from_static("7"));
    headers.insert("x-roles", HeaderValue::from_static("admin, ops"));
    let user = BackendUser::parse(&backend, &headers, b"not JSON").unwrap();
    assert_eq!(user.id, "7");
    assert_eq!(user.roles, ["admin", "ops"]);
    headers.append("x-user-id", HeaderValue::from_static("8"));
    assert!(BackendUser::parse(&backend, &headers, b"").is_err());
}

#[test]
fn malformed_member_rejects_the_response() {
    for wrong in [
        r#""email":5"#,
        r#""email":"a\nb""#,
        r#""name":["x"]"#,
        r#""roles":5"#,
        r#""roles":[1]"#,
        r#""roles":["a,b"]"#,
        r#""scopes":["a b"]"#,
    ] {
        let body = format!(r#"{{"user":{{"id":"x",{wrong}}}}}"#);
        assert!(read("/user/id", &body).is_err(), "{wrong}");
    }
}
