//! Tokens of a provider for the upstream of a front proxy.

use serde_json::json;

use super::provider_tokens::Fixture;
use crate::support::calls::Dialect;
use crate::support::config::Config;
use crate::support::ext_authz::Query;

fn configure(config: Config) -> Config {
    let config = config.forward_auth();
    config.set("/forward_auth/return_credentials", json!(true))
}

/// As on direct requests, the client's own header of that name is dropped, whether or not there is a token.
#[test]
fn upstream_of_a_front_proxy_receives_the_token_of_the_session() {
    let fixture = Fixture::memory(configure);
    let (cookie, gateway) = (fixture.sign_in(), &fixture.gateways[0]);
    for dialect in Dialect::ALL {
        for (call, name, begins_with) in [
            (
                dialect.get("/bearer/a").cookie(&cookie),
                "authorization",
                "Bearer ",
            ),
            (dialect.get("/bearer/a"), "authorization", ""),
            (
                dialect
                    .get("/bearer/a")
                    .header("Authorization", "Basic YTpi"),
                "authorization",
                "",
            ),
            (dialect.get("/id/a").cookie(&cookie), "x-id-token", "ey"),
            (dialect.get("/id/a"), "x-id-token", ""),
            (
                dialect.get("/id/a").header("X-Id-Token", "forged"),
                "x-id-token",
                "",
            ),
        ] {
            let response = gateway.query(&call);
            response.assert_allowed(dialect);
            let values = response.all(name);
            assert_eq!(values.len(), 1, "{name}: {response:?}");
            let is_expected = match begins_with {
                "" => values[0].is_empty(),
                begins => values[0].starts_with(begins),
            };
            assert!(is_expected, "{name}: {values:?}");
        }
        // A route without a token.
        let response = gateway.query(&dialect.get("/private/a").cookie(&cookie));
        assert_eq!(response.assert_allowed(dialect).header("x-id-token"), None);
    }
}

#[test]
fn envoy_sets_or_removes_the_token_of_the_session() {
    let fixture = Fixture::memory(configure);
    let cookie = fixture.sign_in();
    let address = fixture.gateways[0].config.authorizer();
    for (path, name, begins_with) in [
        ("/bearer/a", "authorization", "Bearer "),
        ("/id/a", "x-id-token", "ey"),
    ] {
        let forged = Query::get(path).header(name, "Basic YTpi");
        let verdict = forged.clone().header("cookie", &cookie).send(address);
        assert!(verdict.is_allowed(), "{verdict:?}");
        assert!(verdict.set[name].starts_with(begins_with), "{verdict:?}");
        assert!(!verdict.removes(name), "{verdict:?}");
        let verdict = forged.send(address);
        assert!(verdict.is_allowed(), "{verdict:?}");
        assert!(
            !verdict.set.contains_key(name) && verdict.removes(name),
            "{verdict:?}"
        );
    }
    let respelled = Query::get("/id/a").header("x.id.token", "forged");
    let verdict = respelled.send(address);
    assert!(verdict.removes("x.id.token"), "{verdict:?}");
}
