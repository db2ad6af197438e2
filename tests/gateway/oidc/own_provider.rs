//! The provider of the tests: what it checks, and that it can be made to do everything wrong.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::provider::{
    CLIENT_ID, CLIENT_SECRET, Endpoint, Provider, Signature, SigningKey, Transfer, User,
};
use crate::support::tokens;
use crate::support::upstream::Upstream;
use crate::support::visitor::{Visit, Visitor};

const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters-0123";
const STATE: &str = "a-state-of-22-characters-and-more";

/// A client of the provider: an upstream that reports what it saw of the callback.
struct Client {
    provider: Provider,
    upstream: Upstream,
    visitor: Visitor,
}

impl Client {
    fn start() -> Client {
        Client {
            provider: Provider::start(),
            upstream: Upstream::start(),
            visitor: Visitor::new(),
        }
    }

    fn redirect_uri(&self) -> String {
        format!("http://{}/callback", self.upstream.address)
    }

    fn authorize(&mut self, more: &[(&str, &str)]) -> Visit {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let redirect_uri = self.redirect_uri();
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", &redirect_uri),
            ("scope", "openid email"),
            ("state", STATE),
            ("nonce", "a-nonce-of-22-characters-and-more"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        parameters.extend(more);
        let issuer = self.provider.issuer.clone();
        let url = Url::parse_with_params(&format!("{issuer}/authorize"), parameters).unwrap();
        self.visitor.open(url.as_str())
    }

    fn code(&mut self, more: &[(&str, &str)]) -> String {
        let visit = self.authorize(more);
        parameter(&visit.url, "code").unwrap()
    }

    fn token(&self, fields: &[(&str, &str)]) -> Response {
        self.call("/token", fields)
    }

    fn call(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let (id, secret): (String, String) = (encode(CLIENT_ID), encode(CLIENT_SECRET));
        let basic = STANDARD.encode(format!("{id}:{secret}"));
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        let body = body.extend_pairs(fields).finish();
        Request::post(path)
            .header("Authorization", &format!("Basic {basic}"))
            .body(body)
            .send(self.provider.address)
    }

    fn redeem(&self, code: &str, verifier: &str) -> Response {
        self.token(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri()),
            ("code_verifier", verifier),
        ])
    }
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs();
    pairs
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}

fn get(provider: &Provider, path: &str) -> Response {
    Request::get(path).send(provider.address)
}

#[test]
fn code_is_redeemed_once_by_its_verifier() {
    let mut client = Client::start();
    let code = client.code(&[]);
    let wrong = client.redeem(&code, &VERIFIER.replace('3', "4"));
    assert_eq!(
        (wrong.status, &wrong.json()["error"]),
        (400, &json!("invalid_grant"))
    );
    let code = client.code(&[]);
    let tokens = client.redeem(&code, VERIFIER).json();
    let again = client.redeem(&code, VERIFIER);
    assert_eq!(again.json()["error"], "invalid_grant");
    let claims = tokens::claims(tokens["id_token"].as_str().unwrap());
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&json!("ann"), &json!(CLIENT_ID))
    );
    assert_eq!(
        claims["sid"].as_str(),
        client.provider.latest_sid().as_deref()
    );
    assert_eq!(client.provider.exchanges("authorization_code"), 3);
    let access_token = tokens["access_token"].as_str().unwrap();
    let userinfo = Request::get("/userinfo")
        .bearer(access_token)
        .send(client.provider.address);
    assert_eq!(userinfo.json()["email"], "ann@example.com");
    let secrets = client.provider.secrets();
    for secret in [STATE, VERIFIER, CLIENT_SECRET, access_token, &code] {
        assert!(secrets.iter().any(|known| known == secret), "{secret}");
    }
}

#[test]
fn refresh_tokens_are_rotated_and_revoked() {
    let mut client = Client::start();
    let code = client.code(&[]);
    let first = client.redeem(&code, VERIFIER).json();
    let refresh = |token: &Value| {
        client.token(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", token.as_str().unwrap()),
        ])
    };
    let roles = User::new("ann").claim("groups", json!(["staff"]));
    client
        .provider
        .set_user(roles.userinfo_claim("more", json!(1)));
    client.provider.set_expires_in(7);
    client
        .provider
        .set_authentication_age(Duration::from_secs(60));
    let second = refresh(&first["refresh_token"]).json();
    let claims = tokens::claims(second["id_token"].as_str().unwrap());
    assert_eq!(
        (&claims["groups"], &second["expires_in"]),
        (&json!(["staff"]), &json!(7))
    );
    assert_eq!(
        refresh(&first["refresh_token"]).json()["error"],
        "invalid_grant"
    );
    client.provider.set_rotation(false);
    let third = refresh(&second["refresh_token"]).json();
    assert_eq!(third["refresh_token"], Value::Null);
    refresh(&second["refresh_token"]).assert_ok();
    client.provider.revoke_grants();
    assert_eq!(refresh(&second["refresh_token"]).status, 400);
    client.call("/revoke", &[("token", "unknown")]).assert_ok();
    assert_eq!(client.provider.exchanges("refresh_token"), 5);
}

#[test]
fn browser_is_sent_back_in_every_mode() {
    let mut client = Client::start();
    client.provider.set_sid(None);
    let query = client.authorize(&[]);
    assert_eq!(
        parameter(&query.url, "iss"),
        Some(client.provider.issuer.clone())
    );
    assert_eq!(parameter(&query.url, "state").as_deref(), Some(STATE));
    let posted = client.authorize(&[("response_mode", "form_post")]);
    assert_eq!(posted.visits("/callback"), 1);
    assert!(
        posted.response.echo().0["body"]
            .as_str()
            .unwrap()
            .contains("code=")
    );
    let signed = client.authorize(&[("response_mode", "jwt")]);
    let token = parameter(&signed.url, "response").unwrap();
    assert_eq!(tokens::claims(&token)["state"], STATE);
    client
        .provider
        .vary_response_token(|token| token.claims["iss"] = json!("other"));
    let signed = client.authorize(&[("response_mode", "jwt")]);
    let token = parameter(&signed.url, "response").unwrap();
    assert_eq!(tokens::claims(&token)["iss"], "other");
    client.provider.vary_callback(|callback| {
        assert!(callback.get("code").is_some());
        callback.refuse("access_denied");
        callback.add("state", "twice");
        callback.response_mode = "query".to_owned();
    });
    let refused = client.authorize(&[]);
    assert_eq!(
        parameter(&refused.url, "error").as_deref(),
        Some("access_denied")
    );
    assert_eq!(parameter(&refused.url, "code"), None);
    client
        .provider
        .vary_callback(|callback| callback.response_mode = "fragment".to_owned());
    assert!(
        client
            .authorize(&[])
            .url
            .fragment()
            .unwrap()
            .contains("code=")
    );
    let without = client.authorize(&[("client_id", "other")]);
    assert_eq!(without.response.status, 400);
}

#[test]
fn pushed_requests_are_used_once() {
    let mut client = Client::start();
    let redirect_uri = client.redirect_uri();
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let pushed = client.call(
        "/par",
        &[
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", &redirect_uri),
            ("state", STATE),
            ("nonce", "a-nonce-of-22-characters-and-more"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ],
    );
    assert_eq!(pushed.status, 201);
    let pushed = pushed.json();
    let parameters = [("request_uri", pushed["request_uri"].as_str().unwrap())];
    let authorize = format!("{}/authorize", client.provider.issuer);
    let url = Url::parse_with_params(&authorize, parameters).unwrap();
    let visit = client.visitor.open(url.as_str());
    let code = parameter(&visit.url, "code").unwrap();
    client.redeem(&code, VERIFIER).assert_ok();
    assert_eq!(client.visitor.open(url.as_str()).response.status, 400);
    let received = client.provider.await_received(Endpoint::Par, 1);
    assert_eq!(received[0].parameter("state").as_deref(), Some(STATE));
    let authorized = client.provider.received(Endpoint::Authorization);
    assert!(received[0].at <= authorized[0].at);
}

#[test]
fn clients_authenticate_with_signed_assertions() {
    let mut client = Client::start();
    let key = SigningKey::generate("PS256", "own");
    client
        .provider
        .set_client_keys(json!({ "keys": [key.jwk()] }));
    let code = client.code(&[]);
    let now = tokens::now();
    let claims = json!({ "iss": CLIENT_ID, "sub": CLIENT_ID, "aud": client.provider.issuer,
        "jti": "an-id-that-is-used-once", "iat": now, "exp": now + 60 });
    let redeem = |claims: &Value, code: &str| {
        let mut token = crate::support::provider::Jwt::new(&key, claims.clone());
        token.header["kid"] = json!("own");
        let redirect_uri = client.redirect_uri();
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", CLIENT_ID),
            ("client_assertion", &token.encode()),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("code", code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", VERIFIER),
        ];
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        let body = body.extend_pairs(fields).finish();
        Request::post("/token")
            .body(body)
            .send(client.provider.address)
    };
    for (name, value) in [
        ("aud", json!("other")),
        ("aud", json!([client.provider.issuer, "other"])),
        ("exp", json!(now + 300)),
        ("sub", json!("other")),
        ("jti", json!("short")),
    ] {
        let mut wrong = claims.clone();
        wrong[name] = value;
        assert_eq!(redeem(&wrong, &code).status, 401, "{name}");
    }
    redeem(&claims, &code).assert_ok();
    assert_eq!(redeem(&claims, &code).status, 401, "an ID is used once");
}

#[test]
fn tokens_are_signed_by_every_key_and_wrongly() {
    let mut client = Client::start();
    for algorithm in ["RS256", "PS256", "ES384", "EdDSA"] {
        let key = client.provider.rotate_key(algorithm);
        let published = get(&client.provider, "/keys").json();
        assert_eq!(published, json!({ "keys": [key.jwk()] }));
        let code = client.code(&[]);
        let tokens = client.redeem(&code, VERIFIER).json();
        let token = tokens["id_token"].as_str().unwrap();
        let jwk = serde_json::from_value(key.jwk()).unwrap();
        let public = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
        let mut rules = jsonwebtoken::Validation::new(algorithm.parse().unwrap());
        rules.set_audience(&[CLIENT_ID]);
        jsonwebtoken::decode::<Value>(token, &public, &rules).unwrap();
    }
    client.provider.add_key("ES256");
    let published = get(&client.provider, "/keys").json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 2);

    let other = SigningKey::generate("ES256", "other");
    client.provider.vary_id_token(move |token| {
        token.sign_with(&other);
        token.remove("nonce");
        token.duplicate("sub", &json!("root"));
        token.header_text = Some(r#"{"alg":"none","alg":"ES256"}"#.to_owned());
        token.respell = Some(|token| format!("{token}="));
    });
    let code = client.code(&[]);
    let token = client.redeem(&code, VERIFIER).json()["id_token"].clone();
    let parts: Vec<_> = token.as_str().unwrap().split('.').collect();
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let claims = String::from_utf8(claims).unwrap();
    assert!(claims.starts_with(r#"{"sub":"root","#), "{claims}");
    assert!(claims.contains(r#""sub":"ann""#) && !claims.contains("nonce"));
    assert!(parts[2].ends_with('='));
    let public = client.provider.key().public_bytes();
    client.provider.vary_id_token(move |token| {
        token.signature = Signature::Secret(public.clone());
    });
    let code = client.code(&[]);
    client.redeem(&code, VERIFIER).assert_ok();
    client
        .provider
        .vary_id_token(|token| token.signature = Signature::Bytes(Vec::new()));
    let code = client.code(&[]);
    let token = client.redeem(&code, VERIFIER).json()["id_token"].clone();
    assert!(token.as_str().unwrap().ends_with('.'));
}

#[test]
fn responses_are_varied_delayed_and_broken_off() {
    let provider = Provider::start();
    provider.vary_next(Endpoint::Discovery, |reply| {
        reply.remove("jwks_uri");
        reply.set("issuer", json!("https://other.example"));
        reply.duplicate("issuer", &json!("https://first.example"));
    });
    let text = get(&provider, "/.well-known/openid-configuration").text();
    assert!(
        text.starts_with(r#"{"issuer":"https://first.example","#),
        "{text}"
    );
    assert!(text.contains("other.example") && !text.contains("jwks_uri"));
    let right = get(&provider, "/.well-known/openid-configuration").json();
    assert_eq!(right["issuer"], json!(provider.issuer));

    provider.vary_next(Endpoint::Token, |reply| {
        assert_eq!(reply.header("content-type"), Some("application/json"));
        reply.refuse(400, "invalid_grant");
    });
    let refused = Request::post("/token").body("").send(provider.address);
    assert_eq!(refused.json(), json!({ "error": "invalid_grant" }));

    provider.vary(Endpoint::Keys, |reply| {
        reply.delay = Duration::from_millis(50);
        reply.body = b"x".repeat(10);
        reply.transfer = Transfer::Dripping(Duration::from_millis(5));
    });
    let start = Instant::now();
    assert_eq!(get(&provider, "/keys").body.len(), 10);
    assert!(start.elapsed() > Duration::from_millis(90));
    for transfer in [Transfer::CutOff, Transfer::Reset] {
        provider.vary(Endpoint::Keys, move |reply| reply.transfer = transfer);
        let broken = Request::get("/keys").try_send(provider.address);
        let kind = broken.unwrap_err().kind();
        let expected = match transfer {
            Transfer::Reset => std::io::ErrorKind::ConnectionReset,
            _ => std::io::ErrorKind::UnexpectedEof,
        };
        assert_eq!(kind, expected, "{transfer:?}");
    }
    provider.vary(Endpoint::Keys, |reply| reply.transfer = Transfer::Endless);
    let mut client = crate::support::client::Client::connect(provider.address);
    client.send(Request::get("/keys").to_bytes());
    for _ in 0..100 {
        client.read_until("\"kty\"");
    }
    provider.vary(Endpoint::Keys, |reply| reply.transfer = Transfer::Silent);
    client = crate::support::client::Client::connect(provider.address);
    client.send(Request::get("/keys").to_bytes());
    provider.await_received(Endpoint::Keys, 5);

    provider.stop();
    assert!(client.closes_within(Duration::from_secs(5)));
    assert!(Request::get("/keys").try_send(provider.address).is_err());
    provider.behave();
    provider.restart();
    get(&provider, "/keys").assert_ok();
    assert_eq!(provider.received(Endpoint::Keys).len(), 6);
    assert_eq!(get(&provider, "/other").status, 404);
}

#[test]
fn visitor_trusts_the_certificate_of_the_provider() {
    let provider = Provider::start_tls();
    let mut visitor = Visitor::trusting(provider.certificate().unwrap());
    let page = visitor.open(&format!("{}/keys", provider.issuer));
    page.response.assert_ok();
    let end = format!("{}/end-session", provider.issuer);
    assert!(visitor.open(&end).response.text().contains("Ended"));
}

#[test]
fn visitor_keeps_cookies_for_their_place() {
    let upstream = Upstream::start();
    let mut visitor = Visitor::new();
    let at = |path: &str| format!("http://{}{path}", upstream.address);
    for cookie in [
        "flow=a;Path=/in/here;HttpOnly",
        "portcullis=b;Path=/;SameSite=Lax",
        "safe=c;Path=/;Secure",
    ] {
        visitor.open(&at(&format!("/reply?Set-Cookie={cookie}")));
    }
    let sent =
        |visitor: &Visitor, path: &str| visitor.cookie_header(&Url::parse(&at(path)).unwrap());
    assert_eq!(sent(&visitor, "/in/here/x"), "flow=a; portcullis=b");
    assert_eq!(sent(&visitor, "/in/hereabouts"), "portcullis=b");
    assert_eq!(visitor.session_cookie().as_deref(), Some("portcullis=b"));
    assert!(visitor.cookies("flow")[0].contains("HttpOnly"));
    let moved = at(&format!("/status-303?Location={}", at("/in/here/page")));
    let page = visitor.open(&moved);
    assert_eq!(
        page.response.echo().header("cookie").as_deref(),
        Some("flow=a; portcullis=b")
    );
    assert_eq!(page.hop("/in").unwrap().path(), "/in/here/page");
    let stopped = visitor.follow(&moved, |next| next.path().starts_with("/in"));
    assert_eq!(stopped.response.status, 303);
    visitor.open(&at("/reply?Set-Cookie=portcullis=;Path=/;Max-Age=0"));
    assert_eq!(visitor.session_cookie(), None);
    visitor.lose_cookies("flow");
    assert_eq!(sent(&visitor, "/in/here"), "");
}

#[test]
fn provider_is_configured_at_a_gateway() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let config = provider.configure(Config::new(upstream.address));
    let file = provider.configure_github(config).file;
    let providers = &file["identity"]["providers"];
    assert_eq!(providers["corp"]["issuer"], json!(provider.issuer));
    assert_eq!(providers["hub"]["kind"], "github");
    let gateway = Gateway::start(Config::new(upstream.address));
    let start = provider.start_url(&gateway, "/private/a?b=c");
    assert!(start.ends_with("/auth/start/corp?return_to=%2Fprivate%2Fa%3Fb%3Dc"));
    // A gateway without providers does not have the endpoint.
    let token = provider.logout_token(&json!({ "sid": "unknown" })).encode();
    let response = provider.send_logout(&gateway, &token);
    response.assert_refused(404, "ROUTE_NOT_FOUND");
    assert!(provider.secrets().contains(&token));
}
