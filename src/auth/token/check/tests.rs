#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use super::{VerifiedToken, VerifyError};
use crate::auth::session::SessionId;
use crate::auth::token::fixtures::{
    NOW, SID, our_claims, private, secret, sign, tokens, with_member,
};
use crate::auth::token::{Algorithm, Claims, Key, TokenSource, Tokens};

const SECONDS: u64 = NOW / 1000;

pub(super) fn verify(tokens: &Tokens, token: &str) -> Result<VerifiedToken, VerifyError> {
    tokens.verify(token, NOW, |_| Arc::default())
}

/// Checks claims signed by the gateway's key; `None` if they are valid.
fn check_ours(claims: &Value, error: Option<&'static str>) {
    let result = verify(&tokens(vec![]), &sign(&secret(1), claims));
    assert_eq!(result.err(), error.map(VerifyError::Invalid), "{claims}");
}

fn check_member(name: &str, member: Value, error: Option<&'static str>) {
    check_ours(&with_member(our_claims(), name, member), error);
}

#[test]
fn minted_token_is_valid() {
    let tokens = tokens(vec![]);
    let claims_to_sign = crate::auth::token::AccessTokenClaims {
        user: "u1",
        session: SessionId::parse(SID).unwrap(),
        token_id: "t1",
        email: Some("a@example.com"),
    };
    let token = tokens.mint(&claims_to_sign, NOW + 999).unwrap();
    let claims = verify(&tokens, &token).unwrap().claims;
    let expected = Claims {
        source: TokenSource::Own,
        issuer: "portcullis".to_owned(),
        user: "u1".to_owned(),
        session: SessionId::parse(SID),
        blacklist_key: "t1".to_owned(),
        issued_at: Some(NOW),
        expires_at: NOW + 900_000,
        email: Some("a@example.com".to_owned()),
        roles: vec![],
        scopes: vec![],
        certificate: None,
    };
    assert_eq!(*claims, expected);
    let header = crate::auth::token::inspect(&tokens, &token, NOW)
        .header
        .unwrap();
    assert_eq!(header["typ"], "at+jwt");
    let mut verify_only = tokens;
    verify_only.signing = None;
    assert_eq!(
        verify_only.mint(&claims_to_sign, NOW),
        Err(crate::auth::token::SignError::NoSigningKey)
    );
}

#[test]
fn every_algorithm_mints_and_publishes_its_key() {
    for algorithm in Algorithm::ALL {
        let mut tokens = tokens(vec![]);
        tokens.signing = Some(private(algorithm, "now"));
        tokens.verifying = vec![private(algorithm, "now"), private(algorithm, "before")];
        let claims_to_sign = crate::auth::token::AccessTokenClaims {
            user: "u1",
            session: SessionId::parse(SID).unwrap(),
            token_id: "t1",
            email: None,
        };
        let token = tokens.mint(&claims_to_sign, NOW).unwrap();
        assert!(verify(&tokens, &token).is_ok(), "{algorithm}");
        let jwks = tokens.jwks();
        let published = jwks["keys"].as_array().unwrap();
        let expected = if algorithm == Algorithm::HS256 { 0 } else { 2 };
        assert_eq!(published.len(), expected, "{algorithm}");
        tokens.verifying = vec![];
        let forged = Err(VerifyError::Invalid(
            "no key of the issuer made the signature",
        ));
        assert_eq!(verify(&tokens, &token), forged);
    }
}

#[test]
fn dates_are_numeric_and_enforced() {
    let future = Some("`nbf` or `iat` is in the future");
    let wrong = Some("a date is not a number of seconds before the year 10000");
    check_member("exp", json!(SECONDS + 1), None);
    check_member("exp", json!(SECONDS as f64 + 0.5), None);
    check_member("exp", json!(253_402_300_799_u64), None);
    check_member("exp", Value::Null, Some("`exp` is missing"));
    for name in ["exp", "nbf", "iat"] {
        let text = json!((SECONDS - 1).to_string());
        for bad in [
            text,
            json!([SECONDS]),
            json!(true),
            json!({}),
            json!(1e300),
            json!(-1),
            json!(253_402_300_800_u64),
        ] {
            check_member(name, bad, wrong);
        }
    }
    for name in ["nbf", "iat"] {
        check_member(name, json!(SECONDS), None);
        check_member(name, json!(SECONDS + 5), None);
        check_member(name, json!(SECONDS + 6), future);
        check_member(name, json!(SECONDS + 3600), future);
        check_member(name, Value::Null, None);
    }
}

#[test]
fn null_date_is_rejected() {
    let wrong = "a date is not a number of seconds before the year 10000";
    for name in ["exp", "nbf", "iat"] {
        let mut claims = our_claims();
        claims[name] = Value::Null;
        check_ours(&claims, Some(wrong));
    }
}

#[test]
fn expiry_is_reported_only_for_valid_tokens() {
    let tokens = tokens(vec![]);
    let at = |exp: u64, key: &Key, name: &str, member: Value| {
        let claims = with_member(with_member(our_claims(), "exp", json!(exp)), name, member);
        verify(&tokens, &sign(key, &claims))
    };
    let good = json!("t1");
    assert!(at(SECONDS - 4, &secret(1), "jti", good.clone()).is_ok());
    let expired = at(SECONDS - 5, &secret(1), "jti", good.clone());
    assert!(matches!(expired, Err(VerifyError::Expired(claims)) if claims.user == "u1"));
    let forged = at(SECONDS - 5, &secret(9), "jti", good);
    assert!(matches!(forged, Err(VerifyError::Invalid(_))));
    let other = at(SECONDS - 5, &secret(1), "aud", json!("other"));
    assert!(matches!(other, Err(VerifyError::Invalid(_))));
    let no_user = at(SECONDS - 5, &secret(1), "sub", Value::Null);
    assert!(matches!(no_user, Err(VerifyError::Invalid(_))));
}

#[test]
fn issuer_and_audience_are_exact() {
    let unknown = Some("the issuer is not known");
    let wrong = Some("`iss` is not a string");
    check_member("iss", Value::Null, wrong);
    check_member("iss", json!(["portcullis"]), wrong);
    check_member("iss", json!({"portcullis": 1}), wrong);
    for other in [
        "portcullis/",
        "Portcullis",
        " portcullis",
        "",
        "https://idp.example",
    ] {
        check_member("iss", json!(other), unknown);
    }
    let other = Some("the token is for another audience");
    let wrong = Some("`aud` is neither a string nor a list of strings");
    check_member("aud", json!(["a", "portcullis"]), None);
    for bad in [
        json!("other"),
        json!("portcullis/"),
        json!([]),
        json!(["a"]),
        json!(""),
    ] {
        check_member("aud", bad, other);
    }
    for bad in [
        Value::Null,
        json!(7),
        json!({}),
        json!(["portcullis", 7]),
        json!([["portcullis"]]),
    ] {
        check_member("aud", bad, wrong);
    }
}

#[test]
fn user_id_has_visible_characters_only() {
    let text = Some("the user ID is not a string");
    let shape = Some("the user ID does not consist of 1 to 255 visible characters");
    for good in [
        "u",
        "a@example.com",
        "auth0|7",
        "Zoë",
        "用户",
        &"é".repeat(255),
    ] {
        check_member("sub", json!(good), None);
    }
    for bad in [Value::Null, json!(7), json!(["u"]), json!({})] {
        check_member("sub", bad, text);
    }
    let long = "x".repeat(256);
    for bad in [
        "",
        " ",
        "a b",
        "a\r\nb",
        "a\0",
        "a\u{a0}b",
        "a\u{200b}",
        "\u{202e}nimda",
        &long,
    ] {
        check_member("sub", json!(bad), shape);
    }
}

#[test]
fn own_tokens_have_a_session_and_no_roles() {
    let wrong = Some("`sid` is not a session ID");
    for bad in [
        Value::Null,
        json!(7),
        json!("abc"),
        json!(SID.to_uppercase()),
        json!([SID]),
    ] {
        check_member("sid", bad, wrong);
    }
    let claims = with_member(
        with_member(our_claims(), "roles", json!(["admin"])),
        "scope",
        json!("all"),
    );
    let verified = verify(&tokens(vec![]), &sign(&secret(1), &claims)).unwrap();
    assert!(verified.claims.roles.is_empty() && verified.claims.scopes.is_empty());
}

#[test]
fn blacklist_key_is_token_id_or_message_hash() {
    let wrong = Some("`jti` does not have 1 to 255 characters");
    let long = "x".repeat(256);
    for bad in [json!(""), json!(7), json!("a\n"), json!([]), json!(long)] {
        check_member("jti", bad, wrong);
    }
    let mut tokens = tokens(vec![]);
    tokens.verifying = vec![private(Algorithm::ES256, "a")];
    let token = sign(
        &private(Algorithm::ES256, "a"),
        &with_member(our_claims(), "jti", Value::Null),
    );
    let (message, _) = token.rsplit_once('.').unwrap();
    let twin = sign(
        &private(Algorithm::ES256, "a"),
        &with_member(our_claims(), "jti", Value::Null),
    );
    assert_ne!(token, twin, "ECDSA signs with a nonce");
    use sha2::Digest;
    let expected = hex::encode(sha2::Sha256::digest(message));
    for token in [token, twin] {
        assert_eq!(
            verify(&tokens, &token).unwrap().claims.blacklist_key,
            expected
        );
    }
}

#[test]
fn inspection_reports_the_rejection_reason() {
    let tokens = tokens(vec![]);
    let check = |token: &str, readable: bool, reason: Option<&str>| {
        let inspection = crate::auth::token::inspect(&tokens, token, NOW);
        assert_eq!(inspection.claims.is_some(), readable, "{token}");
        assert_eq!(inspection.rejection_reason.as_deref(), reason, "{token}");
    };
    let good = sign(&secret(1), &our_claims());
    check(&good, true, None);
    check(
        &sign(&secret(9), &our_claims()),
        true,
        Some("no key of the issuer made the signature"),
    );
    let old = sign(
        &secret(1),
        &with_member(our_claims(), "exp", json!(SECONDS - 60)),
    );
    check(&old, true, Some("expired at 2027-01-15T07:59:00Z"));
    check(
        "nonsense",
        false,
        Some("the token does not have three parts"),
    );
}
