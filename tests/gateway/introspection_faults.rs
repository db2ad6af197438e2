//! Introspection endpoints that fail or lie: whatever is not plainly a yes or a no is neither. The
//! request is refused with 503, or, where the file says so, an earlier yes counts for a while.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::provider::{Endpoint, Provider, Reply, Transfer};
use crate::support::tokens::now;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// Makes a response another one.
type Lie = fn(&mut Reply);

fn settings(provider: &Provider) -> Value {
    let mut settings = provider.introspection_settings("corp");
    settings["timeout"] = json!("1s");
    settings
}

fn start(settings: &Value) -> Gateway {
    let config = Config::new(Upstream::start().address);
    Gateway::start(config.set("/tokens/introspection", json!([settings])))
}

fn private(token: &str) -> Request {
    Request::get("/private/a").bearer(token)
}

fn assert_unavailable(response: &Response, name: &str) {
    assert_eq!(response.status, 503, "{name}: {}", response.text());
    response.assert_refused(503, "PROVIDER_UNAVAILABLE");
    assert!(response.all("set-cookie").is_empty(), "{name}");
}

const LIES: &[(&str, Lie)] = &[
    ("an error of the server", |reply| reply.status = 500),
    ("a refused client", |reply| {
        reply.refuse(401, "invalid_client")
    }),
    ("a bad request", |reply| {
        reply.refuse(400, "invalid_request")
    }),
    ("not found", |reply| reply.status = 404),
    ("another success", |reply| reply.status = 201),
    ("a redirect", |reply| *reply = Reply::redirect("/elsewhere")),
    ("a page", |reply| {
        reply.set_header("Content-Type", "text/html")
    }),
    ("a signed response", |reply| {
        reply.set_header("Content-Type", "application/token-introspection+jwt");
    }),
    ("no JSON", |reply| reply.body = b"active".to_vec()),
    ("a list", |reply| {
        reply.body = br#"[{"active":true,"sub":"ann"}]"#.to_vec()
    }),
    ("a text for active", |reply| {
        reply.set("active", json!("true"))
    }),
    ("no active", |reply| reply.remove("active")),
    ("active twice", |reply| {
        reply.duplicate("active", &json!(true))
    }),
    ("the user twice", |reply| {
        reply.duplicate("sub", &json!("root"))
    }),
    ("half of a response", |reply| {
        reply.transfer = Transfer::CutOff
    }),
    ("a reset", |reply| reply.transfer = Transfer::Reset),
    ("silence", |reply| reply.transfer = Transfer::Silent),
    ("an endless response", |reply| {
        reply.transfer = Transfer::Endless
    }),
    ("a large response", |reply| {
        reply.set("roles", json!(vec!["a-role-of-some-length"; 20_000]));
    }),
    ("a late response", |reply| {
        reply.delay = Duration::from_secs(3)
    }),
    ("a slow response", |reply| {
        reply.transfer = Transfer::Dripping(Duration::from_millis(300));
    }),
];

#[test]
fn what_is_neither_yes_nor_no_is_503() {
    // Each lie has a server of its own, and all lie at the same time.
    let providers: Vec<Provider> = LIES.iter().map(|_| Provider::start()).collect();
    let entries = providers.iter().enumerate().map(|(index, provider)| {
        let mut entry = provider.introspection_settings(&format!("lie-{index}x"));
        entry["prefix"] = json!(format!("lie-{index}x-"));
        entry["timeout"] = json!("1s");
        entry
    });
    let config = Config::new(Upstream::start().address);
    let entries: Vec<Value> = entries.collect();
    let gateway = Gateway::start(config.set("/tokens/introspection", json!(entries)));
    std::thread::scope(|scope| {
        for (index, ((name, lie), provider)) in LIES.iter().zip(&providers).enumerate() {
            let gateway = &gateway;
            scope.spawn(move || {
                for (active, status) in [(true, 200), (false, 401)] {
                    let token = format!("lie-{index}x-{active}");
                    provider.set_token(&token, json!({"active": active, "sub": "ann"}));
                    provider.vary(Endpoint::Introspection, *lie);
                    assert_unavailable(&gateway.request(&private(&token)), name);
                    let optional = Request::get("/optional/a").bearer(&token);
                    assert_unavailable(&gateway.request(&optional), name);
                    provider.behave();
                    eventually(name, || {
                        (gateway.request(&private(&token)).status == status).then_some(())
                    });
                }
                // Nothing was sent where a redirect points.
                assert!(provider.received(Endpoint::Unknown).is_empty());
                let entry = format!("\"lie-{index}x\"");
                let labels = [&*entry, "\"unknown\""];
                let unknown = gateway.metric("portcullis_introspections_total", &labels);
                assert!(unknown >= 4.0, "{name}: {unknown}");
            });
        }
    });
}

#[test]
fn endpoint_that_is_down_is_503_and_is_used_again() {
    let provider = Provider::start();
    let gateway = start(&settings(&provider));
    provider.set_token("opaque-1", json!({"sub": "ann"}));
    let alice = gateway.register("alice@example.com");
    provider.stop();
    assert_unavailable(&gateway.request(&private("opaque-1")), "down");
    // Sessions and other tokens need no endpoint.
    assert!(gateway.accepts(&alice));
    assert_eq!(gateway.request(&private(&alice.access_token)).status, 200);
    provider.restart();
    eventually("the endpoint is used again", || {
        (gateway.request(&private("opaque-1")).status == 200).then_some(())
    });
}

#[test]
fn yes_that_is_not_valid_here_is_a_401() {
    let provider = Provider::start();
    let mut settings = settings(&provider);
    settings["audience"] = json!("shop");
    let gateway = start(&settings);
    let other = "https://other.example";
    for (index, (change, code)) in [
        (json!({}), None),
        (json!({"aud": ["a", "shop"]}), None),
        (json!({"exp": now() + 60}), None),
        (json!({"token_type": "bearer"}), None),
        (json!({"aud": "another"}), Some("TOKEN_INVALID")),
        (json!({"aud": null}), Some("TOKEN_INVALID")),
        (json!({"iss": other}), Some("TOKEN_INVALID")),
        (json!({"exp": now() - 60}), Some("TOKEN_EXPIRED")),
        (json!({"exp": "soon"}), Some("TOKEN_INVALID")),
        (json!({"nbf": now() + 60}), Some("TOKEN_INVALID")),
        (json!({"iat": now() + 60}), Some("TOKEN_INVALID")),
        (json!({"token_type": "DPoP"}), Some("TOKEN_INVALID")),
        (json!({"token_use": "refresh_token"}), Some("TOKEN_INVALID")),
        (json!({"cnf": {"jkt": "x"}}), Some("TOKEN_INVALID")),
        (
            json!({"cnf": {"x5t#S256": "A".repeat(43)}}),
            Some("TOKEN_INVALID"),
        ),
        (json!({"sub": 7}), Some("TOKEN_INVALID")),
        (json!({"sub": ""}), Some("TOKEN_INVALID")),
        (json!({"sub": null}), Some("TOKEN_INVALID")),
        (json!({"sub": "a b"}), Some("TOKEN_INVALID")),
        (json!({"sub": "ann\u{200b}"}), Some("TOKEN_INVALID")),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("token-{index}");
        let mut members = json!({"sub": "ann", "aud": "shop", "iss": provider.issuer});
        for (name, value) in change.as_object().unwrap() {
            members[name] = value.clone();
        }
        provider.set_token(&token, members);
        for _ in 0..3 {
            let response = gateway.request(&private(&token));
            match code {
                Some(code) => {
                    response.assert_refused(401, code);
                }
                None => assert_eq!(response.status, 200, "{change}: {}", response.text()),
            }
        }
    }
}

#[test]
fn token_expires_by_exp_whatever_the_cache_has() {
    let provider = Provider::start();
    let mut settings = settings(&provider);
    settings["cached_for"] = json!("10m");
    settings["on_outage"] = json!("cached");
    let gateway = start(&settings);
    // The leeway is five seconds.
    provider.set_token("opaque-1", json!({"sub": "ann", "exp": now() - 2}));
    assert_eq!(gateway.request(&private("opaque-1")).status, 200);
    provider.stop();
    eventually("the token expires", || {
        let response = gateway.request(&private("opaque-1"));
        match response.status {
            200 => None,
            _ => Some(response.assert_refused(401, "TOKEN_EXPIRED").status),
        }
    });
}

#[test]
fn earlier_yes_counts_during_an_outage_where_it_is_configured() {
    for (on_outage, status) in [("deny", 503), ("cached", 200)] {
        let provider = Provider::start();
        let mut settings = settings(&provider);
        settings["cached_for"] = json!("1s");
        settings["on_outage"] = json!(on_outage);
        let gateway = start(&settings);
        provider.set_token("opaque-1", json!({"sub": "ann"}));
        for _ in 0..3 {
            assert_eq!(gateway.request(&private("opaque-1")).status, 200);
        }
        assert_eq!(gateway.request(&private("no-token")).status, 401);
        provider.stop();
        let unknown = || {
            gateway.metric(
                "portcullis_introspections_total",
                &["\"corp\"", "\"unknown\""],
            )
        };
        // Until the response of before no longer counts, and the endpoint has failed.
        eventually("the outage is noticed", || {
            gateway.request(&private("no-token"));
            (unknown() >= 1.0).then_some(())
        });
        eventually("the earlier yes", || {
            (gateway.request(&private("opaque-1")).status == status).then_some(())
        });
        for _ in 0..3 {
            let response = gateway.request(&private("opaque-1"));
            assert_eq!(response.status, status, "{on_outage}");
            // A no, and a token that was never seen, are no yes.
            assert_unavailable(&gateway.request(&private("no-token")), on_outage);
            assert_unavailable(&gateway.request(&private("new-token")), on_outage);
        }
        // A yes that was taken back does not count in the next outage.
        provider.restart();
        provider.forget_token("opaque-1");
        eventually("the revocation is noticed", || {
            (gateway.request(&private("opaque-1")).status == 401).then_some(())
        });
        provider.stop();
        eventually("the second outage is noticed", || {
            (gateway.request(&private("opaque-1")).status == 503).then_some(())
        });
    }
}
