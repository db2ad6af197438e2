//! Every rule of a callback: one row breaks it, and the sign-in fails for that reason.

use std::time::Duration;

use serde_json::json;
use url::Url;

use super::table::{Outcome, Table, flow_invalid, provider_error, refused, unavailable};
use crate::support::provider::{Callback, Endpoint, Provider, Reply, Transfer};
use crate::support::visitor::Visitor;

type Lie = Box<dyn Fn(&mut Callback) + Send + Sync>;
pub(super) type CallbackRow = (&'static str, Lie, Outcome);
type TokenRow = (&'static str, fn(&mut Reply), Outcome);
type MetadataRow = (&'static str, fn(&mut Reply));

const STATE_UNKNOWN: &str = "no flow of this browser has this state";
const REPEATED: &str = "a parameter is given twice";
pub(super) const WRONG_MODE: &str = "the response has another mode than the one requested";

/// Rows that no repeated parameter makes: they hold in every response mode.
pub(super) fn state_rows() -> Vec<CallbackRow> {
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
    ]
}

/// Rows of plain parameters, in a query or a form.
pub(super) fn parameter_rows() -> Vec<CallbackRow> {
    let foreign = "https://other.example";
    let repeated =
        |name: &'static str| -> Lie { Box::new(move |callback| callback.add(name, "x")) };
    vec![
        ("state twice", repeated("state"), flow_invalid(REPEATED)),
        ("code twice", repeated("code"), flow_invalid(REPEATED)),
        ("iss twice", repeated("iss"), flow_invalid(REPEATED)),
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
    ]
}

/// A response without a result.
pub(super) fn empty_row() -> CallbackRow {
    (
        "neither code nor error",
        Box::new(|callback| callback.remove("code")),
        flow_invalid("the callback has neither a code nor an error"),
    )
}

/// A response in another mode than the one that was requested.
pub(super) fn mode_row(what: &'static str, mode: &'static str) -> CallbackRow {
    (
        what,
        Box::new(move |callback| callback.response_mode = mode.to_owned()),
        flow_invalid(WRONG_MODE),
    )
}

/// The errors that a provider reports, and what each is.
pub(super) fn error_rows() -> Vec<(&'static str, Outcome)> {
    vec![
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
    ]
}

#[test]
fn each_broken_callback_fails_before_the_code_is_sent() {
    let table = Table::start();
    let mut rows = state_rows();
    rows.extend(parameter_rows());
    rows.push(empty_row());
    rows.push(mode_row("a form instead of a query", "form_post"));
    rows.push(mode_row("a token instead of a query", "jwt"));
    for (what, lie, outcome) in rows {
        table.provider.vary_callback(lie);
        table.fails(what, outcome);
    }
    for (error, outcome) in error_rows() {
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
