//! No secret of a sign-in at a provider is in store, rows, logs, metrics, events or errors.

use serde_json::{Value, json};
use url::Url;

use super::provider_tokens::{Fixture, KEY, with_recheck};
use crate::support::client::{Request, Response};
use crate::support::config::{ADMIN_TOKEN, Config, SECRET};
use crate::support::gateway::Gateway;
use crate::support::provider::{CORP, Endpoint};
use crate::support::redis::Redis;
use crate::support::visitor::Visitor;
use crate::support::wait::eventually;

fn start(config: Config) -> Gateway {
    Gateway::start_with_arguments(config, &["--log-level", "trace"])
}

/// What was sent, and what the responses to it were.
#[derive(Default)]
struct Seen {
    secrets: Vec<String>,
    errors: String,
}

impl Seen {
    fn note(&mut self, response: &Response) {
        if response.status >= 400 {
            self.errors.push_str(&response.text());
        }
    }

    /// The values of the cookies of a browser.
    fn note_cookies(&mut self, visitor: &Visitor) {
        for line in visitor.cookies("portcullis") {
            let pair = line.split(';').next().unwrap();
            let (_, value) = pair.split_once('=').unwrap();
            self.secrets.push(value.to_owned());
        }
    }

    /// Goes to the provider, and returns the address of the callback.
    fn visit_provider(&mut self, fixture: &Fixture, visitor: &mut Visitor) -> Url {
        let start = fixture
            .provider
            .start_url(&fixture.gateways[0], "/private/a");
        let is_callback = |url: &Url| url.path().contains("/auth/callback/");
        let visit = visitor.follow(&start, is_callback);
        self.note_cookies(visitor);
        let callback = visit.hops.last().unwrap().clone();
        for (name, value) in callback.query_pairs() {
            if ["code", "state", "response"].contains(&&*name) {
                self.secrets.push(value.into_owned());
            }
        }
        callback
    }

    /// Sign-ins that fail at each step, and one that is repeated.
    fn fail_to_sign_in(&mut self, fixture: &Fixture) {
        let provider = &fixture.provider;
        // Responses that repeat what they received or contain.
        provider.vary_next(Endpoint::Token, |reply| {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            reply.set("token_type", json!(body));
        });
        self.callback(fixture);
        provider.vary_next(Endpoint::Token, |reply| {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            reply.refuse(400, &body);
            reply.set("error_description", json!(body));
        });
        self.callback(fixture);
        provider.vary_next(Endpoint::Token, |reply| reply.body.insert(0, b'['));
        self.callback(fixture);
        provider.vary_id_token(|token| token.claims["nonce"] = json!("another-nonce"));
        self.callback(fixture);
        provider.behave();
        // In another browser, as a program, and twice.
        let mut visitor = Visitor::new();
        let callback = self.visit_provider(fixture, &mut visitor);
        let response = Visitor::new().get(&callback);
        self.note(&response);
        let target = format!("{}?{}", callback.path(), callback.query().unwrap());
        let response = fixture.gateways[0].request(&Request::get(&target));
        self.note(&response);
        let response = visitor.get(&callback);
        assert_eq!(response.status, 303, "{}", response.text());
        self.note_cookies(&visitor);
        visitor.lose_cookies("portcullis");
        let response = visitor.get(&callback);
        self.note(&response);
    }

    fn callback(&mut self, fixture: &Fixture) {
        let mut visitor = Visitor::new();
        let callback = self.visit_provider(fixture, &mut visitor);
        let response = visitor.get(&callback);
        assert!(response.status >= 400, "{}", response.text());
        self.note(&response);
    }

    /// Logout tokens that are right, used before, and altered.
    fn log_out(&mut self, fixture: &Fixture) {
        let gateway = &fixture.gateways[0];
        let claims = json!({ "sid": fixture.provider.latest_sid() });
        let token = fixture.provider.logout_token(&claims).encode();
        for (token, status) in [
            (token.clone(), 200),
            (token.clone(), 400),
            (format!("{token}x"), 400),
        ] {
            let response = fixture.provider.send_logout(gateway, &token);
            assert_eq!(response.status, status, "{}", response.text());
            self.note(&response);
        }
    }
}

/// Everything that others may read, with its name.
fn places(fixture: &Fixture, seen: &Seen) -> Vec<(String, String)> {
    let mut places = vec![("errors".to_owned(), seen.errors.clone())];
    for gateway in &fixture.gateways {
        // Lines are written in their order: with this one all others are there.
        gateway.get("/the-last-request");
        places.push(("log".to_owned(), gateway.wait_for_log("/the-last-request")));
        for path in ["/metrics", "/admin/events", "/admin/sessions", "/ready"] {
            let response = gateway.admin(Request::get(path));
            places.push((path.to_owned(), response.text()));
        }
        let command = format!("/proc/{}/cmdline", gateway.pid());
        let command = std::fs::read_to_string(command).unwrap();
        places.push(("process list".to_owned(), command));
        for file in std::fs::read_dir(gateway.config.folder()).unwrap() {
            let path = file.unwrap().path();
            if path.to_string_lossy().contains(".db") {
                let bytes = std::fs::read(&path).unwrap();
                let text = String::from_utf8_lossy(&bytes).into_owned();
                places.push(("SQLite".to_owned(), text));
            }
        }
    }
    if let Some(redis) = &fixture.redis {
        places.push(("Redis".to_owned(), redis.dump()));
    }
    if let Some((server, database)) = &fixture.postgres {
        let all = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'";
        for table in server.sql(database, all).unwrap().lines() {
            let rows = format!("SELECT it::text FROM {table} it");
            let rows = server.sql(database, &rows).unwrap();
            places.push((format!("table {table}"), format!("{table}\n{rows}")));
        }
    }
    places
}

#[track_caller]
fn assert_kept(fixture: &Fixture, seen: &Seen) {
    let mut secrets = fixture.provider.secrets();
    secrets.extend(seen.secrets.iter().cloned());
    secrets.extend([KEY, SECRET, ADMIN_TOKEN].map(str::to_owned));
    let places = places(fixture, seen);
    for name in ["SQLite", "Redis", "table user_sessions"] {
        let is_database = (name == "SQLite") == fixture.redis.is_none();
        let is_read = places.iter().any(|(place, _)| place == name);
        assert_eq!(is_read, is_database, "{name}");
    }
    for (place, text) in &places {
        assert!(!text.is_empty(), "{place}");
        for secret in secrets.iter().filter(|secret| secret.len() >= 16) {
            // Rows of PostgreSQL show binary values in hexadecimal digits.
            for form in [secret.clone(), hex::encode(secret)] {
                if let Some(line) = text.lines().find(|line| line.contains(&form)) {
                    panic!("{secret} is in {place}: {line}");
                }
            }
        }
    }
}

/// Authenticates by a key, and has the response signed.
fn with_key(config: Config) -> Config {
    let key = include_str!("../../../src/auth/token/testdata/ec.pem");
    let file = config.write_beside("client.pem", key);
    let at = |name: &str| format!("/identity/providers/{CORP}/{name}");
    with_recheck("1s", "continue")(config)
        .set(&at("client_secret"), Value::Null)
        .set(&at("client_auth"), json!("private_key_jwt"))
        .set(
            &at("client_key"),
            json!({ "algorithm": "ES256", "id": "client-1", "key_file": file }),
        )
        .set(&at("response_mode"), json!("jwt"))
        .set(&at("par"), json!(true))
}

#[test]
fn secrets_are_nowhere_in_clear() {
    let recheck = || with_recheck("1s", "continue");
    for fixture in [
        Fixture::memory_by(start, recheck()),
        Fixture::fleet_by(start, Redis::start(), recheck()),
        Fixture::fleet_by(start, Redis::start(), with_key),
    ] {
        let published = fixture.gateways[0].get("/api/v1/auth/jwks/corp");
        if published.status == 200 {
            fixture.provider.set_client_keys(published.json());
        }
        let mut seen = Seen::default();
        seen.fail_to_sign_in(&fixture);
        // Tokens that are forwarded at once, and exchanged.
        fixture.provider.set_expires_in(5);
        let mut visitor = Visitor::new();
        let callback = seen.visit_provider(&fixture, &mut visitor);
        assert_eq!(visitor.get(&callback).status, 303);
        seen.note_cookies(&visitor);
        let cookie = visitor.session_cookie().unwrap();
        for gateway in 0..fixture.gateways.len() {
            for path in ["/bearer/a", "/id/a", "/api/v1/sessions/current"] {
                let response = fixture.get(gateway, path, &cookie);
                assert_eq!(response.status, 200, "{}", response.text());
            }
        }
        fixture.provider.vary(Endpoint::Token, |reply| {
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            reply.set("error_description", json!(body));
            reply.set("token_type", json!("other"));
        });
        eventually("a recheck without an outcome", || {
            fixture.get(0, "/private/a", &cookie);
            (fixture.rechecks("unknown") >= 1.0).then_some(())
        });
        assert_kept(&fixture, &seen);
        fixture.provider.behave();
        seen.log_out(&fixture);
        assert_kept(&fixture, &seen);
    }
}
