#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::ProviderTokenFault as Fault;
use super::*;
use crate::auth::token::fixtures::{NOW, private, sign, sign_text, with_member};
use crate::auth::token::parse_jwks;

const SECONDS: u64 = NOW / 1000;
const ISSUER: &str = "https://id.example";
const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::RS256,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
const TEMPLATE: &str = "https://login.example/{tenantid}/v2.0";
const ACCESS_TOKEN: &str = "access-token";

fn rules() -> ProviderTokenRules<'static> {
    ProviderTokenRules {
        issuer: IssuerRule::Exact(ISSUER),
        client_id: "portcullis",
        extra_audiences: &[],
        algorithms: &ALGORITHMS,
        leeway: Duration::from_secs(5),
    }
}

fn request() -> IdTokenRequest<'static> {
    IdTokenRequest {
        nonce: Some("n-0S6"),
        access_token: Some(ACCESS_TOKEN),
        ..IdTokenRequest::default()
    }
}

fn signer() -> Key {
    private(Algorithm::ES256, "idp")
}

/// Signs claims with the header of an ID token.
fn signed(key: &Key, claims: &Value) -> String {
    signed_as("JWT", key, claims)
}

fn signed_as(typ: &str, key: &Key, claims: &Value) -> String {
    let header = json!({"alg": key.algorithm.as_str(), "kid": key.id, "typ": typ});
    sign_text(key, &header.to_string(), &claims.to_string())
}

fn id_claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "portcullis", "sub": "u1", "nonce": "n-0S6",
        "iat": SECONDS, "exp": SECONDS + 300,
    })
}

/// Verifies an ID token, and compares the fault; `None` if it is valid.
fn check_token(
    token: &str,
    rules: &ProviderTokenRules<'_>,
    request: &IdTokenRequest<'_>,
    fault: Option<Fault>,
) {
    let result = verify_id_token(token, &[signer()], rules, request, NOW);
    assert_eq!(result.err(), fault, "{token}");
}

fn check(claims: &Value, fault: Option<Fault>) {
    check_token(&signed(&signer(), claims), &rules(), &request(), fault);
}

/// Verifies an ID token with one member replaced; null removes it.
fn check_member(name: &str, member: Value, fault: Option<Fault>) {
    check(&with_member(id_claims(), name, member), fault);
}

#[test]
fn claims_of_an_id_token() {
    let claims = json!({
        "iss": ISSUER, "aud": ["portcullis"], "azp": "portcullis", "sub": "u 1", "nonce": "n-0S6",
        "iat": SECONDS, "exp": SECONDS + 300, "nbf": SECONDS, "auth_time": SECONDS - 60,
        "acr": "loa2", "amr": ["pwd", "otp"], "sid": "s/1", "email": "a@example.com",
    });
    let token = signed(&signer(), &claims);
    let verified = verify_id_token(&token, &[signer()], &rules(), &request(), NOW).unwrap();
    let expected = IdToken {
        issuer: ISSUER.to_owned(),
        subject: "u 1".to_owned(),
        issued_at: NOW,
        expires_at: NOW + 300_000,
        auth_time: Some(NOW - 60_000),
        acr: Some("loa2".to_owned()),
        amr: vec!["pwd".to_owned(), "otp".to_owned()],
        sid: Some("s/1".to_owned()),
        claims: claims.as_object().unwrap().clone(),
    };
    assert!(verified == expected);
    assert_eq!(format!("{verified:?}"), "IdToken(…)");
    let plain = signed(&signer(), &id_claims());
    let plain = verify_id_token(&plain, &[signer()], &rules(), &request(), NOW).unwrap();
    assert_eq!((plain.auth_time, plain.acr, plain.sid), (None, None, None));
    assert!(plain.amr.is_empty());
}

#[test]
fn signature_is_of_a_provider_key_and_an_allowed_algorithm() {
    for algorithm in ALGORITHMS {
        let key = private(algorithm, "idp");
        let keys = parse_jwks(key.public_jwks().to_string().as_bytes(), &[algorithm]).unwrap();
        let token = signed(&key, &id_claims());
        let verify = |rules: &ProviderTokenRules<'_>, keys: &[Key]| {
            verify_id_token(&token, keys, rules, &request(), NOW).err()
        };
        assert_eq!(verify(&rules(), &keys.keys), None, "{algorithm}");
        let others: Vec<_> = ALGORITHMS
            .into_iter()
            .filter(|one| *one != algorithm)
            .collect();
        let without = ProviderTokenRules {
            algorithms: &others,
            ..rules()
        };
        assert_eq!(verify(&without, &keys.keys), Some(Fault::Algorithm));
        assert_eq!(verify(&rules(), &[]), Some(Fault::UnknownKey));
        let renamed = [private(algorithm, "other-kid")];
        let foreign = [private(Algorithm::HS256, "idp")];
        // A key of another name is tried where none has the token's `kid`.
        assert_eq!(verify(&rules(), &renamed), None);
        assert_eq!(verify(&rules(), &foreign), Some(Fault::Signature));
    }
}

#[test]
fn forged_tokens_are_rejected() {
    let check = |token: &str, fault: Fault| {
        check_token(token, &rules(), &request(), Some(fault));
    };
    let good = signed(&signer(), &id_claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    // A signature of another message.
    let other = signed(&signer(), &with_member(id_claims(), "sub", json!("u2")));
    let (other_message, _) = other.rsplit_once('.').unwrap();
    check(&format!("{other_message}.{signature}"), Fault::Signature);
    check(&format!("{message}."), "the token is not signed".into());
    check(
        &sign_text(&signer(), r#"{"alg":"none"}"#, &id_claims().to_string()),
        Fault::Algorithm,
    );
    // A secret, even if the settings named its algorithm.
    let secret = private(Algorithm::HS256, "idp");
    let token = signed(&secret, &id_claims());
    let hmac = ProviderTokenRules {
        algorithms: &Algorithm::ALL,
        ..rules()
    };
    let result = verify_id_token(&token, &[secret], &hmac, &request(), NOW);
    assert_eq!(result.err(), Some(Fault::Algorithm));
    // An encrypted token has five parts.
    check("e30.e30.e30.e30.e30", Fault::Encrypted);
    check(
        "e30.e30.e30.e30",
        "the token does not have three parts".into(),
    );
    check(&"a".repeat(MAX_TOKEN + 1), Fault::TooLong);
    check(
        &"a".repeat(MAX_TOKEN),
        "the token does not have three parts".into(),
    );
}

#[test]
fn form_is_strict() {
    let check = |header: &str, claims: &str, reason: &'static str| {
        let token = sign_text(&signer(), header, claims);
        check_token(&token, &rules(), &request(), Some(reason.into()));
    };
    let claims = id_claims().to_string();
    let duplicate = claims.replacen('{', r#"{"sub":"u2","#, 1);
    check(r#"{"alg":"ES256"}"#, &duplicate, "a member is given twice");
    check(
        r#"{"alg":"ES256","alg":"ES256"}"#,
        &claims,
        "a member is given twice",
    );
    check(r#"{"alg":"ES256"}"#, "[]", "not a JSON object");
    for header in [
        r#"{"alg":"ES256","crit":["exp"]}"#,
        r#"{"alg":"ES256","b64":true}"#,
    ] {
        check(header, &claims, "the header requires an extension");
    }
    let padded = signed(&signer(), &id_claims()).replacen('.', "=.", 1);
    let strict = Some("a part is not valid base64url".into());
    check_token(&padded, &rules(), &request(), strict);
}

#[test]
fn type_is_jwt_or_absent() {
    let wrong = Some(Fault::Type);
    let check = |typ: &str, fault| {
        check_token(
            &signed_as(typ, &signer(), &id_claims()),
            &rules(),
            &request(),
            fault,
        );
    };
    check("JWT", None);
    check("application/jwt", None);
    for typ in ["at+jwt", "logout+jwt", "secevent+jwt", "id+jwt", "", "JWE"] {
        check(typ, wrong);
    }
    let untyped = sign_text(&signer(), r#"{"alg":"ES256"}"#, &id_claims().to_string());
    check_token(&untyped, &rules(), &request(), None);
}

#[test]
fn issuer_matches_exactly() {
    for other in [
        "https://id.example/",
        "https://ID.example",
        "http://id.example",
        "",
    ] {
        check_member("iss", json!(other), Some(Fault::Issuer));
    }
    let wrong = Some("`iss` is not a string".into());
    check_member("iss", Value::Null, wrong);
    check_member("iss", json!([ISSUER]), wrong);
    // Without tenants, `tid` is a claim like any other.
    check_member("tid", json!("t1"), None);
}

#[test]
fn issuer_is_of_an_allowed_tenant() {
    let tenants = ["t1".to_owned(), "t2".to_owned()];
    let rules = ProviderTokenRules {
        issuer: IssuerRule::Tenants {
            template: TEMPLATE,
            tenants: &tenants,
        },
        ..rules()
    };
    let check = |issuer: &str, tid: Value, fault: Option<Fault>| {
        let claims = with_member(id_claims(), "iss", json!(issuer));
        let claims = with_member(claims, "tid", tid);
        check_token(&signed(&signer(), &claims), &rules, &request(), fault);
    };
    let (first, second) = (
        "https://login.example/t1/v2.0",
        "https://login.example/t2/v2.0",
    );
    check(first, json!("t1"), None);
    check(second, json!("t2"), None);
    check(first, json!("t2"), Some(Fault::Tenant));
    check(first, json!("t3"), Some(Fault::Tenant));
    check(first, json!(["t1"]), Some(Fault::Tenant));
    check(first, Value::Null, Some(Fault::Tenant));
    check(
        "https://login.example/t3/v2.0",
        json!("t3"),
        Some(Fault::Issuer),
    );
    check(TEMPLATE, json!("t1"), Some(Fault::Issuer));
    check(TEMPLATE, json!("{tenantid}"), Some(Fault::Issuer));
    check(ISSUER, json!("t1"), Some(Fault::Issuer));
}

#[test]
fn audience_is_the_client_and_otherwise_allowed() {
    check_member("aud", json!(["portcullis"]), None);
    check_member("aud", json!(["portcullis", "portcullis"]), None);
    check_member("aud", json!("other"), Some(Fault::Audience));
    check_member("aud", json!("Portcullis"), Some(Fault::Audience));
    check_member("aud", json!([]), Some(Fault::Audience));
    check_member(
        "aud",
        json!(["portcullis", "other"]),
        Some(Fault::ExtraAudience),
    );
    let wrong = Some("`aud` is neither a string nor a list of strings".into());
    check_member("aud", Value::Null, wrong);
    check_member("aud", json!(["portcullis", 7]), wrong);
    let extra = ["api".to_owned()];
    let rules = ProviderTokenRules {
        extra_audiences: &extra,
        ..rules()
    };
    let check = |aud: Value, fault| {
        let token = signed(&signer(), &with_member(id_claims(), "aud", aud));
        check_token(&token, &rules, &request(), fault);
    };
    check(json!(["api", "portcullis"]), None);
    check(json!(["api"]), Some(Fault::Audience));
    check(
        json!(["api", "portcullis", "other"]),
        Some(Fault::ExtraAudience),
    );
}

#[test]
fn authorized_party_is_the_client() {
    check_member("azp", json!("portcullis"), None);
    check_member("azp", json!("other"), Some(Fault::AuthorizedParty));
    check_member("azp", json!(""), Some(Fault::AuthorizedParty));
    let wrong = Some("a member that must be a string is not one".into());
    check_member("azp", json!(["portcullis"]), wrong);
}

#[test]
fn times_are_present_and_checked_with_leeway() {
    check_member("exp", json!(SECONDS + 1), None);
    check_member("exp", json!(SECONDS - 4), None);
    check_member("exp", json!(SECONDS - 5), Some(Fault::Expired));
    check_member("exp", Value::Null, Some(Fault::ExpiryMissing));
    check_member("iat", Value::Null, Some(Fault::IssuedAtMissing));
    check_member("iat", json!(SECONDS - 86_400), None);
    for name in ["iat", "nbf", "auth_time"] {
        check_member(name, json!(SECONDS + 5), None);
        check_member(name, json!(SECONDS + 6), Some(Fault::Future));
    }
    let wrong = Some("a date is not a number of seconds before the year 10000".into());
    for name in ["exp", "iat", "nbf", "auth_time"] {
        check_member(name, json!(SECONDS.to_string()), wrong);
        check_member(name, json!(-1), wrong);
    }
}

#[test]
fn subject_has_at_most_255_ascii_characters() {
    check_member("sub", json!("s".repeat(255)), None);
    check_member("sub", json!("auth0|7 x"), None);
    for bad in ["", "s\n", "ü", "s\u{7f}"] {
        check_member("sub", json!(bad), Some(Fault::Subject));
    }
    check_member("sub", json!("s".repeat(256)), Some(Fault::Subject));
    check_member("sub", Value::Null, Some(Fault::SubjectMissing));
    let wrong = Some("a member that must be a string is not one".into());
    check_member("sub", json!(7), wrong);
}

#[test]
fn nonce_is_that_of_the_flow() {
    for other in ["n-0S7", "N-0S6", "", "n-0S6 "] {
        check_member("nonce", json!(other), Some(Fault::Nonce));
    }
    check_member("nonce", Value::Null, Some(Fault::Nonce));
    // The ID token of a refresh may have none.
    let refresh = IdTokenRequest {
        nonce: None,
        ..request()
    };
    for nonce in [Value::Null, json!("n-0S6")] {
        let token = signed(&signer(), &with_member(id_claims(), "nonce", nonce));
        check_token(&token, &rules(), &refresh, None);
    }
}

#[test]
fn access_token_hash_is_by_the_hash_of_the_algorithm() {
    let half = |hash: &[u8]| URL_SAFE_NO_PAD.encode(hash.split_at(hash.len() / 2).0);
    let hashes = [
        half(&Sha256::digest(ACCESS_TOKEN)),
        half(&Sha384::digest(ACCESS_TOKEN)),
        half(&Sha512::digest(ACCESS_TOKEN)),
    ];
    for (algorithm, right) in ALGORITHMS.into_iter().zip([0, 0, 0, 1, 2]) {
        let key = private(algorithm, "idp");
        for (index, hash) in hashes.iter().enumerate() {
            let token = signed(&key, &with_member(id_claims(), "at_hash", json!(hash)));
            let keys = [key.clone()];
            let result = verify_id_token(&token, &keys, &rules(), &request(), NOW);
            let fault = (index != right).then_some(Fault::AccessTokenHash);
            assert_eq!(result.err(), fault, "{algorithm} {index}");
        }
    }
    let [hash, ..] = &hashes;
    check_member("at_hash", json!(""), Some(Fault::AccessTokenHash));
    let token = signed(&signer(), &with_member(id_claims(), "at_hash", json!(hash)));
    for access_token in [None, Some("other")] {
        let request = IdTokenRequest {
            access_token,
            ..request()
        };
        check_token(&token, &rules(), &request, Some(Fault::AccessTokenHash));
    }
}

#[test]
fn authentication_is_recent_enough() {
    let request = IdTokenRequest {
        max_age: Some(Duration::from_secs(60)),
        ..request()
    };
    let check = |auth_time: Value, fault| {
        let token = signed(&signer(), &with_member(id_claims(), "auth_time", auth_time));
        check_token(&token, &rules(), &request, fault);
    };
    check(json!(SECONDS), None);
    check(json!(SECONDS - 65), None);
    check(json!(SECONDS - 66), Some(Fault::AuthTimeTooOld));
    check(Value::Null, Some(Fault::AuthTimeMissing));
    check_member("auth_time", json!(1), None);
}

#[test]
fn acr_is_one_of_those_requested() {
    let acr = ["loa2".to_owned(), "loa3".to_owned()];
    let request = IdTokenRequest {
        acr: &acr,
        ..request()
    };
    let check = |acr: Value, fault| {
        let token = signed(&signer(), &with_member(id_claims(), "acr", acr));
        check_token(&token, &rules(), &request, fault);
    };
    check(json!("loa3"), None);
    check(json!("loa1"), Some(Fault::Acr));
    check(json!("LOA2"), Some(Fault::Acr));
    check(Value::Null, Some(Fault::Acr));
    check_member("acr", json!("loa1"), None);
}

#[test]
fn what_a_session_keeps_is_bounded() {
    let long = "`acr` or `amr` has a value of more than 255 bytes";
    let list = "`amr` is not a list of at most 16 strings";
    check_member("acr", json!("a".repeat(255)), None);
    check_member("acr", json!("a".repeat(256)), Some(long.into()));
    check_member("acr", json!("a\n"), Some(long.into()));
    check_member("amr", json!(vec!["pwd"; 16]), None);
    check_member("amr", json!(vec!["pwd"; 17]), Some(list.into()));
    check_member("amr", json!(["a".repeat(256)]), Some(long.into()));
    check_member("amr", json!("pwd"), Some(list.into()));
    check_member("amr", json!([7]), Some(list.into()));
    check_member("sid", json!("s".repeat(1024)), None);
    for bad in ["", "s\n", &"s".repeat(1025)] {
        check_member("sid", json!(bad), Some(Fault::Sid));
    }
}

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
