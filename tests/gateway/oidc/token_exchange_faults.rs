//! Exchanges of provider tokens that go wrong, and tokens that must not be exchanged.

use std::time::Duration;

use serde_json::json;

use super::provider_tokens::{AFTER_PAUSE, Fixture, assert_ok, code, with_recheck};
use crate::support::client::Request;
use crate::support::config::Config;
use crate::support::provider::{Endpoint, Provider};
use crate::support::wait::{eventually, within};

/// Longer than the interval of the clean-up.
const AFTER_CLEAN_UP: Duration = Duration::from_secs(90);

/// Uses a session until it was rechecked this often without an outcome.
#[track_caller]
fn await_unknown(fixture: &Fixture, cookie: &str, count: f64) {
    within(AFTER_PAUSE, "rechecks without an outcome", || {
        assert_ok(&fixture.get(0, "/private/a", cookie));
        (fixture.rechecks("unknown") >= count).then_some(())
    });
}

#[test]
fn response_that_a_proxy_of_the_provider_lost_signs_no_user_out() {
    for (fixture, status) in Fixture::each(with_recheck("1s", "continue"))
        .iter()
        .zip([502, 504])
    {
        let cookie = fixture.sign_in();
        // The provider has replaced the refresh token, and the new one is lost.
        fixture
            .provider
            .vary_next(Endpoint::Token, move |reply| reply.refuse(status, "lost"));
        await_unknown(fixture, &cookie, 2.0);
        assert_eq!(fixture.provider.exchanges("refresh_token"), 2);
        assert_eq!(fixture.rechecks("ended"), 0.0);
        assert_ok(&fixture.get(0, "/private/a", &cookie));
    }
}

#[test]
fn tokens_are_not_sent_to_another_issuer() {
    let mut fixture = Fixture::memory(with_recheck("1s", "continue"));
    let (cookie, other) = (fixture.sign_in(), Provider::start());
    let issuer = json!(other.issuer);
    fixture.gateways[0].reload("applied", |config| {
        config.put("/identity/providers/corp/issuer", issuer);
    });
    await_unknown(&fixture, &cookie, 1.0);
    let of_other = fixture.sign_in_at(&other);
    let sign_out = |cookie: &str| {
        let request = Request::post("/api/v1/auth/logout?provider=true").cookie(cookie);
        let response = fixture.gateways[0].request(&request.same_origin());
        response.data()["logout_url"].as_str().unwrap().to_owned()
    };
    let url = sign_out(&cookie);
    assert!(url.starts_with(&other.issuer), "{url}");
    assert!(!url.contains("id_token_hint"), "{url}");
    // Revocations of earlier ends have begun by the time that the one of a later end arrives.
    assert!(sign_out(&of_other).contains("id_token_hint"));
    let revoked = other.await_received(Endpoint::Revocation, 1);
    let secrets = fixture.provider.secrets();
    for seen in revoked.iter().chain(&other.received(Endpoint::Token)) {
        for name in ["token", "refresh_token"] {
            let sent = seen.parameter(name).unwrap_or_default();
            assert!(!secrets.contains(&sent), "{seen:?}");
        }
    }
    assert!(fixture.provider.received(Endpoint::Revocation).is_empty());
}

#[test]
fn token_that_nothing_renews_is_forwarded_until_it_expires() {
    let fixture = Fixture::memory(|config| config);
    fixture.provider.set_expires_in(4);
    fixture
        .provider
        .vary(Endpoint::Token, |reply| reply.remove("refresh_token"));
    let cookie = fixture.sign_in();
    let response = fixture.get(0, "/bearer/a", &cookie);
    assert!(response.echo().header("authorization").is_some());
    let response = eventually("the expiry of the token", || {
        let response = fixture.get(0, "/bearer/a", &cookie);
        (response.status != 200).then_some(response)
    });
    assert_eq!(
        (response.status, &*code(&response)),
        (503, "PROVIDER_UNAVAILABLE")
    );
    assert_eq!(fixture.provider.exchanges("refresh_token"), 0);
    // The session goes on.
    assert_ok(&fixture.get(0, "/private/a", &cookie));
}

#[test]
fn refresh_token_of_an_expired_session_is_revoked() {
    for fixture in Fixture::each(|config: Config| {
        config.set("/identity/providers/corp/session_ttl", json!("1s"))
    }) {
        fixture.sign_in();
        within(AFTER_CLEAN_UP, "a revocation", || {
            let revoked = fixture.provider.received(Endpoint::Revocation);
            (!revoked.is_empty()).then_some(())
        });
    }
}

#[test]
fn session_that_has_lapsed_waits_at_a_gateway_that_has_not_seen_it() {
    let fixture = Fixture::fleet(with_recheck("1s", "1s"));
    fixture.provider.set_rotation(false);
    let cookie = fixture.sign_in();
    fixture
        .provider
        .vary(Endpoint::Token, |reply| reply.refuse(401, "invalid_client"));
    within(AFTER_PAUSE, "503 at the first gateway", || {
        let response = fixture.get(0, "/private/a", &cookie);
        (response.status == 503).then_some(())
    });
    let first = fixture.get(1, "/private/a", &cookie);
    assert_eq!(
        (first.status, &*code(&first)),
        (503, "PROVIDER_UNAVAILABLE")
    );
}
