use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::json;
use tokio::net::TcpSocket;

use super::ProviderOutcome as O;
use super::*;
use crate::identity::oidc::RefreshOutcome;
use crate::rejection::{CallbackFault, CallbackFault as F, Refusal};

async fn redeem(gateway: &Gateway) -> Result<TokenResponse, CallbackFault> {
    gateway
        .client()
        .redeem("the-code", "the-verifier", "https://app.example/cb")
        .await
}

fn oauth2(server: &LyingServer) -> Gateway {
    let mut settings = oauth2_provider(&server.base());
    settings.timeout = Duration::from_millis(300);
    Gateway::with(settings)
}

/// Lies of a token endpoint: its reply, and the fault and the outcome that it is.
#[rustfmt::skip]
fn token_lies(elsewhere: &LyingServer) -> Vec<(&'static str, Reply, F, O)> {
    let tokens = r#"{"access_token":"a","token_type":"Bearer"}"#;
    let twice = r#"{"access_token":"a","access_token":"b","token_type":"Bearer"}"#;
    let nested = format!("{}1", "[".repeat(100_000));
    let form = "application/x-www-form-urlencoded";
    let redirect = Reply::Redirect(format!("{}/token", elsewhere.base()));
    vec![
        ("invalid_grant", Reply::text(400, r#"{"error":"invalid_grant"}"#), F::GrantRejected, O::Refused),
        ("invalid_client", Reply::text(401, r#"{"error":"invalid_client"}"#), F::ClientRejected, O::Refused),
        ("404", Reply::text(404, ""), F::RequestRejected, O::Refused),
        ("429", Reply::text(429, r#"{"error":"invalid_grant"}"#), F::TooManyRequests, O::Error),
        ("500", Reply::text(500, r#"{"error":"invalid_grant"}"#), F::ServerFailed, O::Error),
        ("503", Reply::text(503, tokens), F::ServerFailed, O::Error),
        ("a redirect", redirect, F::UnexpectedStatus, O::Error),
        ("HTML", Reply::Content(200, "text/html", tokens.into()), F::UnexpectedContentType, O::Error),
        ("a form", Reply::Content(200, form, b"access_token=a".to_vec()), F::UnexpectedContentType, O::Error),
        ("a duplicate", Reply::text(200, twice), F::ResponseMalformed, O::Error),
        ("huge nesting", Reply::text(200, &nested), F::ResponseMalformed, O::Error),
        ("2 MiB", Reply::text(200, &format!("{}{tokens}", " ".repeat(2 << 20))), F::ResponseTooLarge, O::Error),
        ("endless", Reply::Endless, F::ResponseTooLarge, O::Error),
        ("a slow drip", Reply::Drip, F::TimedOut, O::Timeout),
        ("silence", Reply::Silence, F::TimedOut, O::Timeout),
        ("a reset", Reply::Reset, F::ConnectionLost, O::Error),
        ("not HTTP", Reply::Garbage, F::ConnectionLost, O::Error),
    ]
}

#[tokio::test]
async fn lies_of_the_token_endpoint_are_classified_and_the_code_is_sent_once() {
    let server = LyingServer::start().await;
    let elsewhere = LyingServer::start().await;
    for (name, reply, fault, outcome) in token_lies(&elsewhere) {
        server.reply("/token", reply);
        let before = server.received("/token").len();
        let gateway = match fault {
            F::TimedOut => oauth2(&server),
            _ => Gateway::with(oauth2_provider(&server.base())),
        };
        assert_eq!(redeem(&gateway).await.err(), Some(fault), "{name}");
        assert_eq!(
            gateway.requests(ProviderEndpoint::Token, outcome),
            1,
            "{name}"
        );
        let is_up = fault.refusal() != Refusal::ProviderUnavailable;
        assert_eq!(gateway.up(), i64::from(is_up), "{name}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let after = server.received("/token").len();
        assert_eq!(after, before + 1, "{name}: sent again");
    }
    let redirected = elsewhere.received("/token");
    assert!(redirected.is_empty(), "a redirect was followed");
}

#[tokio::test]
async fn provider_that_does_not_listen_is_unreachable() {
    // Bound, so that no other process takes the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let gateway = Gateway::with(oauth2_provider(&format!("http://{address}")));
    assert_eq!(redeem(&gateway).await.err(), Some(F::Unreachable));
    assert_eq!(gateway.up(), 0);
}

#[tokio::test]
async fn provider_with_id_tokens_must_send_one() {
    let server = LyingServer::start().await;
    let gateway = Gateway::of(&server);
    server.reply(
        "/token",
        Reply::text(200, r#"{"access_token":"a","token_type":"Bearer"}"#),
    );
    assert_eq!(
        redeem(&gateway).await.err(),
        Some(CallbackFault::IdTokenMissing)
    );
    // A refresh need not return one.
    let refreshed = gateway.client().refresh(&SecretString::from("r")).await;
    let RefreshOutcome::Used { successor, tokens } = refreshed else {
        panic!("{refreshed:?}");
    };
    assert!(successor.is_none() && tokens.unwrap().id_token.is_none());
}

#[tokio::test]
async fn repeated_code_is_not_sent_again() {
    let server = LyingServer::start().await;
    server.reply(
        "/token",
        Reply::text(200, r#"{"access_token":"a","token_type":"Bearer"}"#),
    );
    let gateway = oauth2(&server);
    let results = join_all((0..20).map(|_| redeem(&gateway))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let refused = results.into_iter().filter_map(Result::err);
    assert!(refused.into_iter().all(|fault| fault == F::CodeRepeated));
    assert_eq!(server.received("/token").len(), 1);
}

#[tokio::test]
async fn calls_are_bounded_and_waiters_give_up_in_time() {
    let server = LyingServer::start().await;
    server.reply("/token", Reply::Silence);
    let gateway = oauth2(&server);
    let client = gateway.client();
    let codes: Vec<String> = (0..200).map(|code| code.to_string()).collect();
    let redeemed = codes
        .iter()
        .map(|code| client.redeem(code, "the-verifier", "https://app.example/cb"));
    let results = join_all(redeemed).await;
    // A slot that is freed at the deadline may be taken just before it.
    let sent = server.received("/token").len();
    assert!(sent < 200, "{sent}");
    let count = |fault| {
        let faults = results.iter().map(|result| result.as_ref().err().copied());
        faults.filter(|it| *it == Some(fault)).count()
    };
    let (late, waiting) = (count(F::TimedOut), count(F::TooManyCalls));
    assert!(waiting > 0);
    assert_eq!(late + waiting, 200);
    assert_eq!(gateway.requests(ProviderEndpoint::Token, O::Timeout), 200);
}

#[tokio::test]
async fn series_exist_from_the_start() {
    let server = LyingServer::start().await;
    let gateway = oauth2(&server);
    let text = gateway.metrics.render().unwrap();
    for series in [
        "portcullis_provider_requests_total{endpoint=\"revocation\",outcome=\"refused\",provider=\"corp\"} 0",
        "portcullis_provider_request_duration_seconds_count{endpoint=\"par\",provider=\"corp\"} 0",
        "portcullis_provider_up{provider=\"corp\"} 0",
        "portcullis_sign_ins_total{method=\"corp\",outcome=\"flow_invalid\"} 0",
    ] {
        assert!(text.contains(series), "{series}");
    }
    assert_eq!(gateway.client().status(), ProviderStatus::Unknown);
    assert_eq!(gateway.client().take_status_change(), None);
}

/// Lies of a userinfo endpoint, and the fault that each is.
#[rustfmt::skip]
fn userinfo_lies(elsewhere: &LyingServer) -> Vec<(&'static str, Reply, F)> {
    let claims = r#"{"sub":"1"}"#;
    let redirect = Reply::Redirect(format!("{}/userinfo", elsewhere.base()));
    vec![
        ("401", Reply::text(401, claims), F::UserinfoRejected),
        ("403", Reply::text(403, claims), F::UserinfoRejected),
        ("429", Reply::text(429, claims), F::TooManyRequests),
        ("502", Reply::text(502, claims), F::ProxyFailed),
        ("204", Reply::text(204, ""), F::UnexpectedStatus),
        ("a redirect", redirect, F::UnexpectedStatus),
        ("signed", Reply::Content(200, "application/jwt", b"a.b.c".to_vec()), F::UserinfoSigned),
        ("HTML", Reply::Content(200, "text/html", claims.into()), F::UnexpectedContentType),
        ("a list", Reply::text(200, "[]"), F::ResponseMalformed),
        ("a duplicate", Reply::text(200, r#"{"sub":"1","sub":"2"}"#), F::ResponseMalformed),
        ("no user", Reply::text(200, "{}"), F::UserIdUnusable),
        ("a reset", Reply::Reset, F::ConnectionLost),
        ("a slow drip", Reply::Drip, F::TimedOut),
    ]
}

#[tokio::test]
async fn lies_of_userinfo_are_classified() {
    let server = LyingServer::start().await;
    let elsewhere = LyingServer::start().await;
    for (name, reply, fault) in userinfo_lies(&elsewhere) {
        server.reply("/userinfo", reply);
        let gateway = oauth2(&server);
        let user = gateway.client().read_user(&"a".into(), None).await;
        assert_eq!(user.err(), Some(fault), "{name}");
    }
    let redirected = elsewhere.received("/userinfo");
    assert!(redirected.is_empty(), "a redirect was followed");
}

#[tokio::test]
async fn github_user_has_the_primary_email_and_groups() {
    let server = LyingServer::start().await;
    let mut settings = oauth2_provider(&server.base());
    settings.kind = crate::settings::provider::ProviderKind::GitHub;
    settings.endpoints.userinfo = url::Url::parse(&format!("{}/user", server.base())).ok();
    settings.claims.user = vec!["id".to_owned()];
    settings.claims.roles = vec!["groups".to_owned()];
    let gateway = Gateway::with(settings);
    let user =
        json!({"id": 42, "name": "Ann", "email": "public@example.com", "groups": ["org:EVIL"]});
    server.reply("/user", Reply::json(200, &user));
    let email = json!([{"email": "ann@example.com", "primary": true, "verified": true}]);
    server.reply("/user/emails", Reply::json(200, &email));
    // A page that never gets shorter: the list ends at a bound.
    let org = json!({"login": "ACME"});
    server.reply("/user/orgs", Reply::json(200, &json!(vec![org; 100])));
    let team = json!([{"slug": "ops", "organization": {"login": "ACME"}}]);
    server.reply("/user/teams", Reply::json(200, &team));
    let too_many = gateway
        .client()
        .read_user(&SecretString::from("a"), None)
        .await;
    assert_eq!(too_many.err(), Some(CallbackFault::ClaimMalformed));
    assert_eq!(server.received("/user/orgs").len(), 10);

    server.reply(
        "/user/orgs?per_page=100&page=2",
        Reply::json(200, &json!([{"login": "X"}])),
    );
    let user = gateway
        .client()
        .read_user(&SecretString::from("a"), None)
        .await
        .unwrap();
    assert_eq!(
        (user.user_id.as_str(), user.email.as_deref()),
        ("42", Some("ann@example.com"))
    );
    assert_eq!(user.roles, ["org:ACME", "org:X", "team:ACME/ops"]);
    let head = server.received("/user").pop().unwrap().head;
    assert!(head.contains("authorization: Bearer a\r\n"), "{head}");
    assert!(head.contains("user-agent: portcullis/"), "{head}");
}
