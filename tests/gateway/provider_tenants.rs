//! An issuer of several tenants: each has subjects of its own.

use serde_json::json;

use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::provider::{Endpoint, Provider};
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;

const TENANTS: [&str; 2] = [
    "11111111-1111-1111-1111-111111111111",
    "22222222-2222-2222-2222-222222222222",
];

/// A provider whose document names the template of all tenants.
fn config(provider: &Provider, upstream: &Upstream) -> Config {
    let template = format!("{}/{{tenantid}}", provider.issuer);
    let document = json!(template);
    let of_response = format!("{}/{}", provider.issuer, TENANTS[0]);
    provider.vary_callback(move |callback| callback.set("iss", &of_response));
    provider.vary(Endpoint::Discovery, move |reply| {
        reply.set("issuer", document.clone())
    });
    let discovery = format!("{}/.well-known/openid-configuration", provider.issuer);
    provider
        .configure(Config::new(upstream.address))
        .set("/identity/providers/corp/issuer", json!(template))
        .set("/identity/providers/corp/tenants", json!(TENANTS))
        .set(
            "/identity/providers/corp/endpoints",
            json!({ "discovery": discovery }),
        )
        .set("/identity/providers/corp/users", json!("database"))
}

/// Signs `ann` in with an ID token of a tenant; the status, and the user that an upstream sees.
fn sign_in(provider: &Provider, gateway: &Gateway, iss: &str, tid: &str) -> (u16, Option<String>) {
    let (iss, tid) = (format!("{}/{iss}", provider.issuer), tid.to_owned());
    provider.vary_id_token(move |token| {
        token.claims["iss"] = json!(iss);
        token.claims["tid"] = json!(tid);
    });
    let visit = Visitor::new().open(&provider.start_url(gateway, "/private/a"));
    let status = visit.response.status;
    let user = (status == 200).then(|| visit.response.echo().header("x-user-id").unwrap());
    (status, user)
}

#[test]
fn same_subject_of_two_tenants_is_two_users() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = Gateway::start(config(&provider, &upstream));
    let [one, other] = TENANTS;
    let (status, of_one) = sign_in(&provider, &gateway, one, one);
    assert_eq!(status, 200);
    let (status, of_other) = sign_in(&provider, &gateway, other, other);
    // Another row has the email, unless the provider does not verify it.
    assert!(matches!(status, 200 | 409), "{status}");
    assert_ne!(of_one, of_other);
    assert_eq!(sign_in(&provider, &gateway, one, one).1, of_one);
}

#[test]
fn issuer_and_tenant_must_be_of_one_configured_tenant() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = Gateway::start(config(&provider, &upstream));
    let [one, other] = TENANTS;
    let third = "33333333-3333-3333-3333-333333333333";
    for (iss, tid) in [
        (one, other),
        (third, third),
        (one, third),
        ("{tenantid}", one),
    ] {
        assert_eq!(sign_in(&provider, &gateway, iss, tid).0, 502, "{iss} {tid}");
    }
}
