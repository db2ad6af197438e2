#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::VerifyError;
use super::tests::verify;
use crate::auth::session::SessionId;
use crate::auth::token::fixtures::{
    SID, foreign_claims, our_claims, private, secret, sign, tokens, trusted, with_member,
};
use crate::auth::token::{Algorithm, Claims, Key, KeySource, TokenSource, Tokens, TrustedIssuer};

fn issuer_with(change: impl FnOnce(&mut TrustedIssuer)) -> Tokens {
    let mut issuer = trusted(KeySource::File(vec![private(Algorithm::EdDSA, "a")].into()));
    change(&mut issuer);
    tokens(vec![issuer])
}

fn foreign(tokens: &Tokens, claims: &Value) -> Result<Claims, VerifyError> {
    let token = sign(&private(Algorithm::EdDSA, "a"), claims);
    verify(tokens, &token).map(|verified| Claims::clone(&verified.claims))
}

#[test]
fn foreign_token_follows_its_issuers_rules() {
    let tokens = issuer_with(|_| {});
    let claims = with_member(foreign_claims(), "sid", json!("theirs"));
    let claims = with_member(claims, "roles", json!(["a b", "c"]));
    let claims = with_member(claims, "scope", json!("read  write"));
    let claims = foreign(&tokens, &claims).unwrap();
    assert_eq!(claims.source, TokenSource::Trusted(0));
    assert_eq!(claims.user, "idp:u1");
    assert_eq!(claims.session, None);
    assert_eq!(claims.roles, ["a b", "c"]);
    assert_eq!(claims.scopes, ["read", "write"]);
    let comma = with_member(foreign_claims(), "roles", json!("a,b, c"));
    assert_eq!(foreign(&tokens, &comma).unwrap().roles, ["a", "b", "c"]);
    for bad in [json!(7), json!({"a": true}), json!(["a", 7]), json!("a\nb")] {
        assert!(foreign(&tokens, &with_member(foreign_claims(), "roles", bad)).is_err());
    }
    assert!(
        foreign(
            &tokens,
            &with_member(foreign_claims(), "email", json!("a\r\nb"))
        )
        .is_err()
    );

    let strict = issuer_with(|issuer| issuer.require_session = true);
    let result = foreign(
        &strict,
        &with_member(foreign_claims(), "sid", json!("theirs")),
    );
    assert_eq!(
        result,
        Err(VerifyError::Invalid("`sid` is not a session ID"))
    );
    let with_session = foreign(&strict, &with_member(foreign_claims(), "sid", json!(SID))).unwrap();
    assert_eq!(with_session.session, SessionId::parse(SID));
}

#[test]
fn claim_is_found_by_name_path_or_pointer() {
    let claims = with_member(
        foreign_claims(),
        "https://x.example/roles",
        json!(["exact"]),
    );
    let claims = with_member(
        claims,
        "realm_access",
        json!({"roles": ["path"], "a/b": ["escaped"]}),
    );
    let check = |name: &str, expected: &[&str]| {
        let tokens = issuer_with(|issuer| issuer.claims.roles = name.to_owned());
        assert_eq!(foreign(&tokens, &claims).unwrap().roles, expected, "{name}");
    };
    check("https://x.example/roles", &["exact"]);
    check("realm_access.roles", &["path"]);
    check("/realm_access/roles", &["path"]);
    check("/realm_access/roles/0", &["path"]);
    check("/realm_access/a~1b", &["escaped"]);
    check("realm_access.nothing", &[]);
    check("/nothing", &[]);
    check("/", &[]);
}

#[test]
fn user_id_is_a_string_or_an_exact_integer() {
    let tokens = issuer_with(|issuer| issuer.claims.user = "uid".to_owned());
    let result = foreign(&tokens, &foreign_claims());
    assert_eq!(
        result,
        Err(VerifyError::Invalid(
            "the user ID is neither a string nor an integer"
        ))
    );
    for (number, user) in [
        (json!(42), Some("idp:42")),
        (json!(0), Some("idp:0")),
        (json!(-7), Some("idp:-7")),
        (json!((1_u64 << 53) - 1), Some("idp:9007199254740991")),
        (json!(1_u64 << 53), None),
        (json!(u64::MAX), None),
        (json!(1.5), None),
        (json!(1e30), None),
        (json!(true), None),
    ] {
        let claims = with_member(foreign_claims(), "uid", number);
        let result = foreign(&tokens, &claims).ok();
        assert_eq!(
            result.map(|claims| claims.user).as_deref(),
            user,
            "{claims}"
        );
    }
}

#[test]
fn issuer_keys_verify_own_tokens_only() {
    let (ours, a, b) = (
        secret(1),
        private(Algorithm::EdDSA, "k"),
        private(Algorithm::ES256, "k"),
    );
    let mut other = trusted(KeySource::File(vec![b.clone()].into()));
    other.issuer = "https://b.example".to_owned();
    let tokens = tokens(vec![
        trusted(KeySource::File(vec![a.clone()].into())),
        other,
    ]);
    let b_claims = with_member(foreign_claims(), "iss", json!("https://b.example"));
    let check = |key: &Key, claims: &Value, good: bool| {
        assert_eq!(
            verify(&tokens, &sign(key, claims)).is_ok(),
            good,
            "{key:?} {claims}"
        );
    };
    check(&a, &foreign_claims(), true);
    check(&b, &foreign_claims(), false);
    check(&ours, &foreign_claims(), false);
    check(&a, &b_claims, false);
    check(&b, &b_claims, true);
    check(&a, &our_claims(), false);
    check(&b, &our_claims(), false);
    check(&ours, &our_claims(), true);
}

#[test]
fn one_issuer_may_be_trusted_for_two_audiences() {
    let (a, b) = (
        private(Algorithm::EdDSA, "a"),
        private(Algorithm::ES256, "b"),
    );
    let mut second = trusted(KeySource::File(vec![b.clone()].into()));
    second.audience = "desk".to_owned();
    second.user_prefix = "desk:".to_owned();
    let tokens = tokens(vec![
        trusted(KeySource::File(vec![a.clone()].into())),
        second,
    ]);
    let check = |key: &Key, audience: Value, expected: Option<&str>| {
        let token = sign(key, &with_member(foreign_claims(), "aud", audience));
        let user = verify(&tokens, &token)
            .ok()
            .map(|verified| verified.claims.user.clone());
        assert_eq!(user.as_deref(), expected);
    };
    check(&a, json!("shop"), Some("idp:u1"));
    check(&b, json!("desk"), Some("desk:u1"));
    check(&b, json!("shop"), None);
    check(&a, json!("desk"), None);
    check(&b, json!(["shop", "desk"]), Some("desk:u1"));
}

#[test]
fn issuer_algorithms_are_those_configured() {
    let tokens = issuer_with(|issuer| issuer.algorithms = vec![Algorithm::ES256]);
    let result = foreign(&tokens, &foreign_claims());
    let expected = VerifyError::Invalid("the algorithm is not allowed for the issuer");
    assert_eq!(result, Err(expected));
}
