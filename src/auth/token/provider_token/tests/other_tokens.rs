//! Logout tokens and authorization responses.

use super::*;
use crate::auth::token::fixtures::sign;

fn logout_claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "portcullis", "iat": SECONDS, "exp": SECONDS + 120, "jti": "j1",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        "sub": "u1", "sid": "s1",
    })
}

/// Verifies a logout token with one member replaced; null removes it.
fn check_logout(name: &str, member: Value, fault: Option<Fault>) {
    let claims = with_member(logout_claims(), name, member);
    let token = signed_as("logout+jwt", &signer(), &claims);
    let result = verify_logout_token(&token, &[signer()], &rules(), NOW);
    assert_eq!(result.err(), fault, "{claims}");
}

#[test]
fn logout_token_names_a_session_or_a_user() {
    let check = |sub: Value, sid: Value, target: Result<LogoutTarget, Fault>| {
        let claims = with_member(with_member(logout_claims(), "sub", sub), "sid", sid);
        let token = signed_as("logout+jwt", &signer(), &claims);
        let result = verify_logout_token(&token, &[signer()], &rules(), NOW);
        let expected = target.map(|target| LogoutToken {
            issuer: ISSUER.to_owned(),
            token_id: "j1".to_owned(),
            issued_at: NOW,
            expires_at: NOW + 120_000,
            target,
        });
        assert_eq!(result, expected);
    };
    let session = |subject: Option<&str>| LogoutTarget::Session {
        sid: "s1".to_owned(),
        subject: subject.map(str::to_owned),
    };
    check(json!("u1"), json!("s1"), Ok(session(Some("u1"))));
    check(Value::Null, json!("s1"), Ok(session(None)));
    check(
        json!("u1"),
        Value::Null,
        Ok(LogoutTarget::Subject("u1".to_owned())),
    );
    check(Value::Null, Value::Null, Err(Fault::NoSubjectOrSession));
    check(json!(""), json!("s1"), Err(Fault::Subject));
    check(json!("u1"), json!(""), Err(Fault::Sid));
}

#[test]
fn logout_token_is_checked_like_an_id_token() {
    check_logout("iss", json!("https://other.example"), Some(Fault::Issuer));
    check_logout("aud", json!("other"), Some(Fault::Audience));
    check_logout(
        "aud",
        json!(["portcullis", "other"]),
        Some(Fault::ExtraAudience),
    );
    check_logout("exp", Value::Null, Some(Fault::ExpiryMissing));
    check_logout("exp", json!(SECONDS - 5), Some(Fault::Expired));
    check_logout("iat", Value::Null, Some(Fault::IssuedAtMissing));
    check_logout("iat", json!(SECONDS + 6), Some(Fault::Future));
    check_logout("jti", Value::Null, Some(Fault::TokenIdMissing));
    let long = "`jti` does not have 1 to 255 characters".into();
    check_logout("jti", json!(""), Some(long));
    check_logout("nonce", json!("n"), Some(Fault::NonceInLogoutToken));
    check_logout("nonce", json!(7), Some(Fault::NonceInLogoutToken));
    let token = signed_as("logout+jwt", &signer(), &logout_claims());
    let verify = |keys: &[Key], rules: &ProviderTokenRules<'_>| {
        verify_logout_token(&token, keys, rules, NOW).err()
    };
    assert_eq!(verify(&[], &rules()), Some(Fault::UnknownKey));
    let narrow = ProviderTokenRules {
        algorithms: &[Algorithm::RS256],
        ..rules()
    };
    assert_eq!(verify(&[signer()], &narrow), Some(Fault::Algorithm));
}

#[test]
fn logout_token_has_the_one_event() {
    let name = "http://schemas.openid.net/event/backchannel-logout";
    check_logout("events", json!({ name: {} }), None);
    check_logout("events", json!({ name: {"x": 1} }), None);
    for bad in [
        Value::Null,
        json!({}),
        json!([name]),
        json!(name),
        json!({ name: null }),
        json!({ name: true }),
        json!({ name: {}, "other": {} }),
        json!({ "http://schemas.openid.net/event/backchannel-logout/": {} }),
    ] {
        check_logout("events", bad, Some(Fault::Events));
    }
}

#[test]
fn logout_token_has_its_type() {
    let check = |typ: &str, fault: Option<Fault>| {
        let token = signed_as(typ, &signer(), &logout_claims());
        let result = verify_logout_token(&token, &[signer()], &rules(), NOW);
        assert_eq!(result.err(), fault, "{typ}");
    };
    check("logout+jwt", None);
    check("application/logout+jwt", None);
    check("JWT", None);
    for typ in ["at+jwt", "secevent+jwt", "", "logout"] {
        check(typ, Some(Fault::Type));
    }
    // An ID token has no `events`, and a logout token no `nonce` and none of its type.
    let id_token = signed(&signer(), &id_claims());
    let result = verify_logout_token(&id_token, &[signer()], &rules(), NOW);
    assert_eq!(result.err(), Some(Fault::TokenIdMissing));
    let logout_token = signed(&signer(), &logout_claims());
    check_token(&logout_token, &rules(), &request(), Some(Fault::Nonce));
}

#[test]
fn logout_token_of_a_tenant() {
    let tenants = ["t1".to_owned()];
    let rules = ProviderTokenRules {
        issuer: IssuerRule::Tenants {
            template: TEMPLATE,
            tenants: &tenants,
        },
        ..rules()
    };
    let check = |issuer: &str, tid: Value, fault: Option<Fault>| {
        let claims = with_member(logout_claims(), "iss", json!(issuer));
        let token = signed(&signer(), &with_member(claims, "tid", tid));
        let result = verify_logout_token(&token, &[signer()], &rules, NOW);
        assert_eq!(result.err(), fault, "{issuer}");
    };
    check("https://login.example/t1/v2.0", Value::Null, None);
    check("https://login.example/t1/v2.0", json!("t1"), None);
    check(
        "https://login.example/t1/v2.0",
        json!("t2"),
        Some(Fault::Tenant),
    );
    check(
        "https://login.example/t2/v2.0",
        Value::Null,
        Some(Fault::Issuer),
    );
}

#[test]
fn authorization_response_is_verified() {
    let claims = json!({
        "iss": ISSUER, "aud": "portcullis", "exp": SECONDS + 60, "state": "s", "code": "c",
    });
    let verify = |claims: &Value| {
        let token = signed(&signer(), claims);
        verify_authorization_response(&token, &[signer()], &rules(), NOW)
    };
    let verified = verify(&claims).unwrap();
    assert_eq!(format!("{verified:?}"), "AuthorizationResponse(…)");
    let expected = AuthorizationResponse {
        state: Some("s".to_owned()),
        code: Some("c".to_owned()),
        error: None,
    };
    assert!(verified == expected);
    let check = |name: &str, member: Value, fault: Fault| {
        let result = verify(&with_member(claims.clone(), name, member));
        assert_eq!(result.err(), Some(fault), "{name}");
    };
    check("iss", json!("https://other.example"), Fault::Issuer);
    check("aud", json!("other"), Fault::Audience);
    check("aud", json!(["portcullis", "other"]), Fault::ExtraAudience);
    check("exp", Value::Null, Fault::ExpiryMissing);
    check("exp", json!(SECONDS - 5), Fault::Expired);
    check("iat", json!(SECONDS + 6), Fault::Future);
    let wrong = || "a member that must be a string is not one".into();
    for name in ["state", "code", "error"] {
        check(name, json!(7), wrong());
    }
    let denied = json!({
        "iss": ISSUER, "aud": "portcullis", "exp": SECONDS + 60, "state": "s",
        "error": "access_denied",
    });
    assert!(verify(&denied).unwrap().error.as_deref() == Some("access_denied"));
    let typed = signed_as("logout+jwt", &signer(), &claims);
    let result = verify_authorization_response(&typed, &[signer()], &rules(), NOW);
    assert_eq!(result.err(), Some(Fault::Type));
    let foreign = sign(&private(Algorithm::EdDSA, "idp"), &claims);
    let result = verify_authorization_response(&foreign, &[signer()], &rules(), NOW);
    assert!(result.is_err());
}
