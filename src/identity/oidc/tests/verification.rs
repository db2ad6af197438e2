use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::auth::token::fixtures::{NOW, private, sign_text};
use crate::auth::token::provider_token::{IdToken, IdTokenRequest};
use crate::auth::token::{Algorithm, Key};
use crate::rejection::CallbackFault;
use crate::settings::provider::{Issuer, UserinfoUse};

fn claims(server: &LyingServer) -> Value {
    json!({
        "iss": server.base(), "aud": "portcullis", "sub": "ann", "nonce": "the-nonce",
        "iat": NOW / 1000, "exp": NOW / 1000 + 60,
    })
}

/// Signs an ID token, which has no `typ`.
fn sign(key: &Key, claims: &Value) -> String {
    let header = json!({"alg": key.algorithm.as_str(), "kid": key.id});
    sign_text(key, &header.to_string(), &claims.to_string())
}

pub(super) fn publish(server: &LyingServer, keys: &[&Key]) {
    let keys: Vec<Value> = keys.iter().map(|key| key.public_jwk().unwrap()).collect();
    server.reply("/jwks", Reply::json(200, &json!({ "keys": keys })));
}

async fn verify(gateway: &Gateway, token: &str) -> Result<IdToken, CallbackFault> {
    let request = IdTokenRequest {
        nonce: Some("the-nonce"),
        ..IdTokenRequest::default()
    };
    let leeway = Duration::from_secs(5);
    gateway
        .client()
        .verify_id_token(token, &request, leeway, NOW)
        .await
}

#[tokio::test]
async fn rotated_key_is_fetched_once_in_thirty_seconds() {
    let server = LyingServer::start().await;
    let old = private(Algorithm::ES256, "old");
    let new = private(Algorithm::EdDSA, "new");
    let other = private(Algorithm::RS256, "other");
    publish(&server, &[&old]);
    let gateway = Gateway::of(&server);
    assert_eq!(
        verify(&gateway, &sign(&old, &claims(&server)))
            .await
            .unwrap()
            .subject,
        "ann"
    );
    assert_eq!(server.received("/jwks").len(), 1);
    // A wrong signature of a known key costs no fetch.
    let wrong = sign(&private(Algorithm::EdDSA, "old"), &claims(&server));
    let result = verify(&gateway, &wrong).await;
    assert_eq!(result.err(), Some(CallbackFault::TokenSignature));
    assert_eq!(server.received("/jwks").len(), 1);
    publish(&server, &[&new]);
    assert!(
        verify(&gateway, &sign(&new, &claims(&server)))
            .await
            .is_ok()
    );
    assert_eq!(server.received("/jwks").len(), 2);
    // A key that has left the set is rejected, and so is one that never was in it.
    for key in [&old, &other] {
        let result = verify(&gateway, &sign(key, &claims(&server))).await;
        assert_eq!(result.err(), Some(CallbackFault::TokenKeyUnknown));
    }
    assert_eq!(server.received("/jwks").len(), 2);
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_unavailability() {
    let server = LyingServer::start().await;
    let known = private(Algorithm::ES256, "known");
    let new = private(Algorithm::EdDSA, "new");
    let token = sign(&known, &claims(&server));
    server.reply("/jwks", Reply::text(500, ""));
    let gateway = Gateway::of(&server);
    assert_eq!(
        verify(&gateway, &token).await.err(),
        Some(CallbackFault::KeysUnavailable)
    );
    assert_eq!(gateway.client().status(), ProviderStatus::Down);
    // As soon as the provider responds, keys are fetched, within a second or two.
    publish(&server, &[&known]);
    let before = Instant::now();
    while verify(&gateway, &token).await.is_err() {
        assert!(
            before.elapsed() < Duration::from_secs(4),
            "not fetched again"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // With keys at hand, an unknown key may be one that could not be fetched. Only the first of these
    // requests it; for the others, the key is not reported as unknown either.
    for reply in [
        Reply::text(503, ""),
        Reply::Redirect("/".to_owned()),
        Reply::Reset,
    ] {
        server.reply("/jwks", reply);
        let result = verify(&gateway, &sign(&new, &claims(&server))).await;
        assert_eq!(result.err(), Some(CallbackFault::KeysUnavailable));
        assert!(verify(&gateway, &token).await.is_ok(), "the keys are kept");
    }
    assert!(gateway.requests(ProviderEndpoint::Jwks, ProviderOutcome::Error) >= 1);
    assert_eq!(
        gateway.requests(ProviderEndpoint::Jwks, ProviderOutcome::Ok),
        1
    );
}

#[tokio::test]
async fn keys_of_one_provider_are_not_those_of_another() {
    let (one, other) = (LyingServer::start().await, LyingServer::start().await);
    // Two keys with the same ID.
    let key = private(Algorithm::ES256, "key");
    let evil = private(Algorithm::EdDSA, "key");
    publish(&one, &[&key]);
    publish(&other, &[&evil]);
    let metrics = Arc::new(Metrics::new().unwrap());
    let second = Provider {
        name: Arc::from("second"),
        ..provider(&other.base())
    };
    let both = [Arc::new(provider(&one.base())), Arc::new(second)];
    let providers = Providers::start(&both, None, &metrics);
    let gateway = Gateway { providers, metrics };
    let forged = sign(&evil, &claims(&one));
    assert_eq!(
        verify(&gateway, &forged).await.err(),
        Some(CallbackFault::TokenSignature)
    );
    let of_other = sign(&evil, &claims(&other));
    assert_eq!(
        verify(&gateway, &of_other).await.err(),
        Some(CallbackFault::TokenIssuer)
    );
    assert!(verify(&gateway, &sign(&key, &claims(&one))).await.is_ok());
}

#[tokio::test]
async fn userinfo_must_be_of_the_user_of_the_id_token() {
    let server = LyingServer::start().await;
    let key = private(Algorithm::ES256, "key");
    publish(&server, &[&key]);
    let gateway = Gateway::of(&server);
    let id_token = verify(&gateway, &sign(&key, &claims(&server)))
        .await
        .unwrap();
    let access_token = "a".into();
    for (userinfo, fault) in [
        (json!({"sub": "ann", "name": "Ann"}), None),
        (
            json!({"sub": "eve", "name": "Eve"}),
            Some(CallbackFault::UserinfoSubject),
        ),
        (json!({"sub": "ANN"}), Some(CallbackFault::UserinfoSubject)),
        (json!({"sub": 1}), Some(CallbackFault::UserinfoSubject)),
        (json!({"name": "Eve"}), Some(CallbackFault::UserinfoSubject)),
    ] {
        server.reply("/userinfo", Reply::json(200, &userinfo));
        let user = gateway
            .client()
            .read_user(&access_token, Some(&id_token))
            .await;
        assert_eq!(user.err(), fault, "{userinfo}");
    }
    // Claims of the ID token count before those of userinfo.
    let userinfo = json!({"sub": "ann", "email": "ann@example.com", "email_verified": true});
    server.reply("/userinfo", Reply::json(200, &userinfo));
    let user = gateway
        .client()
        .read_user(&access_token, Some(&id_token))
        .await
        .unwrap();
    assert_eq!(
        (user.user_id.as_str(), user.email.as_deref()),
        ("ann", Some("ann@example.com"))
    );
}

#[tokio::test]
async fn userinfo_is_queried_as_configured() {
    let server = LyingServer::start().await;
    let key = private(Algorithm::ES256, "key");
    publish(&server, &[&key]);
    server.reply(
        "/userinfo",
        Reply::json(200, &json!({"sub": "ann", "name": "Ann"})),
    );
    let complete = json!({"email": "a@b", "email_verified": true, "name": "A"});
    for (userinfo, is_complete, queries) in [
        (UserinfoUse::Auto, false, 1),
        (UserinfoUse::Auto, true, 0),
        (UserinfoUse::Always, true, 1),
        (UserinfoUse::Never, false, 0),
    ] {
        let gateway = Gateway::with(Provider {
            userinfo,
            ..provider(&server.base())
        });
        let mut claims = claims(&server);
        if is_complete {
            claims
                .as_object_mut()
                .unwrap()
                .extend(complete.as_object().unwrap().clone());
        }
        let id_token = verify(&gateway, &sign(&key, &claims)).await.unwrap();
        let before = server.received("/userinfo").len();
        gateway
            .client()
            .read_user(&"a".into(), Some(&id_token))
            .await
            .unwrap();
        let after = server.received("/userinfo").len();
        assert_eq!(after - before, queries, "{userinfo:?} {is_complete}");
    }
}

#[tokio::test]
async fn provider_without_a_userinfo_endpoint_has_no_userinfo() {
    let server = LyingServer::start().await;
    let key = private(Algorithm::ES256, "key");
    publish(&server, &[&key]);
    let mut document = server.document();
    let members = document.as_object_mut().unwrap();
    members.remove("userinfo_endpoint");
    let document = Reply::json(200, &document);
    server.reply("/.well-known/openid-configuration", document);
    for (userinfo, fault) in [
        (UserinfoUse::Auto, None),
        (UserinfoUse::Always, Some(CallbackFault::EndpointMissing)),
    ] {
        let gateway = Gateway::with(Provider {
            userinfo,
            ..provider(&server.base())
        });
        let token = sign(&key, &claims(&server));
        let id_token = verify(&gateway, &token).await.unwrap();
        let user = gateway
            .client()
            .read_user(&"a".into(), Some(&id_token))
            .await;
        assert_eq!(user.err(), fault, "{userinfo:?}");
    }
}

#[tokio::test]
async fn issuer_of_a_response_is_checked() {
    let server = LyingServer::start().await;
    let own = server.base();
    for (promises, issuer, fault) in [
        (false, None, None),
        (false, Some(own.as_str()), None),
        (
            false,
            Some("https://evil.example"),
            Some(CallbackFault::IssuerMismatch),
        ),
        (true, None, Some(CallbackFault::IssuerMissing)),
        (true, Some(""), Some(CallbackFault::IssuerMismatch)),
        (true, Some(own.as_str()), None),
    ] {
        let mut document = server.document();
        let name = "authorization_response_iss_parameter_supported".to_owned();
        document
            .as_object_mut()
            .unwrap()
            .insert(name, json!(promises));
        server.reply(
            "/.well-known/openid-configuration",
            Reply::json(200, &document),
        );
        let gateway = Gateway::of(&server);
        let result = gateway.client().check_issuer(issuer).await;
        assert_eq!(result.err(), fault, "{promises} {issuer:?}");
    }
    let tenants = Issuer::Tenants {
        template: format!("{own}/{{tenantid}}"),
        tenants: vec!["a".to_owned()],
    };
    let gateway = Gateway::with(Provider {
        issuer: Some(tenants),
        ..provider(&own)
    });
    for (issuer, is_own) in [("/a", true), ("/b", false), ("/{tenantid}", false)] {
        let issuer = format!("{own}{issuer}");
        let result = gateway.client().check_issuer(Some(&issuer)).await;
        assert_eq!(result.is_ok(), is_own, "{issuer}");
    }
}

#[tokio::test]
async fn private_key_signs_an_assertion_for_the_issuer() {
    let server = LyingServer::start().await;
    server.reply(
        "/token",
        Reply::text(
            200,
            r#"{"access_token":"a","token_type":"Bearer","id_token":"x"}"#,
        ),
    );
    let key = private(Algorithm::ES256, "client");
    let client_auth = crate::settings::provider::ClientAuthentication::PrivateKey(key);
    let gateway = Gateway::with(Provider {
        client_auth,
        ..provider(&server.base())
    });
    for code in ["c", "d"] {
        gateway
            .client()
            .redeem(code, "v", "https://app.example/cb")
            .await
            .unwrap();
    }
    let assertions: Vec<String> = server
        .received("/token")
        .iter()
        .map(|request| {
            let form = url::form_urlencoded::parse(request.body.as_bytes());
            let params: std::collections::HashMap<_, _> = form.into_owned().collect();
            assert_eq!(params.get("client_id").unwrap(), "portcullis");
            assert!(
                params
                    .get("client_assertion_type")
                    .unwrap()
                    .ends_with(":jwt-bearer")
            );
            assert!(!request.head.contains("authorization:"));
            params.get("client_assertion").unwrap().clone()
        })
        .collect();
    assert_ne!(assertions.first(), assertions.last());
    let payload = assertions.first().unwrap().split('.').nth(1).unwrap();
    let payload =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    let payload: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    assert_eq!(payload.get("aud"), Some(&json!(server.base())));
}
