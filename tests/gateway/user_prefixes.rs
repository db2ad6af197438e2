//! User IDs of sources without prefix: none may read like one of another source.

use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::issuer::Issuer;
use crate::support::upstream::Upstream;

/// A provider whose users have the prefix `corp:`.
fn with_provider(config: Config, issuer: &str) -> Config {
    let corp = json!({
        "issuer": issuer, "client_id": "portcullis", "client_auth": "none", "allow": "anyone",
    });
    config.set("/identity/providers/corp", corp)
}

#[test]
fn token_of_an_issuer_without_prefix() {
    let upstream = Upstream::start();
    let issuer = Issuer::new();
    for (provider, reserved) in [
        ("https://corp.example", true),
        // Users of the same issuer are the same users.
        ("https://id.example", false),
    ] {
        let config = issuer.trusted_in(Config::new(upstream.address));
        let gateway = Gateway::start(with_provider(config, provider));
        for (number, (user, is_reserved)) in
            [("corp:1", reserved), ("corp", false), ("Corp:1", false)]
                .into_iter()
                .enumerate()
        {
            let token = issuer.bearer(user, &number.to_string());
            let request = Request::get("/private/a").header("Authorization", &token);
            let response = gateway.request(&request);
            match is_reserved {
                true => drop(response.assert_refused(401, "TOKEN_INVALID")),
                false => {
                    let seen = response.echo().header("x-user-id");
                    assert_eq!(seen.as_deref(), Some(user));
                }
            }
        }
    }
}

#[test]
fn user_of_a_backend() {
    let upstream = Upstream::start();
    for (user, status) in [("corp:1", 401), ("corp", 200)] {
        let login = format!("POST http://{}/login/reply?X-Id={user}", upstream.address);
        let backend: Value = json!({ "login": login, "user_id": "header:X-Id" });
        let config = Config::new(upstream.address).set("/identity", json!({ "upstream": backend }));
        let gateway = Gateway::start(with_provider(config, "https://corp.example"));
        let body = json!({ "email": "ann@example.com", "password": "secret-of-ann" });
        let response = gateway.request(&Request::post("/api/v1/auth/login").json(&body));
        assert_eq!(response.status, status, "{user}: {}", response.text());
        if status == 401 {
            response.assert_refused(401, "INVALID_CREDENTIALS");
        }
    }
}
