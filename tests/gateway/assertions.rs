//! The signed assertion: what an upstream receives, and that it can verify it.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::support::calls::Dialect;
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::ext_authz::Query;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::tokens;
use crate::support::upstream::Upstream;

/// A gateway that signs with a key pair, and whose private and optional routes assert.
fn gateway() -> Gateway {
    Gateway::start(config())
}

fn config() -> Config {
    let mut config = Config::new(Upstream::start().address);
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = config.write_beside("signing.pem", pair.serialize_pem());
    config.put(
        "/tokens/signing",
        json!({ "algorithm": "ES256", "key_file": key }),
    );
    config.put("/routes/0/assertion", json!(true));
    config.put("/routes/1/assertion", json!(true));
    config
}

fn assertion(gateway: &Gateway, user: &SignedIn) -> String {
    let request = Request::get("/private/a")
        .cookie(&user.cookie)
        .header("X-Portcullis-Assertion", "forged")
        .header("X.Portcullis.Assertion", "forged");
    let echo = gateway.request(&request).echo();
    let all = echo.all("x-portcullis-assertion");
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(echo.all("x.portcullis.assertion").is_empty());
    all[0].clone()
}

/// Verifies as an upstream would, by the published keys.
fn verify(gateway: &Gateway, assertion: &str, audience: &str) -> Option<Value> {
    let keys = gateway.get("/api/v1/jwks.json").json();
    let key: Jwk = serde_json::from_value(keys["keys"][0].clone()).unwrap();
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_audience(&[audience]);
    rules.set_issuer(&["portcullis"]);
    let key = DecodingKey::from_jwk(&key).unwrap();
    let token = jsonwebtoken::decode::<Value>(assertion, &key, &rules).ok()?;
    assert_eq!(token.header.typ.as_deref(), Some("assertion+jwt"));
    Some(token.claims)
}

#[test]
fn upstream_can_verify_the_assertion() {
    let gateway = gateway();
    let ann = gateway.register("ann@example.com");
    let roles = json!({ "roles": ["admin"], "scopes": ["read"] });
    let patch = Request::new("PATCH", &format!("/admin/users/{}", ann.user)).json(&roles);
    gateway.admin(patch).assert_ok();
    let text = assertion(&gateway, &ann);
    let claims = verify(&gateway, &text, "echo").unwrap();
    assert_eq!(claims["sub"], ann.user.as_str());
    assert_eq!(claims["sid"], ann.session.as_str());
    assert_eq!(claims["email"], "ann@example.com");
    assert_eq!(claims["roles"], json!(["admin"]));
    assert_eq!(claims["scopes"], json!(["read"]));
    let (iat, exp) = (claims["iat"].as_i64(), claims["exp"].as_i64());
    assert_eq!(exp.unwrap() - iat.unwrap(), 60);
    assert!((iat.unwrap() - tokens::now()).abs() < 10);
    assert!(verify(&gateway, &text, "another").is_none());
    assert_eq!(assertion(&gateway, &ann), text, "it is not signed anew");
    assert!(gateway.metric("portcullis_cache_total", &["assertions", "hit"]) >= 1.0);
    // Another right, another assertion, at once.
    let none = Request::new("PATCH", &format!("/admin/users/{}", ann.user));
    gateway
        .admin(none.json(&json!({ "roles": [] })))
        .assert_ok();
    let claims = verify(&gateway, &assertion(&gateway, &ann), "echo").unwrap();
    assert_eq!(claims["roles"], json!([]));
}

#[test]
fn assertion_is_no_credential_and_needs_a_principal() {
    let gateway = gateway();
    let ann = gateway.register("ann@example.com");
    let text = assertion(&gateway, &ann);
    gateway
        .request(&Request::get("/private/a").bearer(&text))
        .assert_refused(401, "TOKEN_INVALID");
    for path in ["/optional/a", "/public/a"] {
        let forged = Request::get(path).header("X-Portcullis-Assertion", &text);
        let echo = gateway.request(&forged).echo();
        assert_eq!(echo.header("x-portcullis-assertion"), None);
    }
}

#[test]
fn upstream_of_a_front_proxy_can_verify_it() {
    let behind = json!({ "name": "behind", "match": { "prefix": "/behind" }, "auth": "required",
        "assertion": true });
    let gateway = Gateway::start(config().forward_auth().route(behind));
    let ann = gateway.register("ann@example.com");
    let authorizer = gateway.config.authorizer();
    let verify_for = |text: &str, audience: &str| {
        let claims = verify(&gateway, text, audience).unwrap();
        assert_eq!(claims["sub"], ann.user.as_str());
    };
    // The audience is the upstream, or the route that has none.
    for (path, audience) in [("/private/a", "echo"), ("/behind/a", "behind")] {
        for dialect in Dialect::ALL {
            let response = gateway.query(&dialect.get(path).cookie(&ann.cookie));
            response.assert_allowed(dialect);
            let all = response.all("x-portcullis-assertion");
            assert_eq!(all.len(), 1, "{response:?}");
            verify_for(all[0], audience);
        }
        let query = Query::get(path).header("cookie", &ann.cookie);
        verify_for(
            &query.send(authorizer).set["x-portcullis-assertion"],
            audience,
        );
    }
    for dialect in Dialect::ALL {
        let response = gateway.query(&dialect.get("/optional/a"));
        response.assert_allowed(dialect);
        assert_eq!(response.all("x-portcullis-assertion"), [""], "{dialect:?}");
    }
    let forged = Query::get("/optional/a").header("x-portcullis-assertion", "forged");
    assert!(forged.send(authorizer).removes("x-portcullis-assertion"));
}
