//! Authentication of the gateway at a provider by a private key.

use serde_json::json;

use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::provider::Provider;
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

const CORP: &str = "/identity/providers/corp";

fn key_of(algorithm: &str) -> &'static str {
    match algorithm {
        "ES256" => include_str!("../../../src/auth/token/testdata/ec.pem"),
        "EdDSA" => include_str!("../../../src/auth/token/testdata/ed.pem"),
        _ => include_str!("../../../src/auth/token/testdata/rsa.pem"),
    }
}

#[test]
fn provider_verifies_assertions_by_the_published_key() {
    for algorithm in ["ES256", "RS256", "PS256", "EdDSA"] {
        let (provider, upstream) = (Provider::start(), Upstream::start());
        let config = provider.configure(Config::new(upstream.address));
        let file = config.write_beside("client.pem", key_of(algorithm));
        let key = json!({ "algorithm": algorithm, "id": "client-1", "key_file": file });
        let config = config
            .set(&format!("{CORP}/client_secret"), json!(null))
            .set(&format!("{CORP}/client_auth"), json!("private_key_jwt"))
            .set(&format!("{CORP}/client_key"), key);
        let gateway = Gateway::start(config);
        let published = gateway.get("/api/v1/auth/jwks/corp");
        assert_eq!(published.status, 200, "{}", published.text());
        let keys = published.json();
        assert_eq!(keys["keys"][0]["kid"], "client-1");
        assert_eq!(keys["keys"][0]["alg"], algorithm);
        assert!(keys["keys"][0].get("d").is_none());
        provider.set_client_keys(keys);
        let page = Visitor::new().open(&provider.start_url(&gateway, "/private/a"));
        assert_eq!(page.response.status, 200, "{algorithm} {page:?}");
    }
}

#[test]
fn there_is_no_key_set_without_a_client_key() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = Gateway::start(provider.configure(Config::new(upstream.address)));
    for path in ["corp", "other", "corp/x"] {
        let request = Request::get(&format!("/api/v1/auth/jwks/{path}"));
        assert_eq!(gateway.request(&request).status, 404, "{path}");
    }
}
