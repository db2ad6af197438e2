//! The rules of a callback hold in every response mode (`form_post`, `jwt`) and over HTTP/2.

use serde_json::json;
use url::Url;

use super::callback_rules::{
    WRONG_MODE, empty_row, error_rows, mode_row, parameter_rows, state_rows,
};
use super::id_token_rules::{Break, audience_rows, claim, form_rows, signature_rows, without};
use super::table::{Table, flow_invalid, setting, unavailable};
use crate::support::http2::Http2;
use crate::support::provider::{Endpoint, Provider};
use crate::support::tokens;
use crate::support::visitor::Visitor;

const CALLBACK: &str = "/api/v1/auth/callback/corp";

fn table_of(mode: &'static str) -> Table {
    Table::start_with(|config| {
        let config = config.set(&setting("response_mode"), json!(mode));
        // A posted response needs a cookie with SameSite=None, which is Secure.
        config.set("/sessions/cookie/secure", json!(mode == "form_post"))
    })
}

/// Goes to the provider and stops before the callback.
fn to_callback(table: &Table, visitor: &mut Visitor) -> Url {
    let visit = visitor.follow(&table.start_url(), |url| url.path() == CALLBACK);
    visit.hops.last().unwrap().clone()
}

/// The same address with more parameters, which the browser sends as they are.
fn extended(url: &Url, more: &str) -> Url {
    Url::parse(&format!("{url}&{more}")).unwrap()
}

#[test]
fn posted_responses_are_checked_like_those_of_a_query() {
    let table = table_of("form_post");
    let cookie = Visitor::new().get(&Url::parse(&table.start_url()).unwrap());
    let cookie = cookie.header("set-cookie").unwrap().to_owned();
    assert!(cookie.starts_with("__Secure-portcullis-flow-"), "{cookie}");
    assert!(
        cookie.contains("SameSite=None") && cookie.contains("Secure"),
        "{cookie}"
    );
    table.succeeds("a posted response");
    let mut rows = state_rows();
    rows.extend(parameter_rows());
    rows.push(empty_row());
    rows.push(mode_row("a query instead of a form", "query"));
    rows.push(mode_row("a token instead of a form", "jwt"));
    for (what, lie, outcome) in rows {
        table.provider.vary_callback(lie);
        table.fails(what, outcome);
    }
    for (error, outcome) in error_rows() {
        table
            .provider
            .vary_callback(move |callback| callback.refuse(error));
        table.fails(error, outcome);
    }
    assert_eq!(table.redemptions(), 1, "of the good one");
    table.has_kept_secrets();
}

/// What is wrong with the token of a response, beside its signature, form, issuer and audience.
fn response_token_rows() -> Vec<(&'static str, Break)> {
    let now = tokens::now();
    vec![
        ("no exp", without("exp")),
        ("exp in the past", claim("exp", json!(now - 60))),
        ("exp in a text", claim("exp", json!("2147483647"))),
        ("iat in the future", claim("iat", json!(now + 60))),
        ("nbf in the future", claim("nbf", json!(now + 60))),
        ("a code of a number", claim("code", json!(1))),
        (
            "an error of a list",
            claim("error", json!(["access_denied"])),
        ),
    ]
}

#[test]
fn signed_responses_are_checked_like_id_tokens() {
    let table = table_of("jwt");
    table.succeeds("a signed response");
    let invalid = flow_invalid("the response token is not valid");
    let mut rows = signature_rows();
    rows.extend(form_rows());
    rows.extend(audience_rows(&table.provider.issuer));
    let rows = rows.into_iter().map(|(what, lie, _)| (what, lie));
    for (what, lie) in rows.chain(response_token_rows()) {
        table.provider.vary_response_token(lie);
        table.fails(what, invalid);
    }
    // No state can be read, so no key is fetched.
    table
        .provider
        .vary_response_token(|token| token.duplicate("code", &json!("x")));
    table.fails("code twice", flow_invalid("the state is missing"));
    let mut rows = state_rows();
    rows.push(empty_row());
    rows.push(mode_row("a bare code", "query"));
    rows.push(mode_row("a form", "form_post"));
    for (what, lie, outcome) in rows {
        table.provider.vary_callback(lie);
        table.fails(what, outcome);
    }
    for (error, outcome) in error_rows() {
        table
            .provider
            .vary_callback(move |callback| callback.refuse(error));
        table.fails(error, outcome);
    }
    assert_eq!(table.redemptions(), 1, "of the good one");
    table.has_kept_secrets();
}

#[test]
fn signed_response_stands_alone() {
    let table = table_of("jwt");
    let repeated = "a parameter is given twice";
    for (more, reason) in [
        ("code=x", WRONG_MODE),
        ("state=x", WRONG_MODE),
        ("error=access_denied", WRONG_MODE),
        ("response=x", repeated),
        (
            "iss=https%3A%2F%2Fother.example",
            "iss is not the provider's issuer",
        ),
    ] {
        table.fails_with(more, flow_invalid(reason), |visitor| {
            let callback = to_callback(&table, visitor);
            visitor.open(extended(&callback, more).as_str())
        });
    }
    assert_eq!(table.redemptions(), 0);
    let mut visitor = Visitor::new();
    let callback = to_callback(&table, &mut visitor);
    let iss: String =
        url::form_urlencoded::byte_serialize(table.provider.issuer.as_bytes()).collect();
    let visit = visitor.open(extended(&callback, &format!("iss={iss}")).as_str());
    assert_eq!(visit.response.status, 200, "{visit:?}");
}

#[test]
fn signed_response_without_keys_is_unavailable() {
    let provider = Provider::start();
    provider.vary(Endpoint::Keys, |reply| reply.status = 500);
    let table = Table::start_at(provider, |config| {
        config.set(&setting("response_mode"), json!("jwt"))
    });
    table.fails(
        "no keys",
        unavailable("the provider's keys are not available"),
    );
}

/// Rows of a callback's query: what is appended to it, or replaces it, and the status.
fn http2_rows(callback: &Url) -> Vec<(&'static str, String, u16)> {
    let query = callback.query().unwrap();
    let without = |name: &str| {
        let kept = query.split('&').filter(|pair| !pair.starts_with(name));
        kept.collect::<Vec<_>>().join("&")
    };
    vec![
        ("state twice", format!("{query}&state=x"), 400),
        ("code twice", format!("{query}&code=x"), 400),
        ("no state", without("state="), 400),
        (
            "another state",
            format!("{}&state=x", without("state=")),
            400,
        ),
        ("no code", without("code="), 400),
        ("no iss", without("iss="), 400),
        ("another iss", format!("{}&iss=x", without("iss=")), 400),
        ("a token", format!("{query}&response=a.b.c"), 400),
        (
            "access_denied",
            format!("{}&error=access_denied", without("code=")),
            403,
        ),
        (
            "server_error",
            format!("{}&error=server_error", without("code=")),
            503,
        ),
    ]
}

#[test]
fn callbacks_over_http2_are_checked_alike() {
    let table = Table::start();
    let http2 = Http2::connect(table.gateway.public);
    let mut visitor = Visitor::new();
    let callback = to_callback(&table, &mut visitor);
    let cookie = visitor.cookie_header(&callback);
    let get = |method: &str, query: &str, headers: &[(&str, &str)]| {
        let path = format!("{CALLBACK}?{query}");
        http2.open(method, &path, headers, b"").unwrap()
    };
    for (what, query, status) in http2_rows(&callback) {
        let mut response = get("GET", &query, &[("cookie", &cookie)]);
        let text = response.text();
        assert_eq!(response.status, status, "{what}: {text}");
        let cookies = response.headers.get_all("set-cookie").iter();
        let cookies: Vec<_> = cookies.map(|it| it.to_str().unwrap()).collect();
        // The flow is over, if the callback names it.
        let names_flow = !what.contains("no state") && !what.contains("another state");
        assert_eq!(
            cookies.len(),
            usize::from(names_flow),
            "{what}: {cookies:?}"
        );
        assert!(
            cookies.iter().all(|it| it.contains("-flow-")),
            "{what}: {cookies:?}"
        );
    }
    let query = callback.query().unwrap();
    assert_eq!(get("HEAD", query, &[("cookie", &cookie)]).status, 405);
    let posted = http2.open("POST", CALLBACK, &[("cookie", &cookie)], query.as_bytes());
    assert_eq!(posted.unwrap().status, 400, "a form instead of a query");
    assert_eq!(get("GET", query, &[]).status, 400, "another browser");
    assert_eq!(table.redemptions(), 0);
    // Clients of HTTP/2 may split the field of cookies.
    let crumbs = [("cookie", "a=1"), ("cookie", &*cookie), ("cookie", "b=2")];
    let back = get("GET", query, &crumbs);
    assert_eq!(back.status, 303);
    assert!(
        back.headers["location"]
            .to_str()
            .unwrap()
            .starts_with("/private/")
    );
    assert_eq!(back.headers["referrer-policy"], "no-referrer");
    assert_eq!(back.headers["cache-control"], "no-store");
    let again = get("GET", query, &[("cookie", &cookie)]);
    assert_eq!(again.status, 400, "the code is redeemed at most once");
    assert_eq!(table.redemptions(), 1);
}

#[test]
fn posted_callback_over_http2_finishes_its_flow() {
    let table = table_of("form_post");
    let http2 = Http2::connect(table.gateway.public);
    let mut visitor = Visitor::on_loopback();
    let visit = visitor.follow(&table.start_url(), |url| url.path() == CALLBACK);
    let (action, fields) = visit.form();
    let cookie = visitor.cookie_header(&action);
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    let form = form.extend_pairs(fields).finish();
    let post = |body: &str| {
        let headers = [
            ("cookie", &*cookie),
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", &*table.provider.issuer),
        ];
        http2
            .open("POST", CALLBACK, &headers, body.as_bytes())
            .unwrap()
    };
    assert_eq!(post(&format!("{form}&state=x")).status, 400);
    assert_eq!(post(&form.replace("state=", "state=x")).status, 400);
    let in_query = http2.open(
        "GET",
        &format!("{CALLBACK}?{form}"),
        &[("cookie", &cookie)],
        b"",
    );
    assert_eq!(in_query.unwrap().status, 400, "a query instead of a form");
    let untyped = http2.open("POST", CALLBACK, &[("cookie", &cookie)], form.as_bytes());
    assert_eq!(untyped.unwrap().status, 400, "no form");
    assert_eq!(table.redemptions(), 0);
    assert_eq!(post(&form).status, 303);
    assert_eq!(table.redemptions(), 1);
}
