//! Tokens that only their issuer can read: verified at its introspection endpoint (RFC 7662), cached for
//! a short time, and sent to no other server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::client::{Client, Request};
use crate::support::config::Config;
use crate::support::gateway::Gateway;
use crate::support::provider::{Endpoint, Provider};
use crate::support::redis::Redis;
use crate::support::tokens::{self, now};
use crate::support::upstream::Upstream;
use crate::support::wait::{PROPAGATION_DEADLINE, eventually, within};

/// The entry of a provider, as `corp`.
fn entry(provider: &Provider) -> Value {
    provider.introspection_settings("corp")
}

fn config(entries: Value) -> Config {
    Config::new(Upstream::start().address).set("/tokens/introspection", entries)
}

fn start(provider: &Provider) -> Gateway {
    Gateway::start(config(json!([entry(provider)])))
}

fn private(token: &str) -> Request {
    Request::get("/private/a").bearer(token)
}

#[test]
fn active_token_identifies_its_user() {
    let provider = Provider::start();
    let gateway = start(&provider);
    provider.set_token(
        "opaque-1",
        json!({
            "sub": "ann", "email": "ann@example.com", "roles": ["staff"], "scope": "read write",
            "exp": now() + 600, "token_type": "Bearer", "iss": provider.issuer, "aud": "anything",
            "sid": "ignored",
        }),
    );
    let echo = gateway.request(&private("opaque-1")).echo();
    assert_eq!(echo.header("x-user-id").as_deref(), Some("corp:ann"));
    assert_eq!(
        echo.header("x-user-email").as_deref(),
        Some("ann@example.com")
    );
    assert_eq!(echo.header("x-user-roles").as_deref(), Some("staff"));
    assert_eq!(echo.header("x-session-id"), None);
    assert_eq!(echo.header("authorization"), None);
    let [seen] = &provider.received(Endpoint::Introspection)[..] else {
        panic!("one call");
    };
    assert_eq!((&*seen.method, &*seen.query), ("POST", ""));
    assert_eq!(seen.header("accept"), Some("application/json"));
    let form = seen.header("content-type");
    assert_eq!(form, Some("application/x-www-form-urlencoded"));
    assert_eq!(seen.parameter("token").as_deref(), Some("opaque-1"));
    assert_eq!(
        seen.parameter("token_type_hint").as_deref(),
        Some("access_token")
    );
    // The secret is in the header alone, form-encoded before Basic, which the provider checks.
    assert_eq!(seen.parameter("client_secret"), None);
    gateway
        .request(&private("unknown"))
        .assert_refused(401, "TOKEN_INVALID");
    let optional = Request::get("/optional/a").bearer("unknown");
    gateway
        .request(&optional)
        .assert_refused(401, "TOKEN_INVALID");
    let ignored = Request::get("/public/a").bearer("opaque-9");
    assert_eq!(gateway.request(&ignored).status, 200);
    let tokens = provider.received(Endpoint::Introspection).into_iter();
    let tokens: Vec<_> = tokens.filter_map(|seen| seen.parameter("token")).collect();
    assert_eq!(tokens, ["opaque-1", "unknown"]);
    let logs = gateway.logs();
    for secret in provider.secrets().iter().chain(&["opaque-1".to_owned()]) {
        assert!(!logs.contains(secret.as_str()), "{secret}");
    }
    let line = gateway
        .events()
        .into_iter()
        .find(|line| line["user_id"] == "corp:ann");
    let line = line.unwrap();
    assert_eq!(
        (&line["credential"], &line["source"]),
        (&json!("token"), &json!("corp"))
    );
}

#[test]
fn response_is_cached_for_its_time_and_no_longer() {
    let provider = Provider::start();
    let mut settings = entry(&provider);
    settings["cached_for"] = json!("2s");
    let gateway = Gateway::start(config(json!([settings])));
    provider.set_token("opaque-1", json!({"sub": "ann"}));
    for token in ["opaque-1", "no-such-token"] {
        let before = provider.received(Endpoint::Introspection).len();
        let status = gateway.request(&private(token)).status;
        for _ in 0..20 {
            assert_eq!(gateway.request(&private(token)).status, status);
        }
        // Fewer than the requests: a slow machine may need more than the two seconds.
        let calls = provider.received(Endpoint::Introspection).len() - before;
        assert!((1..=3).contains(&calls), "{calls} calls for {token}");
    }
    // A known token is recalled without a look-up, but for no longer than the response counts.
    provider.forget_token("opaque-1");
    provider.set_token("no-such-token", json!({"sub": "bob"}));
    within(Duration::from_secs(10), "the revocation is noticed", || {
        (gateway.request(&private("opaque-1")).status == 401).then_some(())
    });
    within(Duration::from_secs(10), "the new token is noticed", || {
        (gateway.request(&private("no-such-token")).status == 200).then_some(())
    });
    let count = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        gateway.metric("portcullis_introspections_total", &["\"corp\"", &outcome])
    };
    assert!(count("active") >= 1.0 && count("inactive") >= 2.0);
    assert!(count("cached") >= 20.0);
    assert_eq!(count("unknown"), 0.0);
}

#[test]
fn default_time_of_the_cache_spares_most_calls() {
    let provider = Provider::start();
    let gateway = start(&provider);
    provider.set_token("opaque-1", json!({"sub": "ann"}));
    let mut client = Client::connect(gateway.public);
    for _ in 0..200 {
        assert_eq!(client.request(&private("opaque-1")).status, 200);
    }
    // Ten seconds each.
    assert!(provider.received(Endpoint::Introspection).len() <= 3);
}

#[test]
fn concurrent_requests_share_a_call_that_none_of_them_can_cancel() {
    let provider = Provider::start();
    let gateway = start(&provider);
    provider.set_token("opaque-1", json!({"sub": "ann"}));
    provider.vary(Endpoint::Introspection, |reply| {
        reply.delay = Duration::from_millis(700);
    });
    let mut first = Client::connect(gateway.public);
    first.send(private("opaque-1").to_bytes());
    provider.await_received(Endpoint::Introspection, 1);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| gateway.request(&private("opaque-1")).status))
            .collect();
        // The request that started the call is gone, and the call goes on.
        drop(first);
        for other in others {
            assert_eq!(other.join().unwrap(), 200);
        }
    });
    assert_eq!(provider.received(Endpoint::Introspection).len(), 1);
}

#[test]
fn calls_beyond_the_limit_are_refused_at_once() {
    let provider = Provider::start();
    let mut settings = entry(&provider);
    settings["concurrency"] = json!(1);
    settings["timeout"] = json!("20s");
    let gateway = Gateway::start(config(json!([settings])));
    provider.set_token("opaque-1", json!({"sub": "ann"}));
    provider.vary_next(Endpoint::Introspection, |reply| {
        reply.delay = Duration::from_secs(2);
    });
    let mut first = Client::connect(gateway.public);
    first.send(private("opaque-1").to_bytes());
    provider.await_received(Endpoint::Introspection, 1);
    gateway
        .request(&private("opaque-2"))
        .assert_refused(503, "OVERLOADED");
    // The same token needs no call of its own.
    assert_eq!(gateway.request(&private("opaque-1")).status, 200);
    assert_eq!(first.read_response().status, 200);
    gateway
        .request(&private("opaque-2"))
        .assert_refused(401, "TOKEN_INVALID");
}

#[test]
fn token_goes_to_the_server_of_its_prefix_alone() {
    let (one, two) = (Provider::start(), Provider::start());
    let mut of_two = two.introspection_settings("two");
    of_two["prefix"] = json!("two_");
    let gateway = Gateway::start(config(json!([of_two, one.introspection_settings("one")])));
    for provider in [&one, &two] {
        for token in ["two_1", "one_1"] {
            provider.set_token(token, json!({"sub": "ann"}));
        }
    }
    let user = |token: &str| gateway.request(&private(token)).echo().header("x-user-id");
    assert_eq!(user("two_1").as_deref(), Some("two:ann"));
    assert_eq!(user("one_1").as_deref(), Some("one:ann"));
    let jwt = tokens::sign(r#"{"alg":"HS256"}"#, r#"{"iss":"x"}"#, "a-secret");
    for token in [jwt.clone(), format!("{jwt}="), jwt.replace('.', "..")] {
        gateway
            .request(&private(&token))
            .assert_refused(401, "TOKEN_INVALID");
    }
    let sent = |provider: &Provider| {
        let received = provider.received(Endpoint::Introspection).into_iter();
        let tokens: Vec<_> = received
            .filter_map(|seen| seen.parameter("token"))
            .collect();
        tokens
    };
    assert_eq!(sent(&two), ["two_1"]);
    // Four dots are no signed token, and no other entry's.
    assert_eq!(sent(&one), ["one_1".to_owned(), jwt.replace('.', "..")]);
}

#[test]
fn blacklisted_token_is_rejected_on_every_gateway_within_a_second() {
    let (redis, provider, upstream) = (Redis::start(), Provider::start(), Upstream::start());
    let with_entry = || {
        Config::new(upstream.address)
            .store(&redis.url())
            .set("/tokens/introspection", json!([entry(&provider)]))
    };
    let gateways = [Gateway::start(with_entry()), Gateway::start(with_entry())];
    for (token, by_api) in [("opaque-1", false), ("opaque-2", true)] {
        provider.set_token(token, json!({"sub": "ann", "jti": "another-name"}));
        for gateway in &gateways {
            for _ in 0..4 {
                assert_eq!(gateway.request(&private(token)).status, 200);
            }
        }
        let mut stream = Client::connect(gateways[1].public);
        stream.send(Request::get("/private/sse").bearer(token).to_bytes());
        stream.read_head().unwrap();
        let key = hex::encode(Sha256::digest(token));
        if by_api {
            let call =
                Request::post("/admin/blacklist").json(&json!({ "token": token, "ttl": 60 }));
            let response = gateways[0].admin(call);
            assert_eq!(response.data()["jti"], key);
        } else {
            let name = format!("portcullis:blacklist:{key}");
            redis.command(&["SET", &name, "1", "EX", "60"]);
        }
        for gateway in &gateways {
            within(PROPAGATION_DEADLINE, "the token is rejected", || {
                let response = gateway.request(&private(token));
                (response.status == 401)
                    .then(|| response.assert_refused(401, "TOKEN_REVOKED").status)
            });
        }
        assert!(stream.closes_within(PROPAGATION_DEADLINE));
    }
}

#[test]
fn limits_count_users_and_tokens_of_an_entry() {
    let provider = Provider::start();
    let limit = |key: &str| json!({ "algorithm": "sliding_window", "limit": 2, "window": "10m", "key": key });
    let config = config(json!([entry(&provider)]))
        .set("/limits", json!({ "users": limit("user"), "tokens": limit("token") }))
        .route(json!({ "name": "users", "match": { "prefix": "/users" }, "upstream": "echo", "limits": ["users"] }))
        .route(json!({ "name": "tokens", "match": { "prefix": "/tokens" }, "upstream": "echo", "limits": ["tokens"] }));
    let gateway = Gateway::start(config);
    for token in ["ann-1", "ann-2"] {
        provider.set_token(token, json!({"sub": "ann"}));
    }
    let status =
        |path: &str, token: &str| gateway.request(&Request::get(path).bearer(token)).status;
    assert_eq!(
        [
            ("/users/a", "ann-1"),
            ("/users/a", "ann-2"),
            ("/users/a", "ann-1")
        ]
        .map(|(p, t)| status(p, t)),
        [200, 200, 429]
    );
    assert_eq!(
        ["ann-1", "ann-2", "ann-1", "ann-2", "ann-1"].map(|token| status("/tokens/a", token)),
        [200, 200, 200, 200, 429]
    );
}

/// A client over a limit by address does not have each of its inventions introspected.
#[test]
fn flood_of_invented_tokens_meets_the_limit_first() {
    let redis = Redis::start();
    for in_redis in [false, true] {
        let provider = Provider::start();
        let limit = json!({ "algorithm": "sliding_log", "limit": 3, "window": "10m", "key": "ip" });
        let config = config(json!([entry(&provider)]))
            .set("/limits", json!({ "addresses": limit }))
            .route(
                json!({ "name": "limited", "match": { "prefix": "/limited" }, "upstream": "echo",
                "limits": ["addresses"] }),
            );
        let gateway = Gateway::start(match in_redis {
            true => config.store(&redis.url()),
            false => config,
        });
        provider.set_token("opaque-1", json!({"sub": "ann"}));
        let request = |token: &str| gateway.request(&Request::get("/limited/a").bearer(token));
        assert_eq!(request("opaque-1").status, 200);
        for number in 0..2 {
            request(&format!("no-token-{number}")).assert_refused(401, "TOKEN_INVALID");
        }
        for number in 2..60 {
            request(&format!("no-token-{number}")).assert_refused(429, "RATE_LIMITED");
        }
        request("opaque-1").assert_refused(429, "RATE_LIMITED");
        // With Redis, a request per second asks it again.
        let calls = provider.received(Endpoint::Introspection).len();
        let expected = if in_redis { 4..30 } else { 3..4 };
        assert!(expected.contains(&calls), "{calls} calls");
        // Elsewhere the address is as good as any.
        assert_eq!(gateway.request(&private("opaque-1")).status, 200);
    }
}

#[test]
fn reload_replaces_entries_and_keeps_those_that_are_unchanged() {
    let provider = Provider::start();
    let mut gateway = start(&provider);
    provider.set_token("opaque-1", json!({"sub": "ann", "aud": "shop"}));
    assert_eq!(gateway.request(&private("opaque-1")).status, 200);
    gateway.reload("applied", |config| {
        config.put("/routes/0/max_body", json!("1KiB"));
    });
    assert_eq!(gateway.request(&private("opaque-1")).status, 200);
    assert_eq!(provider.received(Endpoint::Introspection).len(), 1);
    gateway.reload("applied", |config| {
        config.put("/tokens/introspection/0/audience", json!("another"));
    });
    gateway
        .request(&private("opaque-1"))
        .assert_refused(401, "TOKEN_INVALID");
    gateway.reload("applied", |config| {
        config.put("/tokens/introspection", json!([]))
    });
    gateway
        .request(&private("opaque-1"))
        .assert_refused(401, "TOKEN_INVALID");
    assert_eq!(provider.received(Endpoint::Introspection).len(), 2);
}

#[test]
fn client_authenticates_by_form_or_by_a_signed_assertion() {
    let provider = Arc::new(Provider::start());
    provider.set_token("opaque-1", json!({"sub": "ann"}));
    let mut post = entry(&provider);
    post["client_auth"] = json!("client_secret_post");
    let mut assertion = entry(&provider);
    let settings = assertion.as_object_mut().unwrap();
    settings.remove("client_secret");
    settings.insert("client_auth".to_owned(), json!("private_key_jwt"));
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = json!({ "algorithm": "ES256", "key": pair.serialize_pem() });
    settings.insert("client_key".to_owned(), key);
    for (settings, parameter) in [(post, "client_secret"), (assertion, "client_assertion")] {
        let gateway = Gateway::start(config(json!([settings])));
        assert_eq!(gateway.request(&private("opaque-1")).status, 200);
        let seen = provider.received(Endpoint::Introspection).pop().unwrap();
        assert!(seen.parameter(parameter).is_some());
        assert_eq!(seen.header("authorization"), None);
    }
}

#[test]
fn endpoint_is_discovered_when_it_is_needed() {
    let provider = Provider::start();
    let mut settings = entry(&provider);
    settings.as_object_mut().unwrap().remove("url");
    settings["issuer"] = json!(provider.issuer);
    provider.set_token("opaque-1", json!({"sub": "ann", "iss": provider.issuer}));
    provider.stop();
    let gateway = Gateway::start(config(json!([settings])));
    gateway
        .request(&private("opaque-1"))
        .assert_refused(503, "PROVIDER_UNAVAILABLE");
    provider.restart();
    eventually("the endpoint is found", || {
        (gateway.request(&private("opaque-1")).status == 200).then_some(())
    });
    // The document of another issuer names no endpoint of this one.
    provider.vary(Endpoint::Discovery, |reply| {
        reply.set("issuer", json!("https://id.example"))
    });
    let mut other = entry(&provider);
    other.as_object_mut().unwrap().remove("url");
    other["issuer"] = json!(provider.issuer);
    let gateway = Gateway::start(config(json!([other])));
    gateway
        .request(&private("opaque-1"))
        .assert_refused(503, "PROVIDER_UNAVAILABLE");
}
