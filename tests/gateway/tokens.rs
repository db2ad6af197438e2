//! Bearer tokens: forged, foreign, rotated and revoked.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::{Config, SECRET};
use crate::support::gateway::Gateway;
use crate::support::http2::Http2;
use crate::support::redis::Redis;
use crate::support::tokens::{self, hs256, modified_claims, now, sign};
use crate::support::upstream::{Recorder, Upstream};
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};

const OTHER_SECRET: &str = "another-hmac-secret-for-tests-0123456789";

#[test]
fn token_may_fill_the_head() {
    let upstream = Upstream::start();
    let config =
        Config::new(upstream.address).set("/listeners/0/limits", json!({ "head": "128KiB" }));
    let gateway = Gateway::start(config);
    let alice = gateway.register("alice@example.com");
    let http2 = Http2::connect(gateway.public);
    for bytes in [9_000, 40_000, 80_000] {
        let groups: Vec<String> = (0..bytes / 50).map(|n| format!("group-{n:030}")).collect();
        let token = hs256(&modified_claims(
            &alice.access_token,
            &json!({ "groups": groups }),
        ));
        assert!(token.len() > bytes, "{}", token.len());
        let response = gateway.request(&Request::get("/private/a").bearer(&token));
        assert_eq!(
            response.echo().header("x-user-id"),
            Some(alice.user.clone())
        );
        let authorization = format!("Bearer {token}");
        let (status, body) =
            http2.request("GET", "/private/a", &[("authorization", &authorization)]);
        assert_eq!(status, 200, "{body}");
        // What is wrong with it is still found.
        let forged = format!("{token}x");
        let refused = gateway.request(&Request::get("/private/a").bearer(&forged));
        refused.assert_refused(401, "TOKEN_INVALID");
    }
}

/// Tokens whose form, header or signature is wrong; the claims are those of a good one.
fn forged_heads(good: &str) -> Vec<(&'static str, String)> {
    let text = tokens::claims(good).to_string();
    let header = |header: &str| sign(header, &text, SECRET);
    let duplicate = text.replacen('{', r#"{"sub":"mallory","#, 1);
    vec![
        ("not a token", "nonsense".to_owned()),
        (
            "another key",
            sign(r#"{"alg":"HS256"}"#, &text, OTHER_SECRET),
        ),
        (
            "alg none",
            format!(
                "{}.",
                sign(r#"{"alg":"none"}"#, &text, SECRET)
                    .rsplit_once('.')
                    .unwrap()
                    .0
            ),
        ),
        (
            "alg of another family",
            header(r#"{"alg":"RS256","typ":"at+jwt"}"#),
        ),
        (
            "crit",
            header(r#"{"alg":"HS256","crit":["x-must"],"x-must":1}"#),
        ),
        ("an id token", header(r#"{"alg":"HS256","typ":"id+jwt"}"#)),
        (
            "a logout token",
            header(r#"{"alg":"HS256","typ":"logout+jwt"}"#),
        ),
        (
            "duplicate members",
            sign(r#"{"alg":"HS256"}"#, &duplicate, SECRET),
        ),
        ("padding", format!("{good}=")),
        ("a fourth part", format!("{good}.x")),
    ]
}

/// Tokens that are signed by the right key over the wrong claims.
fn forged_claims(good: &str) -> Vec<(&'static str, String)> {
    let with = |changes: Value| hs256(&modified_claims(good, &changes));
    let text = tokens::claims(good).to_string();
    vec![
        ("exp as text", with(json!({ "exp": "9999999999" }))),
        ("exp as array", with(json!({ "exp": [9_999_999_999_i64] }))),
        (
            "exp beyond any clock",
            sign(
                r#"{"alg":"HS256"}"#,
                &text.replacen("\"exp\":", "\"exp\":1e300,\"x\":", 1),
                SECRET,
            ),
        ),
        ("no exp", with(json!({ "exp": null }))),
        ("no sub", with(json!({ "sub": null }))),
        ("empty sub", with(json!({ "sub": "" }))),
        ("long sub", with(json!({ "sub": "a".repeat(256) }))),
        (
            "sub with a line end",
            with(json!({ "sub": "a\r\nX-Admin: 1" })),
        ),
        ("nbf ahead", with(json!({ "nbf": now() + 3600 }))),
        ("nbf as text", with(json!({ "nbf": "0" }))),
        ("iat ahead", with(json!({ "iat": now() + 3600 }))),
        ("no iss", with(json!({ "iss": null }))),
        ("iss in an array", with(json!({ "iss": ["portcullis"] }))),
        ("iss with a slash", with(json!({ "iss": "portcullis/" }))),
        ("another aud", with(json!({ "aud": "somebody-else" }))),
    ]
}

#[test]
fn invalid_bearer_tokens_are_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let good = &alice.access_token;
    let invalid = forged_heads(good).into_iter().chain(forged_claims(good));
    for (what, token) in invalid {
        let response = gateway.request(&Request::get("/private/a").bearer(&token));
        assert_eq!(
            (response.status, response.code().as_str()),
            (401, "TOKEN_INVALID"),
            "{what}"
        );
        response.assert_refused(401, "TOKEN_INVALID");
        assert!(
            response
                .header("www-authenticate")
                .unwrap()
                .contains("invalid_token"),
            "{what}"
        );
        let response = gateway.request(&Request::get("/optional/a").bearer(&token));
        assert_eq!(
            response.status, 401,
            "a bad Authorization is refused where it is optional: {what}"
        );
    }
    let expired = hs256(&modified_claims(
        good,
        &json!({ "exp": now() - 60, "iat": now() - 120 }),
    ));
    gateway
        .request(&Request::get("/private/a").bearer(&expired))
        .assert_refused(401, "TOKEN_EXPIRED");
    assert_eq!(upstream.requests(), 0, "nothing of it reached the upstream");
    gateway
        .request(&Request::get("/private/a").bearer(good))
        .assert_ok();
}

#[test]
fn older_key_is_accepted_while_configured() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let request = Request::get("/private/a").bearer(&alice.access_token);
    gateway.request(&request).assert_ok();
    gateway.reload("applied", |config| {
        config.put("/tokens/signing/secret", json!(OTHER_SECRET));
        config.put(
            "/tokens/verify_also",
            json!([{ "algorithm": "HS256", "secret": SECRET }]),
        );
    });
    gateway.request(&request).assert_ok();
    let fresh = gateway.login("alice@example.com");
    gateway
        .request(&Request::get("/private/a").bearer(&fresh.access_token))
        .assert_ok();
    gateway.reload("applied", |config| {
        config.put("/tokens/verify_also", json!([]))
    });
    gateway
        .request(&request)
        .assert_refused(401, "TOKEN_INVALID");
    gateway
        .request(&Request::get("/private/a").bearer(&fresh.access_token))
        .assert_ok();
}

#[test]
fn trusted_issuer_keys_load_from_file_or_url() {
    let (key, jwk) = tokens::es256("first");
    let keys = json!({ "keys": [jwk] }).to_string();
    let reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{keys}",
        keys.len()
    );
    let server = Recorder::responding(reply.leak());
    let upstream = Upstream::start();
    let config = Config::new(upstream.address);
    let file = config.write_beside("keys.json", &keys);
    let issuer = |name: &str| {
        json!({
            "issuer": name, "audience": "shop", "algorithms": ["ES256"],
            "claims": { "user": "uid" }, "user_prefix": "ext:",
        })
    };
    let mut by_file = issuer("https://file.example");
    by_file["jwks_file"] = json!(file);
    let mut by_url = issuer("https://url.example");
    by_url["jwks_url"] = json!(format!("http://{}/keys", server.address));
    let gateway = Gateway::start(config.set("/tokens/trusted_issuers", json!([by_file, by_url])));

    let header = r#"{"alg":"ES256","kid":"first"}"#;
    let token = |issuer: &str, changes: Value| {
        let mut claims = json!({
            "iss": issuer, "aud": "shop", "uid": "42", "exp": now() + 600, "sid": "foreign",
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        tokens::sign_with_key(header, &claims.to_string(), &key, Algorithm::ES256)
    };
    for issuer in ["https://file.example", "https://url.example"] {
        let request = Request::get("/private/a").bearer(&token(issuer, json!({})));
        // Keys are fetched in the background: until they have arrived the response is 503, never
        // 401.
        let echo = eventually("the issuer's keys are known", || {
            let response = gateway.request(&request);
            assert_ne!(response.status, 401, "{}", response.text());
            (response.status == 200).then(|| response.echo())
        });
        assert_eq!(echo.header("x-user-id").as_deref(), Some("ext:42"));
        assert_eq!(
            echo.header("x-session-id"),
            None,
            "a foreign sid is no session here"
        );
        let wrong = token(issuer, json!({ "aud": "another" }));
        gateway
            .request(&Request::get("/private/a").bearer(&wrong))
            .assert_refused(401, "TOKEN_INVALID");
    }
    let unknown = token("https://nobody.example", json!({}));
    gateway
        .request(&Request::get("/private/a").bearer(&unknown))
        .assert_refused(401, "TOKEN_INVALID");
}

#[test]
fn unused_issuer_keys_are_logged() {
    let (_, jwk) = tokens::es256("good");
    let weak =
        json!({ "kty": "RSA", "kid": "weak", "n": format!("{}8", "_".repeat(170)), "e": "AQAB" });
    let secret = json!({ "kty": "oct", "kid": "secret", "k": "A".repeat(43) });
    let keys = json!({ "keys": [jwk, weak, secret] }).to_string();
    let reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{keys}",
        keys.len()
    );
    let server = Recorder::responding(reply.leak());
    let config = Config::new(Upstream::start().address);
    let file = config.write_beside("keys.json", &keys);
    let issuer = |name: &str| json!({ "issuer": name, "audience": "shop" });
    let mut by_file = issuer("https://file.example");
    by_file["jwks_file"] = json!(file);
    let mut by_url = issuer("https://url.example");
    by_url["jwks_url"] = json!(format!("http://{}/keys", server.address));
    let gateway = Gateway::start(config.set("/tokens/trusted_issuers", json!([by_file, by_url])));
    for issuer in ["https://file.example", "https://url.example"] {
        for (kid, reason) in [("weak", "1024"), ("secret", "HS256")] {
            let line = eventually(&format!("the line of {kid} of {issuer}"), || {
                let mut lines = gateway.events().into_iter();
                lines.find(|line| line["issuer"] == issuer && line["kid"] == kid)
            });
            assert_eq!(line["level"], "WARN", "{line}");
            assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
        }
    }
}

#[test]
fn keys_embedded_in_tokens_are_ignored() {
    let upstream = Upstream::start();
    let recorder = Recorder::responding("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::start(Config::new(upstream.address));
    let alice = gateway.register("alice@example.com");
    let (key, jwk) = tokens::es256("mine");
    let url = format!("http://{}/keys", recorder.address);
    let header = json!({ "alg": "ES256", "jwk": jwk, "jku": url, "x5u": url, "kid": "mine" });
    let claims = tokens::claims(&alice.access_token).to_string();
    let forged = tokens::sign_with_key(&header.to_string(), &claims, &key, Algorithm::ES256);
    gateway
        .request(&Request::get("/private/a").bearer(&forged))
        .assert_refused(401, "TOKEN_INVALID");
    assert_eq!(recorder.bytes(), "");
}

#[test]
fn external_blacklist_write_revokes_a_token() {
    let redis = Redis::start();
    let upstream = Upstream::start();
    let gateway = Gateway::start(Config::new(upstream.address).store(&redis.url()));
    let alice = gateway.register("alice@example.com");
    let request = Request::get("/private/a").bearer(&alice.access_token);
    gateway.request(&request).assert_ok();
    let jti = tokens::claims(&alice.access_token)["jti"]
        .as_str()
        .unwrap()
        .to_owned();
    redis.command(&[
        "SET",
        &format!("portcullis:blacklist:{jti}"),
        "1",
        "EX",
        "60",
    ]);
    let refused = within(PROPAGATION_DEADLINE, "the revocation is in force", || {
        let response = gateway.request(&request);
        (response.status != 200).then_some(response)
    });
    refused.assert_refused(401, "TOKEN_REVOKED");
    // The session lives on: only that token was revoked.
    gateway
        .request(&Request::get("/private/a").cookie(&alice.cookie))
        .assert_ok();
}

#[test]
fn integer_user_claim_is_read_as_digits() {
    let (key, jwk) = tokens::es256("first");
    let config = Config::new(Upstream::start().address);
    let file = config.write_beside("keys.json", json!({ "keys": [jwk] }).to_string());
    let issuer = |name: &str, user: &str| {
        json!({
            "issuer": name, "audience": "shop", "algorithms": ["ES256"], "jwks_file": file,
            "claims": { "user": user }, "user_prefix": "ext:",
        })
    };
    let issuers = json!([
        issuer("https://uid.example", "user_id"),
        issuer("https://path.example", "/user/id"),
        issuer("https://sub.example", "sub"),
    ]);
    let gateway = Gateway::start(config.set("/tokens/trusted_issuers", issuers));
    let send = |issuer: &str, id: &str| {
        let claims = format!(
            r#"{{"iss":"https://{issuer}.example","aud":"shop","exp":{},"user_id":{id},"user":{{"id":{id}}},"sub":{id}}}"#,
            now() + 600
        );
        let header = r#"{"alg":"ES256","kid":"first"}"#;
        let token = tokens::sign_with_key(header, &claims, &key, Algorithm::ES256);
        gateway.request(&Request::get("/private/a").bearer(&token))
    };
    for issuer in ["uid", "path"] {
        for id in ["42", "0", "9007199254740991", "\"42\""] {
            let echo = send(issuer, id).echo();
            let user = format!("ext:{}", id.trim_matches('"'));
            assert_eq!(echo.header("x-user-id"), Some(user), "{issuer} {id}");
        }
        for id in [
            "4.5",
            "1e30",
            "9007199254740993",
            "18446744073709551616",
            "true",
            "null",
            "[42]",
            "{}",
        ] {
            send(issuer, id).assert_refused(401, "TOKEN_INVALID");
        }
    }
    send("sub", "42").assert_refused(401, "TOKEN_INVALID");
    send("sub", "\"42\"").assert_ok();
}
