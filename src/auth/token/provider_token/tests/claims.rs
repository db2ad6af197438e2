//! Claims of ID tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::*;

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
