//! A provider that is slow, down, and up again: users who are signed in stay signed in, other ways in
//! go on, and the provider is used again as soon as it responds.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::provider::{Endpoint, Provider, Reply, Transfer};
use crate::support::upstream::Upstream;
use crate::support::visitor::Visitor;
use crate::support::wait::{eventually, within};

/// Makes a response another one.
type Lie = fn(&mut Reply);

const CALLBACK: &str = "/api/v1/auth/callback/corp";
const START: &str = "/api/v1/auth/start/corp";

/// Password sign-in beside the provider, which has a second for each call.
fn config(provider: &Provider, upstream: &Upstream) -> Config {
    let attempts = json!({ "limit": 100_000, "window": "1m" });
    provider
        .configure(Config::new(upstream.address))
        .set("/identity/providers/corp/timeout", json!("1s"))
        .set("/identity/builtin/registration", json!("open"))
        .set("/identity/sign_in_limits/attempts_per_address", attempts)
}

/// Begins a sign-in, and returns the address of its callback.
fn to_callback(visitor: &mut Visitor, provider: &Provider, gateway: &Gateway) -> url::Url {
    let start = provider.start_url(gateway, "/private/a");
    let visit = visitor.follow(&start, |url| url.path() == CALLBACK);
    visit.hops.last().unwrap().clone()
}

/// Checks an error, which browsers receive as a page.
fn assert_code(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert!(response.text().contains(code), "{}", response.text());
}

fn assert_unavailable(response: &Response) {
    assert_code(response, 503, "PROVIDER_UNAVAILABLE");
    assert!(response.numeric_header("retry-after") >= 1);
    assert_eq!(response.header("location"), None);
}

fn discoveries(gateway: &Gateway) -> f64 {
    let outcome = |outcome: &str| {
        let labels = ["provider=\"corp\"", "endpoint=\"discovery\"", outcome];
        gateway.metric("portcullis_provider_requests_total", &labels)
    };
    outcome("outcome=\"error\"") + outcome("outcome=\"timeout\"")
}

fn has_event(gateway: &Gateway, kind: &str) -> bool {
    let events = gateway.events();
    events
        .iter()
        .any(|event| event["event"] == kind && event["provider"] == "corp")
}

#[test]
fn starts_at_a_provider_that_is_down_do_not_pile_up() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    provider.stop();
    let began = Instant::now();
    let gateway = Gateway::start(config(&provider, &upstream));
    let user = gateway.register("ann@example.com");
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_unavailable(&gateway.get(START));
                }
            });
        }
        // Other ways in and other requests go on meanwhile.
        assert!(gateway.accepts(&gateway.login("ann@example.com")));
        assert!(gateway.accepts(&user));
        assert_eq!(Request::get("/ready").send(gateway.admin).status, 200);
    });
    let seconds = began.elapsed().as_secs_f64();
    assert!(seconds < 20.0, "the starts piled up: {seconds} s");
    let fetches = discoveries(&gateway);
    assert!(fetches <= seconds + 1.0, "{fetches} fetches in {seconds} s");
    let ready = Request::get("/ready").send(gateway.admin).json();
    assert_eq!(ready["providers"]["corp"]["up"], json!(false));
    assert_eq!(
        gateway.metric("portcullis_provider_up", &["provider=\"corp\""]),
        0.0
    );
    eventually("the outage is an event", || {
        has_event(&gateway, "provider_unavailable").then_some(())
    });

    provider.restart();
    within(Duration::from_secs(4), "a start succeeds", || {
        (gateway.get(START).status == 303).then_some(())
    });
    eventually("the return is an event", || {
        has_event(&gateway, "provider_back").then_some(())
    });
    let mut visitor = Visitor::new();
    let visit = visitor.open(&provider.start_url(&gateway, "/private/a"));
    assert_eq!(visit.response.status, 200, "{visit:?}");
}

#[test]
fn callbacks_follow_a_provider_that_is_slow_then_down_then_up() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = Gateway::start(config(&provider, &upstream));
    let mut signed_in = Visitor::new();
    signed_in.open(&provider.start_url(&gateway, "/private/a"));
    let page = url::Url::parse(&format!("http://{}/private/a", gateway.public)).unwrap();
    let still_signed_in = |visitor: &Visitor| {
        assert_eq!(visitor.clone().get(&page).status, 200);
        assert_eq!(Request::get("/ready").send(gateway.admin).status, 200);
    };
    still_signed_in(&signed_in);
    let codes = provider.exchanges("authorization_code");

    // Each lie, its flow and its one exchange. A drip and an endless body count as late and as unusable.
    let lies: [(&str, Lie); 4] = [
        ("late", |reply| reply.delay = Duration::from_secs(3)),
        ("a drip", |reply| {
            reply.transfer = Transfer::Dripping(Duration::from_millis(200))
        }),
        ("a reset", |reply| reply.transfer = Transfer::Reset),
        ("503", |reply| reply.refuse(503, "temporarily_unavailable")),
    ];
    for (count, (name, lie)) in lies.into_iter().enumerate() {
        let mut visitor = Visitor::new();
        let callback = to_callback(&mut visitor, &provider, &gateway);
        provider.vary_next(Endpoint::Token, lie);
        let before = Instant::now();
        std::thread::scope(|scope| {
            let response = scope.spawn(|| visitor.get(&callback));
            still_signed_in(&signed_in);
            assert_unavailable(&response.join().unwrap());
        });
        assert!(before.elapsed() < Duration::from_secs(3), "{name}");
        assert!(visitor.session_cookie().is_none(), "{name}");
        assert!(visitor.cookies("flow").is_empty(), "{name}");
        let exchanged = provider.exchanges("authorization_code");
        assert_eq!(
            exchanged,
            codes + count + 1,
            "{name}: the code was sent again"
        );
        // The reload of the page is a flow that is over, not another exchange.
        assert_code(&visitor.get(&callback), 400, "FLOW_INVALID");
        assert_eq!(
            provider.exchanges("authorization_code"),
            exchanged,
            "{name}"
        );
    }

    let mut visitor = Visitor::new();
    let callback = to_callback(&mut visitor, &provider, &gateway);
    provider.stop();
    assert_unavailable(&visitor.get(&callback));
    still_signed_in(&signed_in);
    // A start goes on: the metadata is known.
    assert_eq!(gateway.get(START).status, 303);
    let ready = Request::get("/ready").send(gateway.admin).json();
    assert_eq!(ready["providers"]["corp"]["up"], json!(false));

    provider.restart();
    let mut visitor = Visitor::new();
    let visit = visitor.open(&provider.start_url(&gateway, "/private/b"));
    assert_eq!(visit.response.status, 200, "{visit:?}");
    let ready = Request::get("/ready").send(gateway.admin).json();
    assert_eq!(ready["providers"]["corp"]["up"], json!(true));
    still_signed_in(&signed_in);
}

#[test]
fn repeated_callback_redeems_its_code_once() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let gateway = Gateway::start(config(&provider, &upstream));
    let mut visitor = Visitor::new();
    let callback = to_callback(&mut visitor, &provider, &gateway);
    provider.vary(Endpoint::Token, |reply| {
        reply.delay = Duration::from_millis(300)
    });
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let sent: Vec<_> = (0..4)
            .map(|_| {
                let mut copy = visitor.clone();
                let callback = callback.clone();
                scope.spawn(move || copy.get(&callback).status)
            })
            .collect();
        sent.into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    assert_eq!(
        codes.iter().filter(|status| **status == 303).count(),
        1,
        "{codes:?}"
    );
    assert!(
        codes.iter().all(|status| [303, 400].contains(status)),
        "{codes:?}"
    );
    assert_eq!(provider.exchanges("authorization_code"), 1);
}

#[test]
fn provider_that_is_down_at_the_start_of_the_gateway_costs_no_readiness() {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    provider.vary(Endpoint::Discovery, |reply| {
        reply.transfer = Transfer::Silent
    });
    let began = Instant::now();
    let gateway = Gateway::start(config(&provider, &upstream));
    assert!(began.elapsed() < Duration::from_secs(5));
    let body = json!({ "email": "nobody@example.com", "password": PASSWORD });
    let login = gateway.request(&Request::post("/api/v1/auth/login").json(&body));
    login.assert_refused(401, "INVALID_CREDENTIALS");
    assert_unavailable(&gateway.get(START));
    provider.behave();
    within(Duration::from_secs(5), "a start succeeds", || {
        (gateway.get(START).status == 303).then_some(())
    });
}
