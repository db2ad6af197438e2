#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::Value;

use super::{Jws, SignatureStatus, TokenUse};
use crate::auth::token::fixtures::{private, secret, sign_text};
use crate::auth::token::jwk::parse_jwk;
use crate::auth::token::{Algorithm, Key, parse_jwks};

fn parse(token: &str) -> Result<Jws<'_>, &'static str> {
    Jws::parse(token, TokenUse::Access)
}

/// Reads a Wycheproof file from the directory in `PORTCULLIS_VECTORS`; `None` if that is not set.
fn vectors(file: &str) -> Option<Vec<Value>> {
    let Ok(folder) = std::env::var("PORTCULLIS_VECTORS") else {
        eprintln!("skipped: PORTCULLIS_VECTORS is not set");
        return None;
    };
    let path = format!("{folder}/wycheproof/{file}");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    file["testGroups"].as_array().cloned()
}

/// Whether a token is accepted with a key.
fn accepts(key: &Value, jws: &str) -> bool {
    let set = match key.get("keys") {
        Some(_) => key.clone(),
        None => serde_json::json!({ "keys": [key] }),
    };
    let keys = parse_jwks(set.to_string().as_bytes(), &Algorithm::ALL).unwrap_or_default();
    parse(jws).is_ok_and(|jws| jws.verify(&keys.keys) == SignatureStatus::Valid)
}

/// Runs a file, and returns the IDs of tests with another result than labelled, and their number.
fn differences(file: &str) -> Option<(Vec<u64>, usize)> {
    let mut differing = Vec::new();
    let mut count = 0;
    for group in vectors(file)? {
        let key = group.get("public").unwrap_or(&group["private"]);
        for test in group["tests"].as_array().unwrap() {
            let jws = test["jws"].as_str().unwrap();
            count += 1;
            if accepts(key, jws) != (test["result"] == "valid") {
                differing.push(test["tcId"].as_u64().unwrap());
            }
        }
    }
    Some((differing, count))
}

#[test]
fn wycheproof_signatures() {
    let Some((differing, count)) = differences("json_web_signature_test.json") else {
        return;
    };
    assert_eq!(count, 401);
    // Valid, but of unsupported algorithms: RS384, RS512, PS384, PS512, ES512.
    let unsupported = (264..=271).chain(320..=323);
    let unsupported = unsupported.chain(325..=328).chain([347, 351]);
    // Labelled valid, but the algorithm of the token (PS384) is not that of the key (PS256).
    let other_algorithm = [346, 350];
    // Labelled invalid, but identical to the valid 357; labelled valid, but with a `?`.
    let mislabelled = [367, 370, 372, 373];
    let mut expected: Vec<u64> = unsupported
        .chain(other_algorithm)
        .chain(mislabelled)
        .collect();
    expected.sort_unstable();
    assert_eq!(differing, expected);
}

#[test]
fn wycheproof_keys() {
    let Some((differing, count)) = differences("json_web_key_test.json") else {
        return;
    };
    assert_eq!(count, 26);
    // 1: a set may mix secrets and public keys, because each key has its own algorithm. 4: two keys
    // with the same ID are both tried. 7: keys with the ROCA flaw are not detected. 14, 15: HS384
    // and HS512 are not supported.
    assert_eq!(differing, [1, 4, 7, 14, 15]);
}

/// Parses a token with this header and compares the error.
fn check(header: &str, error: Option<&str>) {
    let token = sign_text(&secret(1), header, "{}");
    assert_eq!(parse(&token).err(), error, "{header}");
}

#[test]
fn type_is_access_token_or_absent() {
    let kind = Some("the token is not an access token");
    check(r#"{"alg":"HS256"}"#, None);
    for typ in [
        "JWT",
        "jwt",
        "at+jwt",
        "AT+JWT",
        "application/at+jwt",
        "Application/JWT",
    ] {
        check(&format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#), None);
    }
    for typ in [
        "",
        "logout+jwt",
        "secevent+jwt",
        "id+jwt",
        "dpop+jwt",
        "JWE",
        "at+jwt ",
        "x/at+jwt",
    ] {
        check(&format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#), kind);
    }
    check(
        r#"{"alg":"HS256","typ":null}"#,
        Some("`typ` is not a string"),
    );
    check(
        r#"{"alg":"HS256","typ":["JWT"]}"#,
        Some("`typ` is not a string"),
    );
}

#[test]
fn header_is_parsed_strictly() {
    let extension = Some("the header requires an extension");
    let algorithm = Some("the algorithm is not supported");
    let id = Some("`kid` is not a string of at most 256 bytes");
    check(r#"{"alg":"HS256","crit":["exp"]}"#, extension);
    check(r#"{"alg":"HS256","crit":[]}"#, extension);
    check(r#"{"alg":"HS256","crit":null}"#, extension);
    check(r#"{"alg":"HS256","b64":false}"#, extension);
    for alg in [
        r#""none""#,
        r#""hs256""#,
        r#""HS512""#,
        r#""""#,
        "null",
        "7",
        r#"["HS256"]"#,
    ] {
        check(&format!(r#"{{"alg":{alg}}}"#), algorithm);
    }
    check("{}", algorithm);
    check(
        r#"{"alg":"none","alg":"HS256"}"#,
        Some("a member is given twice"),
    );
    check(r#"{"alg":"HS256","kid":7}"#, id);
    check(r#"{"alg":"HS256","kid":null}"#, id);
    check(
        &format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(256)),
        None,
    );
    check(
        &format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(257)),
        id,
    );
    check("[]", Some("not a JSON object"));
    let long = format!("{{\"alg\":\"HS256\"{}}}", " ".repeat(100_000));
    check(&long, None);
}

#[test]
fn token_has_three_strict_base64url_parts() {
    let good = sign_text(&secret(1), r#"{"alg":"HS256"}"#, "{}");
    let check = |token: &str, error: Option<&str>| {
        assert_eq!(parse(token).err(), error, "{token}");
    };
    check(&good, None);
    let parts = Some("the token does not have three parts");
    let strict = Some("a part is not valid base64url");
    check("", parts);
    check("a.b", parts);
    check(&format!("{good}."), parts);
    check(&format!("{good}.e30"), parts);
    check(&format!(".{good}"), parts);
    check("..", Some("not JSON"));
    check(good.rsplit_once('.').unwrap().0, parts);
    check(
        &format!("{}.", good.rsplit_once('.').unwrap().0),
        Some("the token is not signed"),
    );
    check(&format!("{good}="), strict);
    check(&format!(" {good}"), strict);
    check(&format!("{good}\n"), strict);
    check(&good.replacen("e30", "e30=", 1), strict);
    check(&good.replacen("e30", "e3+", 1), strict);
    // 43 characters encode 258 bits, of which the last two must be zero.
    let (message, signature) = good.rsplit_once('.').unwrap();
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet
        .iter()
        .position(|c| signature.ends_with(char::from(*c)))
        .unwrap();
    let variant = char::from(*alphabet.get(last + 1).unwrap());
    check(
        &format!("{message}.{}{variant}", signature.get(..42).unwrap()),
        strict,
    );
}

#[test]
fn key_is_selected_by_id_and_keeps_its_algorithm() {
    let check = |header: &str, keys: &[Key], expected: SignatureStatus| {
        let token = sign_text(&secret(7), header, "{}");
        assert_eq!(
            parse(&token).unwrap().verify(keys),
            expected,
            "{header} {}",
            keys.len()
        );
    };
    let named = |id: &str| private(Algorithm::HS256, id);
    let (plain, a_named) = (r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","kid":"a"}"#);
    check(plain, &[secret(7)], SignatureStatus::Valid);
    check(plain, &[secret(1), secret(7)], SignatureStatus::Valid);
    // A token without a `kid` may also be signed by a newer key.
    check(plain, &[secret(1)], SignatureStatus::UnknownKey);
    check(plain, &[], SignatureStatus::UnknownKey);
    check(a_named, &[named("a")], SignatureStatus::Valid);
    check(a_named, &[secret(7)], SignatureStatus::Valid);
    check(a_named, &[named("b")], SignatureStatus::Valid);
    check(a_named, &[secret(1)], SignatureStatus::UnknownKey);
    // Only the key with the ID is tried.
    let other = Key::hmac(Some("a".to_owned()), &[9; 32]).unwrap();
    check(a_named, &[other, named("b")], SignatureStatus::Invalid);
    // A public key is never used as a secret, and only keys of the algorithm are tried.
    check(
        a_named,
        &[private(Algorithm::RS256, "a")],
        SignatureStatus::Invalid,
    );
    check(
        r#"{"alg":"RS256","kid":"a"}"#,
        &[named("a")],
        SignatureStatus::Invalid,
    );
    let mut many = vec![secret(1); 15];
    many.push(secret(7));
    check(plain, &many, SignatureStatus::Valid);
    many.insert(0, secret(1));
    check(plain, &many, SignatureStatus::UnknownKey);
}

#[test]
fn ed25519_is_accepted_as_eddsa() {
    let key = private(Algorithm::EdDSA, "a");
    for (alg, accepted) in [
        ("EdDSA", true),
        ("Ed25519", true),
        ("Ed448", false),
        ("ed25519", false),
    ] {
        let header = format!(r#"{{"alg":"{alg}","kid":"a"}}"#);
        let token = sign_text(&key, &header, "{}");
        let is_valid = parse(&token)
            .is_ok_and(|jws| jws.verify(std::slice::from_ref(&key)) == SignatureStatus::Valid);
        assert_eq!(is_valid, accepted, "{alg}");
        let mut jwk = key.public_jwk().unwrap();
        jwk["alg"] = alg.into();
        assert_eq!(parse_jwk(&jwk, &Algorithm::ALL).is_ok(), accepted, "{alg}");
    }
}

#[test]
fn keys_embedded_in_tokens_are_ignored() {
    let attacker = private(Algorithm::ES256, "attacker");
    let jwk = attacker.public_jwk().unwrap();
    for carried in [
        serde_json::json!({ "jwk": jwk }),
        serde_json::json!({ "jku": "http://127.0.0.1:9/jwks", "x5u": "http://127.0.0.1:9/x" }),
        serde_json::json!({ "x5c": ["MAo="] }),
    ] {
        let mut header = carried;
        header["alg"] = "ES256".into();
        let token = sign_text(&attacker, &header.to_string(), "{}");
        let jws = parse(&token).unwrap();
        let own = private(Algorithm::EdDSA, "own");
        assert_eq!(jws.verify(&[own]), SignatureStatus::UnknownKey);
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_text_is_handled(text in "\\PC*", parts in "[A-Za-z0-9_=-]*(\\.[A-Za-z0-9_-]*){0,4}") {
        let _ = parse(&text);
        let _ = parse(&parts);
    }
}
