#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use serde_json::{Value, json};

use super::*;
use crate::auth::token::fixtures::{NOW, introspection_rules};

const LEEWAY: Millis = 5_000;
const SECONDS: u64 = NOW / 1000;

fn rules() -> IntrospectionRules {
    IntrospectionRules {
        issuer: Some("https://id.example".to_owned()),
        ..introspection_rules("corp")
    }
}

fn read(rules: &IntrospectionRules, body: &Value) -> Result<IntrospectionVerdict, &'static str> {
    rules.read(body.to_string().as_bytes(), "key", LEEWAY, NOW)
}

fn claims(rules: &IntrospectionRules, body: &Value) -> Arc<Claims> {
    match read(rules, body).unwrap() {
        IntrospectionVerdict::Active(verified) => verified.claims,
        other => panic!("{other:?}"),
    }
}

/// The reason why a yes with these members is rejected.
fn rejection(rules: &IntrospectionRules, name: &str, value: &Value) -> Option<&'static str> {
    let mut body = json!({"active": true, "sub": "ann"});
    body[name] = value.clone();
    match read(rules, &body).unwrap() {
        IntrospectionVerdict::Active(_) => None,
        IntrospectionVerdict::Rejected(VerifyError::Invalid(reason)) => Some(reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn yes_becomes_claims_of_the_entry() {
    let body = json!({
        "active": true, "sub": "ann", "email": "ann@example.com", "roles": ["a", "b"],
        "scope": "read write", "exp": SECONDS + 60, "iat": SECONDS - 60, "jti": "ignored",
        "sid": "ignored", "token_type": "bearer", "iss": "https://id.example",
    });
    let claims = claims(&rules(), &body);
    assert_eq!(claims.source, TokenSource::Introspected("corp".into()));
    assert_eq!(claims.issuer, "https://id.example");
    assert_eq!((&*claims.user, claims.session), ("corp:ann", None));
    assert_eq!(claims.blacklist_key, "key");
    assert_eq!(claims.email.as_deref(), Some("ann@example.com"));
    assert_eq!((claims.roles.len(), claims.scopes.len()), (2, 2));
    assert_eq!(claims.expires_at, (SECONDS + 60) * 1000);
    assert_eq!(claims.issued_at, Some((SECONDS - 60) * 1000));
}

#[test]
fn without_issuer_the_name_is_the_issuer_of_the_users() {
    let rules = IntrospectionRules {
        issuer: None,
        ..rules()
    };
    let body = json!({"active": true, "sub": "ann", "iss": "https://any.example"});
    assert_eq!(claims(&rules, &body).issuer, "corp");
}

#[test]
fn only_a_plain_yes_or_no_says_something_of_the_token() {
    for (body, expected) in [
        (r#"{"active":false}"#, true),
        (r#"{"active":false,"sub":1,"exp":"x"}"#, true),
        (r#"{"active":true,"sub":"a"}"#, true),
        (r#"{"active":"true","sub":"a"}"#, false),
        (r#"{"active":1,"sub":"a"}"#, false),
        (r#"{"active":null}"#, false),
        (r#"{"sub":"a"}"#, false),
        (r#"{"active":false,"active":true,"sub":"a"}"#, false),
        (r#"{"active":true,"sub":"a","sub":"b"}"#, false),
        (r#"{"active":true,"sub":"a","x":{"y":1,"y":2}}"#, false),
        (r#"[{"active":true}]"#, false),
        (r#"{"active":true"#, false),
        ("true", false),
        ("", false),
    ] {
        let result = rules().read(body.as_bytes(), "key", LEEWAY, NOW);
        assert_eq!(result.is_ok(), expected, "{body}");
    }
}

#[test]
fn members_of_a_yes_are_checked_like_claims() {
    let all = IntrospectionRules {
        audience: Some("shop".to_owned()),
        reserved_prefixes: ReservedPrefixes::new(["other:"]),
        ..rules()
    };
    let mut body = json!({"active": true, "sub": "ann"});
    assert!(matches!(
        read(&all, &body).unwrap(),
        IntrospectionVerdict::Rejected(VerifyError::Invalid(_))
    ));
    body["aud"] = json!(["x", "shop"]);
    assert_eq!(claims(&all, &body).user, "corp:ann");
    let open = IntrospectionRules {
        audience: None,
        ..all.clone()
    };
    for (name, value, is_valid) in [
        ("aud", json!("anything"), true),
        ("iss", json!("https://id.example"), true),
        ("iss", json!("https://id.example/"), false),
        ("iss", json!(["https://id.example"]), false),
        ("iss", json!(null), false),
        ("token_type", json!("Bearer"), true),
        ("token_type", json!("DPoP"), false),
        ("token_type", json!("refresh_token"), false),
        ("token_type", json!(null), false),
        ("token_use", json!("access_token"), true),
        ("token_use", json!("refresh_token"), false),
        ("exp", json!(SECONDS + 1), true),
        ("exp", json!("soon"), false),
        ("exp", json!(1e15), false),
        ("nbf", json!(SECONDS + 5), true),
        ("nbf", json!(SECONDS + 6), false),
        ("iat", json!(SECONDS + 6), false),
        ("sub", json!(7), false),
        ("sub", json!(""), false),
        ("sub", json!("a b"), false),
        ("sub", json!("other:1"), false),
        ("sub", json!(null), false),
        ("email", json!(7), false),
        ("roles", json!("a,b"), true),
        ("roles", json!([1]), false),
        ("cnf", json!({"jkt": "x"}), false),
        ("cnf", json!(null), false),
        ("cnf", json!({"x5t#S256": "A".repeat(43)}), true),
    ] {
        let reason = rejection(&open, name, &value);
        assert_eq!(reason.is_none(), is_valid, "{name} {value}: {reason:?}");
    }
}

#[test]
fn expired_token_is_reported_as_such_after_the_leeway() {
    for (exp, is_active) in [(SECONDS - 4, true), (SECONDS - 5, false), (0, false)] {
        let body = json!({"active": true, "sub": "ann", "exp": exp});
        match read(&rules(), &body).unwrap() {
            IntrospectionVerdict::Active(_) => assert!(is_active, "{exp}"),
            IntrospectionVerdict::Rejected(VerifyError::Expired(claims)) => {
                assert!(!is_active, "{exp}");
                assert_eq!(claims.user, "corp:ann");
            }
            other => panic!("{other:?}"),
        }
    }
    let without = claims(&rules(), &json!({"active": true, "sub": "ann"}));
    assert_eq!(without.expires_at, NOW + WITHOUT_EXPIRY);
    assert_eq!(without.stated_expiry(NOW + 600_000), None);
    let end = SECONDS + 365 * 24 * 60 * 60;
    let with = claims(&rules(), &json!({"active": true, "sub": "ann", "exp": end}));
    assert_eq!(with.stated_expiry(NOW), Some(end * 1000));
}

#[test]
fn key_covers_all_of_the_token() {
    let key = opaque_token_key("abc");
    assert_eq!(key.len(), 64);
    assert_ne!(key, opaque_token_key("abc."));
    assert_ne!(key, opaque_token_key("abc="));
}
