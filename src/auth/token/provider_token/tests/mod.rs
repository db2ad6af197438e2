#![expect(clippy::unwrap_used, reason = "tests")]

mod claims;
mod other_tokens;

use std::time::Duration;

use serde_json::{Value, json};

use super::ProviderTokenFault as Fault;
use super::*;
use crate::auth::token::fixtures::{NOW, private, sign_text, with_member};
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
