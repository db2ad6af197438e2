#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::{Key, KeyError};
use crate::auth::token::Algorithm::{ES256, ES384, EdDSA, HS256, PS256, RS256};
use crate::auth::token::jwk::parse_jwk;
use crate::auth::token::{Algorithm, parse_jwks};

const RSA: &[u8] = include_bytes!("../testdata/rsa.pem");
const EC: &[u8] = include_bytes!("../testdata/ec.pem");
const EC_384: &[u8] = include_bytes!("../testdata/ec-384.pem");
const ED: &[u8] = include_bytes!("../testdata/ed.pem");

/// Returns the only key of a JWK.
fn from_jwk(jwk: &serde_json::Value) -> Key {
    let mut keys = parse_jwk(jwk, &Algorithm::ALL).unwrap();
    assert_eq!(keys.len(), 1, "{jwk}");
    keys.remove(0)
}

#[test]
fn key_files_are_accepted_or_rejected_with_reason() {
    let check = |algorithm, pem: &[u8], expected: Result<bool, KeyError>| {
        let result = Key::from_pem(None, algorithm, pem).map(|key| key.can_sign());
        assert_eq!(
            result,
            expected,
            "{algorithm} {}",
            String::from_utf8_lossy(pem)
        );
    };
    check(RS256, RSA, Ok(true));
    check(RS256, include_bytes!("../testdata/rsa-pkcs1.pem"), Ok(true));
    check(
        RS256,
        include_bytes!("../testdata/rsa-public.pem"),
        Ok(false),
    );
    check(ES256, EC, Ok(true));
    check(
        ES256,
        include_bytes!("../testdata/ec-public.pem"),
        Ok(false),
    );
    check(EdDSA, ED, Ok(true));
    check(
        EdDSA,
        include_bytes!("../testdata/ed-public.pem"),
        Ok(false),
    );

    let small = include_bytes!("../testdata/rsa-1024.pem");
    check(RS256, small, Err(KeyError::BadPem(RS256)));
    let sec1 = include_bytes!("../testdata/ec-sec1.pem");
    check(ES256, sec1, Err(KeyError::Sec1));
    let encrypted = include_bytes!("../testdata/ed-encrypted.pem");
    check(EdDSA, encrypted, Err(KeyError::Encrypted));
    check(HS256, RSA, Err(KeyError::SecretRequired));
    check(ES256, EC_384, Err(KeyError::BadPem(ES256)));
    check(ES384, EC_384, Ok(true));
    check(ES384, EC, Err(KeyError::BadPem(ES384)));
    check(PS256, RSA, Ok(true));
    check(
        PS256,
        include_bytes!("../testdata/rsa-public.pem"),
        Ok(false),
    );
    check(PS256, EC, Err(KeyError::BadPem(PS256)));
    check(ES256, RSA, Err(KeyError::BadPem(ES256)));
    check(RS256, ED, Err(KeyError::BadPem(RS256)));
    check(EdDSA, EC, Err(KeyError::BadPem(EdDSA)));
    check(EdDSA, b"", Err(KeyError::BadPem(EdDSA)));
    check(EdDSA, b"\xff", Err(KeyError::BadPem(EdDSA)));
}

#[test]
fn short_secrets_and_overlong_ids_are_rejected() {
    let secret = |bytes: usize| Key::hmac(None, &vec![7; bytes]).map(|_| ());
    assert_eq!(secret(32), Ok(()));
    assert_eq!(secret(31), Err(KeyError::ShortSecret(31)));
    assert_eq!(secret(0), Err(KeyError::ShortSecret(0)));
    let named = |id: String| Key::hmac(Some(id), &[7; 32]).map(|_| ());
    assert_eq!(named("k".repeat(256)), Ok(()));
    assert_eq!(named("k".repeat(257)), Err(KeyError::BadId));
    assert_eq!(named(String::new()), Err(KeyError::BadId));
}

#[test]
fn signature_verifies_with_matching_public_jwk_only() {
    let keys = [
        Key::hmac(None, &[7; 32]).unwrap(),
        Key::from_pem(None, RS256, RSA).unwrap(),
        Key::from_pem(None, PS256, RSA).unwrap(),
        Key::from_pem(None, ES256, EC).unwrap(),
        Key::from_pem(None, ES384, EC_384).unwrap(),
        Key::from_pem(None, EdDSA, ED).unwrap(),
    ];
    for signer in &keys {
        let signature = signer.sign(b"message").unwrap();
        for other in &keys {
            let same = signer.algorithm == other.algorithm;
            assert_eq!(
                other.verify(b"message", &signature),
                same,
                "{signer:?} {other:?}"
            );
        }
        assert!(!signer.verify(b"messagf", &signature));
        assert!(!signer.verify(b"message", ""));
        let Some(jwk) = signer.public_jwk() else {
            assert_eq!(signer.algorithm, HS256);
            continue;
        };
        assert!(jwk.get("d").is_none());
        let public = from_jwk(&jwk);
        assert_eq!(public.id, signer.id);
        assert!(public.verify(b"message", &signature));
        assert!(!public.can_sign());
        assert_eq!(public.sign(b"message"), None);
    }
}

#[test]
fn default_id_is_the_thumbprint() {
    // RFC 7638, section 3.1, and RFC 8037, appendix A.3.
    let rsa = serde_json::json!({
        "kty": "RSA", "e": "AQAB", "alg": "RS256",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc\
              _BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0\
              _FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhA\
              I4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    });
    let okp = serde_json::json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let check = |jwk, id: &str| {
        let key = from_jwk(&jwk);
        assert_eq!(key.id.as_deref(), Some(id));
    };
    check(rsa, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    check(okp, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn key_set_keeps_verification_keys() {
    let check =
        |keys: serde_json::Value, algorithms: &[Algorithm], expected: Result<usize, &str>| {
            let set = serde_json::json!({ "keys": keys }).to_string();
            let result = parse_jwks(set.as_bytes(), algorithms);
            let result = result
                .map(|set| set.keys.len())
                .map_err(|error| error.to_string());
            assert_eq!(result, expected.map_err(str::to_owned), "{set}");
        };
    let ec = || {
        Key::from_pem(None, ES256, EC)
            .unwrap()
            .public_jwk()
            .unwrap()
    };
    let with = |name: &str, value: serde_json::Value| {
        let mut jwk = ec();
        jwk.as_object_mut().unwrap().insert(name.to_owned(), value);
        jwk
    };
    let none = Err("none of the 1 keys in the set can verify signatures of the given algorithms");
    let unusable = Err("none of the keys in the set is usable");
    check([ec()].into(), &[ES256], Ok(1));
    check([ec()].into(), &[RS256, EdDSA], none);
    check([with("key_ops", ["verify"].into())].into(), &[ES256], Ok(1));
    check([with("key_ops", ["encrypt"].into())].into(), &[ES256], none);
    check([with("use", "enc".into())].into(), &[ES256], none);
    check([with("alg", "ES384".into())].into(), &[ES256], none);
    check([with("crv", "P-384".into())].into(), &[ES256], none);
    check([with("kty", "unheard-of".into())].into(), &[ES256], none);
    check([with("x", "AA".into())].into(), &[ES256], unusable);
    check([with("x", "=".into())].into(), &[ES256], unusable);
    check([with("kid", 7.into())].into(), &[ES256], unusable);
    let long_id = with("kid", "k".repeat(257).into());
    check([long_id, ec()].into(), &[ES256], Ok(1));
    let none = "none of the 0 keys in the set can verify signatures of the given algorithms";
    check(serde_json::json!([]), &[ES256], Err(none));
    let no_keys = "not a JSON Web Key Set: it has no array `keys`";
    check(serde_json::json!({}), &[ES256], Err(no_keys));
    assert!(parse_jwks(b"<html>", &[ES256]).is_err());
}

#[test]
fn rsa_key_without_algorithm_serves_those_that_are_allowed() {
    let mut jwk = Key::from_pem(None, RS256, RSA)
        .unwrap()
        .public_jwk()
        .unwrap();
    let check = |jwk: &serde_json::Value, allowed: &[Algorithm], expected: &[Algorithm]| {
        let keys = parse_jwk(jwk, allowed).unwrap_or_default();
        let algorithms: Vec<_> = keys.iter().map(|key| key.algorithm).collect();
        assert_eq!(algorithms, expected, "{jwk}");
    };
    check(&jwk, &[RS256, PS256], &[RS256]);
    check(&jwk, &[PS256], &[]);
    jwk["alg"] = "PS256".into();
    check(&jwk, &[RS256, PS256], &[PS256]);
    check(&jwk, &[RS256], &[]);
    jwk.as_object_mut().unwrap().remove("alg");
    check(&jwk, &[RS256, PS256], &[RS256, PS256]);
    check(&jwk, &[PS256, ES256], &[PS256]);
    jwk["alg"] = "RS512".into();
    check(&jwk, &Algorithm::ALL, &[]);
}

#[test]
fn ignored_keys_are_reported_with_reason() {
    let good = Key::from_pem(None, ES256, EC)
        .unwrap()
        .public_jwk()
        .unwrap();
    let weak = "A".repeat(171);
    let set = serde_json::json!({ "keys": [
        good,
        { "kty": "RSA", "kid": "weak", "n": format!("_{weak}"), "e": "AQAB" },
        { "kty": "oct", "k": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE" },
        { "kty": "RSA", "kid": "for-encryption", "use": "enc", "n": "AQ", "e": "AQAB" },
        { "kty": "EC", "crv": "P-384", "kid": "other-curve" },
        { "kty": "EC", "crv": "P-521", "kid": "unknown-curve" },
        { "kty": "EC", "kid": "incomplete", "crv": "P-256" },
    ] });
    let set = parse_jwks(set.to_string().as_bytes(), &[ES256, RS256]).unwrap();
    assert_eq!(set.keys.len(), 1);
    let reported = set
        .ignored
        .iter()
        .map(|key| (key.id.as_deref(), key.reason.to_string()));
    let reported: Vec<_> = reported.collect();
    assert_eq!(
        reported,
        [
            (Some("weak"), KeyError::RsaSize(1032).to_string()),
            (None, KeyError::AlgorithmNotAllowed(HS256).to_string()),
            (
                Some("other-curve"),
                KeyError::AlgorithmNotAllowed(ES384).to_string()
            ),
            (Some("unknown-curve"), KeyError::Unsupported.to_string()),
            (
                Some("incomplete"),
                KeyError::BadJwk("a member of this key type is missing").to_string()
            ),
        ]
    );
    let many: Vec<_> = (0..100)
        .map(|_| serde_json::json!({ "kty": "oct", "k": "AA" }))
        .collect();
    let all = [vec![good], many].concat();
    let set = serde_json::json!({ "keys": all });
    let set = parse_jwks(set.to_string().as_bytes(), &[ES256]).unwrap();
    assert_eq!(set.ignored.len(), 16);
}

#[test]
fn weak_rsa_jwk_is_rejected() {
    let check = |n: &[u8], e: &str, error: Option<KeyError>| {
        let n = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, n);
        let jwk = serde_json::json!({"kty": "RSA", "n": n, "e": e});
        assert_eq!(parse_jwk(&jwk, &Algorithm::ALL).err(), error, "{jwk}");
    };
    check(&[0xff; 256], "AQAB", None);
    check(&[&[0; 9], [0xff; 256].as_slice()].concat(), "AQAB", None);
    check(&[0xff; 128], "AQAB", Some(KeyError::RsaSize(1024)));
    check(
        &[&[0; 128], [0xff; 128].as_slice()].concat(),
        "AQAB",
        Some(KeyError::RsaSize(1024)),
    );
    check(
        &[&[0x7f], [0xff; 255].as_slice()].concat(),
        "AQAB",
        Some(KeyError::RsaSize(2047)),
    );
    check(&[0xff; 1025], "AQAB", Some(KeyError::RsaSize(8200)));
    check(&[], "AQAB", Some(KeyError::RsaSize(0)));
    check(&[0xff; 256], "AQ", Some(KeyError::RsaExponent));
    check(&[0xff; 256], "AQAA", Some(KeyError::RsaExponent));
    check(&[0xff; 256], "", Some(KeyError::RsaExponent));
}

#[test]
fn same_keys_have_the_same_id_algorithm_and_material() {
    let named = |id: &str, byte| Key::hmac(Some(id.to_owned()), &[byte; 32]).unwrap();
    let public = |pem| Key::from_pem(Some("a".to_owned()), ES256, pem).unwrap();
    let ec_public = || public(include_bytes!("../testdata/ec-public.pem"));
    assert!(named("a", 1).is_same_as(&named("a", 1)));
    assert!(!named("a", 1).is_same_as(&named("b", 1)));
    assert!(!named("a", 1).is_same_as(&named("a", 2)));
    assert!(public(EC).is_same_as(&public(EC)));
    assert!(ec_public().is_same_as(&ec_public()));
    assert!(!ec_public().is_same_as(&public(EC)));
}

#[test]
fn key_is_redacted_in_debug_output() {
    let key = Key::hmac(Some("id".to_owned()), &[b's'; 32]).unwrap();
    assert_eq!(format!("{key:?}"), "Key(HS256)");
}
