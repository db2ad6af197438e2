//! Every rule of a callback: one row breaks it, and the sign-in fails for that reason.

use std::time::Duration;

use serde_json::json;
use url::Url;

use super::table::{Outcome, Table, flow_invalid, provider_error, refused, setting, unavailable};
use crate::support::provider::{CORP, Callback, Endpoint, Jwt, Provider, Reply, Transfer};
use crate::support::visitor::Visitor;

type Lie = Box<dyn Fn(&mut Callback) + Send + Sync>;
type TokenRow = (&'static str, fn(&mut Reply), Outcome);
type MetadataRow = (&'static str, fn(&mut Reply));
type ResponseRow = (&'static str, fn(&mut Jwt));

const STATE_UNKNOWN: &str = "no flow of this browser has this state";
const REPEATED: &str = "a parameter is given twice";
const WRONG_MODE: &str = "the response has another mode than the one requested";

fn state_rows() -> Vec<(&'static str, Lie, Outcome)> {
    let repeated = flow_invalid(REPEATED);
    vec![
        (
            "no state",
            Box::new(|callback| callback.remove("state")),
            flow_invalid("the state is missing"),
        ),
        (
            "another state",
            Box::new(|callback| callback.set("state", &"a".repeat(43))),
            flow_invalid(STATE_UNKNOWN),
        ),
        (
            "an altered state",
            Box::new(|callback| {
                let mut state = callback.get("state").unwrap().to_owned();
                let last = state.pop().unwrap();
                state.push(if last == 'A' { 'E' } else { 'A' });
                callback.set("state", &state);
            }),
            flow_invalid(STATE_UNKNOWN),
        ),
        (
            "state twice",
            Box::new(|callback| callback.add("state", "x")),
            repeated,
        ),
    ]
}

fn response_rows() -> Vec<(&'static str, Lie, Outcome)> {
    let foreign = "https://other.example";
    let repeated = flow_invalid(REPEATED);
    vec![
        (
            "code twice",
            Box::new(|callback| callback.add("code", "x")),
            repeated,
        ),
        (
            "iss twice",
            Box::new(|callback| callback.add("iss", "x")),
            repeated,
        ),
        (
            "another iss",
            Box::new(move |callback| callback.set("iss", foreign)),
            flow_invalid("iss is not the provider's issuer"),
        ),
        (
            "no iss",
            Box::new(|callback| callback.remove("iss")),
            flow_invalid("iss is missing although the metadata promises it"),
        ),
        (
            "neither code nor error",
            Box::new(|callback| callback.remove("code")),
            flow_invalid("the callback has neither a code nor an error"),
        ),
        (
            "a form instead of a query",
            Box::new(|callback| callback.response_mode = "form_post".to_owned()),
            flow_invalid(WRONG_MODE),
        ),
        (
            "a token instead of a query",
            Box::new(|callback| callback.response_mode = "jwt".to_owned()),
            flow_invalid(WRONG_MODE),
        ),
    ]
}

#[test]
fn each_broken_callback_fails_before_the_code_is_sent() {
    let table = Table::start();
    for (what, lie, outcome) in state_rows().into_iter().chain(response_rows()) {
        table.provider.vary_callback(lie);
        table.fails(what, outcome);
    }
    for (error, outcome) in [
        (
            "access_denied",
            refused("the provider reported access_denied"),
        ),
        (
            "login_required",
            refused("the provider reported login_required"),
        ),
        (
            "interaction_required",
            refused("the provider reported interaction_required"),
        ),
        (
            "consent_required",
            refused("the provider reported consent_required"),
        ),
        (
            "account_selection_required",
            refused("the provider reported account_selection_required"),
        ),
        (
            "unmet_authentication_requirements",
            refused("the provider reported unmet_authentication_requirements"),
        ),
        (
            "temporarily_unavailable",
            unavailable("the provider reported temporarily_unavailable"),
        ),
        (
            "server_error",
            unavailable("the provider reported server_error"),
        ),
        (
            "invalid_scope",
            provider_error("the provider rejected the authorization request"),
        ),
    ] {
        table
            .provider
            .vary_callback(move |callback| callback.refuse(error));
        let page = table.fails(error, outcome);
        assert!(
            !page
                .response
                .text()
                .contains("A description that no page repeats")
        );
    }
    assert_eq!(table.redemptions(), 0, "the provider is not queried");
    table.has_kept_secrets();
}

#[test]
fn callback_of_another_browser_or_a_second_time_fails() {
    let table = Table::start();
    let is_callback = |url: &Url| url.path().contains("/auth/callback/");
    let mut first = Visitor::new();
    let visit = first.follow(&table.start_url(), is_callback);
    let callback = visit.hops.last().unwrap().clone();
    let open = |visitor: &mut Visitor| visitor.open(callback.as_str());
    table.fails_with("another browser", flow_invalid(STATE_UNKNOWN), open);
    assert_eq!(table.redemptions(), 0);
    let back = first.get(&callback);
    assert_eq!(back.status, 303, "{}", back.text());
    assert_eq!(table.redemptions(), 1);
    // With the session, the same address leads to the start page and does nothing else.
    let cookie = first.session_cookie().unwrap();
    let again = first.get(&callback);
    assert_eq!((again.status, again.header("location")), (303, Some("/")));
    assert_eq!(first.session_cookie(), Some(cookie));
    first.lose_cookies("portcullis");
    table.fails_with("a second time", flow_invalid(STATE_UNKNOWN), |_| {
        first.open(callback.as_str())
    });
    assert_eq!(table.redemptions(), 1, "the code is redeemed at most once");
    table.has_kept_secrets();
}

/// Refusals of the token endpoint.
fn refusal_rows() -> Vec<TokenRow> {
    vec![
        (
            "invalid_grant",
            |reply| reply.refuse(400, "invalid_grant"),
            flow_invalid("the provider rejected the code or the refresh token"),
        ),
        (
            "invalid_client",
            |reply| reply.refuse(401, "invalid_client"),
            provider_error("the provider rejected the client's authentication"),
        ),
        (
            "invalid_request",
            |reply| reply.refuse(400, "invalid_request"),
            provider_error("the provider rejected the request"),
        ),
        (
            "429",
            |reply| reply.refuse(429, "slow_down"),
            unavailable("the provider responded with 429"),
        ),
        (
            "500",
            |reply| reply.refuse(500, "server_error"),
            unavailable("the provider responded with a status of 5xx"),
        ),
        (
            "a redirect",
            |reply| *reply = Reply::redirect("http://127.0.0.1:1/"),
            provider_error("the provider responded with an unexpected status"),
        ),
    ]
}

/// Token responses that are not as the specification says.
fn malformed_rows() -> Vec<TokenRow> {
    let malformed = provider_error("the provider's response is malformed");
    vec![
        (
            "a page",
            |reply| *reply = Reply::text(200, "text/html", "<p>Welcome"),
            provider_error("the provider's response has another content type"),
        ),
        ("no JSON", |reply| reply.body = b"{".to_vec(), malformed),
        (
            "id_token twice",
            |reply| reply.duplicate("id_token", &json!("x")),
            malformed,
        ),
        (
            "no ID token",
            |reply| reply.remove("id_token"),
            provider_error("the token response has no ID token"),
        ),
        (
            "no access token",
            |reply| reply.remove("access_token"),
            provider_error("the token response has no access token"),
        ),
        (
            "another token type",
            |reply| reply.set("token_type", json!("mac")),
            provider_error("token_type is not Bearer"),
        ),
    ]
}

/// Token responses that never end, or break off.
fn broken_rows() -> Vec<TokenRow> {
    vec![
        (
            "an endless body",
            |reply| reply.transfer = Transfer::Endless,
            provider_error("the provider's response has more than 1 MiB"),
        ),
        (
            "a body of two MiB",
            |reply| reply.set("more", json!("x".repeat(2 << 20))),
            provider_error("the provider's response has more than 1 MiB"),
        ),
        (
            "a dripping body",
            |reply| reply.transfer = Transfer::Dripping(Duration::from_millis(20)),
            unavailable("the provider did not respond within timeout"),
        ),
        (
            "a late response",
            |reply| reply.delay = Duration::from_secs(2),
            unavailable("the provider did not respond within timeout"),
        ),
        (
            "silence",
            |reply| reply.transfer = Transfer::Silent,
            unavailable("the provider did not respond within timeout"),
        ),
        (
            "a reset",
            |reply| reply.transfer = Transfer::Reset,
            unavailable("the connection to the provider was lost"),
        ),
        (
            "half a body",
            |reply| reply.transfer = Transfer::CutOff,
            unavailable("the connection to the provider was lost"),
        ),
    ]
}

#[test]
fn each_broken_token_response_fails_the_sign_in() {
    let table = Table::start();
    let rows = [refusal_rows(), malformed_rows(), broken_rows()];
    for (what, lie, outcome) in rows.into_iter().flatten() {
        let before = table.redemptions();
        table.provider.vary(Endpoint::Token, lie);
        table.fails(what, outcome);
        assert_eq!(
            table.redemptions(),
            before + 1,
            "{what}: no code is sent twice"
        );
    }
    table.has_kept_secrets();
}

#[test]
fn signed_responses_are_required_where_they_were_requested() {
    let table = Table::start_with(|config| config.set(&setting("response_mode"), json!("jwt")));
    table.succeeds("a signed response");
    table
        .provider
        .vary_callback(|callback| callback.response_mode = "query".to_owned());
    table.fails("a bare code", flow_invalid(WRONG_MODE));
    let invalid = flow_invalid("the response token is not valid");
    let rows: [ResponseRow; 5] = [
        ("another iss", |token| {
            token.claims["iss"] = json!("https://other.example")
        }),
        ("another aud", |token| token.claims["aud"] = json!("other")),
        ("exp in the past", |token| token.claims["exp"] = json!(1)),
        ("no exp", |token| token.remove("exp")),
        ("code twice", |token| token.duplicate("code", &json!("x"))),
    ];
    for (what, lie) in rows {
        table.provider.vary_response_token(lie);
        table.fails(what, invalid);
    }
    assert_eq!(table.redemptions(), 1, "of the good one");
}

#[test]
fn posted_responses_are_required_where_they_were_requested() {
    let table = Table::start_with(|config| {
        let config = config.set(&setting("response_mode"), json!("form_post"));
        // A posted response needs a cookie with SameSite=None, which is Secure.
        config.set("/sessions/cookie/secure", json!(true))
    });
    let visit = table.sign_in(&mut Visitor::new());
    // The visitor keeps no such cookie over plain HTTP.
    assert_eq!(visit.response.status, 400, "{visit:?}");
    assert_eq!(visit.visits(&format!("/api/v1/auth/callback/{CORP}")), 1);
    let cookie = Visitor::new().get(&Url::parse(&table.start_url()).unwrap());
    let cookie = cookie.header("set-cookie").unwrap().to_owned();
    assert!(cookie.starts_with("__Secure-portcullis-flow-"), "{cookie}");
    assert!(
        cookie.contains("SameSite=None") && cookie.contains("Secure"),
        "{cookie}"
    );
}

fn metadata_rows() -> Vec<MetadataRow> {
    vec![
        ("another issuer", |reply| {
            reply.set("issuer", json!("https://x.example"))
        }),
        ("issuer twice", |reply| {
            reply.duplicate("issuer", &json!("https://x.example"))
        }),
        ("no authorization endpoint", |reply| {
            reply.remove("authorization_endpoint")
        }),
        ("no token endpoint", |reply| reply.remove("token_endpoint")),
        ("an address in clear elsewhere", |reply| {
            reply.set("token_endpoint", json!("http://id.example/token"))
        }),
        ("404", |reply| reply.status = 404),
        ("500", |reply| reply.status = 500),
        ("a redirect", |reply| *reply = Reply::redirect("/elsewhere")),
        ("an endless body", |reply| {
            reply.transfer = Transfer::Endless
        }),
        ("silence", |reply| reply.transfer = Transfer::Silent),
        ("a reset", |reply| reply.transfer = Transfer::Reset),
    ]
}

#[test]
fn metadata_that_breaks_a_rule_is_not_available() {
    let provider = Provider::start();
    provider.vary(Endpoint::Discovery, |reply| reply.status = 503);
    let table = Table::start_at(provider, |config| config);
    for (what, lie) in metadata_rows() {
        table.provider.vary(Endpoint::Discovery, lie);
        // It is fetched at most once per second.
        let fetched = || table.provider.received(Endpoint::Discovery).len();
        let before = fetched();
        crate::support::wait::eventually("the metadata is fetched again", || {
            let visit = table.sign_in(&mut Visitor::new());
            assert_eq!(
                visit.response.status,
                503,
                "{what}: {}",
                visit.response.text()
            );
            assert!(
                visit.response.text().contains("PROVIDER_UNAVAILABLE"),
                "{what}"
            );
            visit.response.numeric_header("retry-after");
            (fetched() > before).then_some(())
        });
    }
    table.provider.behave();
    crate::support::wait::eventually("the metadata is right again", || {
        let visit = table.sign_in(&mut Visitor::new());
        (visit.response.status == 200).then_some(())
    });
}

#[test]
fn keys_that_cannot_be_fetched_are_not_available() {
    let rows: [MetadataRow; 4] = [
        ("500", |reply| reply.status = 500),
        ("no JSON", |reply| reply.body = b"[".to_vec()),
        ("an endless body", |reply| {
            reply.transfer = Transfer::Endless
        }),
        ("silence", |reply| reply.transfer = Transfer::Silent),
    ];
    for (what, lie) in rows {
        let provider = Provider::start();
        provider.vary(Endpoint::Keys, lie);
        let table = Table::start_at(provider, |config| config);
        table.fails(what, unavailable("the provider's keys are not available"));
    }
}
