//! Introspection at a real authorization server, npm `oidc-provider`: discovered, asked, and believed when
//! it revokes a token.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::Url;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, run};
use crate::support::npm_provider::NpmProvider;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

const CLIENT: &str = "portcullis";
const SECRET: &str = "a-secret-for-this-example-only-0123456789";

/// Starts the server, whose client also gets tokens for itself.
fn start_server() -> Option<NpmProvider> {
    let grants = ["authorization_code", "refresh_token", "client_credentials"];
    NpmProvider::start_for(&[1], json!({ "grant_types": grants }))
}

/// Sends a form to one of the server's endpoints.
fn post(server: &NpmProvider, path: &str, form: &str) -> Response {
    let issuer = Url::parse(&server.issuer()).unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], issuer.port().unwrap()).into();
    let basic = STANDARD.encode(format!("{CLIENT}:{SECRET}"));
    Request::post(path)
        .header("Host", &format!("localhost:{}", address.port()))
        .header("Authorization", &format!("Basic {basic}"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form)
        .send(address)
}

fn config(server: &NpmProvider, secret: &str) -> Config {
    let entry = json!({ "name": "example", "issuer": server.issuer(), "client_id": CLIENT,
        "client_secret": secret, "claims": { "user": "client_id" }, "cached_for": "1s" });
    Config::new(Upstream::start().address).set("/tokens/introspection", json!([entry]))
}

#[test]
fn token_of_a_real_server_is_accepted_until_the_server_revokes_it() {
    let Some(server) = start_server() else {
        return;
    };
    let issued = post(&server, "/token", "grant_type=client_credentials");
    let issued: Value = issued.assert_ok().json();
    let token = issued["access_token"].as_str().unwrap();
    assert!(!token.contains('.'), "an opaque token: {token}");
    let gateway = Gateway::start(config(&server, SECRET));
    let request = Request::get("/private/a").bearer(token);
    let echo = gateway.request(&request).echo();
    assert_eq!(
        echo.header("x-user-id").as_deref(),
        Some("example:portcullis")
    );
    let unknown = Request::get("/private/a").bearer("unknown");
    gateway
        .request(&unknown)
        .assert_refused(401, "TOKEN_INVALID");
    let revoked = post(&server, "/token/revocation", &format!("token={token}"));
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    eventually("the revocation is noticed", || {
        let response = gateway.request(&request);
        (response.status == 401).then(|| response.assert_refused(401, "TOKEN_INVALID").status)
    });
}

#[test]
fn real_server_that_refuses_the_client_says_nothing_of_the_token() {
    let Some(server) = start_server() else {
        return;
    };
    let wrong = config(&server, "not-the-secret");
    let check = |config: &Config| {
        let file = config.write();
        run(&["check", "--connect", "--config", file.to_str().unwrap()])
    };
    let (status, out, err) = check(&wrong);
    assert_eq!(status, 1, "{out}{err}");
    let refused = "introspection example: the endpoint does not accept the client's authentication";
    assert!(err.contains(refused), "{err}");
    let (status, out, err) = check(&config(&server, SECRET));
    assert_eq!(status, 0, "{out}{err}");
    assert!(
        out.contains("introspection example: a made-up token is not active"),
        "{out}"
    );
    let gateway = Gateway::start(wrong);
    gateway
        .request(&Request::get("/private/a").bearer("a-token"))
        .assert_refused(503, "PROVIDER_UNAVAILABLE");
    assert!(
        gateway
            .wait_for_log("could not be introspected")
            .contains("example")
    );
    assert!(!gateway.logs().contains("not-the-secret"));
}
