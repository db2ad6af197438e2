use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::json;
use url::form_urlencoded;

use super::*;
use crate::rejection::{CallbackFault, CallbackFault as F};
use crate::settings::provider::{ClientAuthentication, Par, ResponseMode};

/// The parameters of a query or a form, each of which is there once.
fn params(text: &str) -> BTreeMap<String, String> {
    let mut params = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let twice = params.insert(name.to_string(), value.into_owned());
        assert_eq!(twice, None, "{name}");
    }
    params
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

const BASIC: [(&str, &str); 8] = [
    ("response_type", "code"),
    ("client_id", "portcullis"),
    (
        "redirect_uri",
        "https://app.example/api/v1/auth/callback/corp",
    ),
    ("scope", "openid email"),
    ("state", "the-state"),
    ("nonce", "the-nonce"),
    ("code_challenge", "the-challenge"),
    ("code_challenge_method", "S256"),
];

#[tokio::test]
async fn authorization_request_has_every_parameter_once() {
    let server = LyingServer::start().await;
    let mut settings = provider(&server.base());
    settings.response_mode = ResponseMode::Jwt;
    settings.authorization_params = vec![
        ("prompt".to_owned(), "consent".to_owned()),
        ("max_age".to_owned(), "300".to_owned()),
        (
            "resource".to_owned(),
            "https://api.example/?a=b&c".to_owned(),
        ),
    ];
    let gateway = Gateway::with(settings);
    let client = gateway.client();
    let request = AuthorizationRequest {
        prompt: Some("login"),
        login_hint: Some("ann&state=evil"),
        acr_values: Some("gold silver"),
        max_age: client.effective_max_age(Some(60)),
        ..authorization_request()
    };
    let url = client.authorization_url(&request).await.unwrap();
    let mut all = BASIC.to_vec();
    all.extend([
        ("response_mode", "jwt"),
        ("prompt", "login"),
        ("login_hint", "ann&state=evil"),
        ("acr_values", "gold silver"),
        ("max_age", "60"),
        ("resource", "https://api.example/?a=b&c"),
    ]);
    assert_eq!(params(url.query().unwrap()), expected(&all));
    assert!(
        url.as_str()
            .starts_with(&format!("{}/authorize?", server.base()))
    );
    // The configuration bounds what a browser requests.
    assert_eq!(client.effective_max_age(Some(9999)), Some(300));
    assert_eq!(client.effective_max_age(None), Some(300));
}

#[tokio::test]
async fn query_of_the_authorization_endpoint_is_kept() {
    let server = LyingServer::start().await;
    let mut document = server.document();
    let address = format!("{}/authorize?tenant=a%26b", server.base());
    document
        .as_object_mut()
        .unwrap()
        .insert("authorization_endpoint".to_owned(), json!(address));
    server.reply(
        "/.well-known/openid-configuration",
        Reply::json(200, &document),
    );
    let gateway = Gateway::of(&server);
    let url = gateway
        .client()
        .authorization_url(&authorization_request())
        .await
        .unwrap();
    let mut all = BASIC.to_vec();
    all.push(("tenant", "a&b"));
    assert_eq!(params(url.query().unwrap()), expected(&all));
}

#[tokio::test]
async fn provider_without_id_tokens_receives_no_nonce() {
    let server = LyingServer::start().await;
    let gateway = Gateway::with(oauth2_provider(&server.base()));
    let url = gateway
        .client()
        .authorization_url(&authorization_request())
        .await
        .unwrap();
    assert!(!params(url.query().unwrap()).contains_key("nonce"));
    assert_eq!(server.discoveries(), 0);
}

#[tokio::test]
async fn request_is_pushed_where_that_is_asked_for() {
    let server = LyingServer::start().await;
    server.reply(
        "/par",
        Reply::json(201, &json!({"request_uri": "urn:x:1", "expires_in": 60})),
    );
    let pushed = [("client_id", "portcullis"), ("request_uri", "urn:x:1")];
    for (par, is_required, is_pushed) in [
        (Par::Auto, false, false),
        (Par::Auto, true, true),
        (Par::Always, false, true),
        (Par::Never, true, false),
    ] {
        let mut document = server.document();
        let name = "require_pushed_authorization_requests".to_owned();
        document
            .as_object_mut()
            .unwrap()
            .insert(name, json!(is_required));
        server.reply(
            "/.well-known/openid-configuration",
            Reply::json(200, &document),
        );
        let mut settings = provider(&server.base());
        settings.par = par;
        let gateway = Gateway::with(settings);
        let url = gateway
            .client()
            .authorization_url(&authorization_request())
            .await
            .unwrap();
        let all: &[(&str, &str)] = if is_pushed { &pushed } else { &BASIC };
        assert_eq!(
            params(url.query().unwrap()),
            expected(all),
            "{par:?} {is_required}"
        );
    }
    let sent = server.received("/par");
    assert_eq!(sent.len(), 2);
    for request in sent {
        assert_eq!(params(&request.body), expected(&BASIC));
        assert!(
            request
                .head
                .contains("authorization: Basic cG9ydGN1bGxpczpzZWNyZXQ=\r\n")
        );
    }
}

/// Lies about a pushed request, and the fault that each is.
#[rustfmt::skip]
fn pushed_lies() -> Vec<(&'static str, Reply, F)> {
    let long = json!({"request_uri": "x".repeat(2049)});
    let uri = r#"{"request_uri":"a"}"#;
    vec![
        ("invalid_client", Reply::text(401, r#"{"error":"invalid_client"}"#), F::ClientRejected),
        ("invalid_request", Reply::text(400, r#"{"error":"invalid_request"}"#), F::RequestRejected),
        // It is no grant that was rejected.
        ("invalid_grant", Reply::text(400, r#"{"error":"invalid_grant"}"#), F::RequestRejected),
        ("500", Reply::text(500, ""), F::ServerFailed),
        ("302", Reply::Redirect("/".to_owned()), F::UnexpectedStatus),
        ("HTML", Reply::Content(201, "text/html", uri.into()), F::UnexpectedContentType),
        ("nothing", Reply::text(201, "{}"), F::ResponseMalformed),
        ("a number", Reply::text(201, r#"{"request_uri":1}"#), F::ResponseMalformed),
        ("a space", Reply::text(201, r#"{"request_uri":"a b"}"#), F::ResponseMalformed),
        ("a long one", Reply::json(201, &long), F::ResponseMalformed),
        ("a duplicate", Reply::text(201, r#"{"request_uri":"a","request_uri":"b"}"#), F::ResponseMalformed),
    ]
}

#[tokio::test]
async fn lies_about_a_pushed_request_are_classified() {
    let server = LyingServer::start().await;
    for (name, reply, fault) in pushed_lies() {
        server.reply("/par", reply);
        let mut settings = provider(&server.base());
        settings.par = Par::Always;
        let gateway = Gateway::with(settings);
        let request = authorization_request();
        let result = gateway.client().authorization_url(&request).await;
        assert_eq!(result.err(), Some(fault), "{name}");
    }
    let gateway = Gateway::with(Provider {
        par: Par::Always,
        ..oauth2_provider(&server.base())
    });
    let request = authorization_request();
    let result = gateway.client().authorization_url(&request).await;
    assert_eq!(result.err(), Some(F::EndpointMissing));
}

#[tokio::test]
async fn client_authenticates_as_configured() {
    let server = LyingServer::start().await;
    server.reply(
        "/token",
        Reply::text(200, r#"{"access_token":"a","token_type":"Bearer"}"#),
    );
    let grant = [
        ("grant_type", "authorization_code"),
        ("code", "the code"),
        ("redirect_uri", "https://app.example/cb"),
        ("code_verifier", "the-verifier"),
    ];
    for (client_auth, header, added) in [
        (
            ClientAuthentication::SecretBasic("p@ss word".into()),
            Some("authorization: Basic cG9ydGN1bGxpczpwJTQwc3Mrd29yZA==\r\n"),
            &[] as &[(&str, &str)],
        ),
        (
            ClientAuthentication::SecretPost("p@ss word".into()),
            None,
            &[("client_id", "portcullis"), ("client_secret", "p@ss word")],
        ),
        (
            ClientAuthentication::None,
            None,
            &[("client_id", "portcullis")],
        ),
    ] {
        let gateway = Gateway::with(Provider {
            client_auth,
            ..oauth2_provider(&server.base())
        });
        let redirect_uri = "https://app.example/cb";
        gateway
            .client()
            .redeem("the code", "the-verifier", redirect_uri)
            .await
            .unwrap();
        let request = server.received("/token").pop().unwrap();
        let all: Vec<(&str, &str)> = grant.iter().chain(added).copied().collect();
        assert_eq!(params(&request.body), expected(&all));
        assert_eq!(request.head.contains("authorization:"), header.is_some());
        assert!(
            header.is_none_or(|header| request.head.contains(header)),
            "{}",
            request.head
        );
    }
}

#[tokio::test]
async fn refresh_token_is_revoked() {
    let server = LyingServer::start().await;
    let gateway = Gateway::of(&server);
    let token = SecretString::from("the-token");
    for (reply, fault) in [
        (Reply::text(200, ""), None),
        (Reply::Content(204, "text/plain", Vec::new()), None),
        (
            Reply::text(400, r#"{"error":"unsupported_token_type"}"#),
            Some(CallbackFault::RequestRejected),
        ),
        (Reply::text(503, ""), Some(CallbackFault::ServerFailed)),
        (
            Reply::Redirect("/".to_owned()),
            Some(CallbackFault::UnexpectedStatus),
        ),
    ] {
        server.reply("/revoke", reply);
        assert_eq!(gateway.client().revoke(&token).await.err(), fault);
    }
    let request = server.received("/revoke").pop().unwrap();
    let all = [("token", "the-token"), ("token_type_hint", "refresh_token")];
    assert_eq!(params(&request.body), expected(&all));
}
