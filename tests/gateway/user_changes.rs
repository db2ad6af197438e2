//! Changes of users whose sessions and API keys could not follow them at once: they follow without a further
//! call, whatever kept them from it.

use serde_json::{Value, json};

use crate::support::api_keys::{KeyOperator, ShownKey};
use crate::support::client::{Client, Request};
use crate::support::config::{ADMIN_TOKEN, Config};
use crate::support::fault_proxy::FaultProxy;
use crate::support::gateway::{Gateway, SignedIn};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::wait::eventually;

/// A user with a session and a key.
struct Member {
    session: SignedIn,
    key: ShownKey,
}

fn member(gateway: &Gateway, operator: &KeyOperator, email: &str) -> Member {
    let session = gateway.register(email);
    let role = change(&session, &json!({ "roles": ["editor"] }));
    gateway.admin(role).assert_ok();
    let key = operator.create(&session.user, |new| new.roles = vec!["editor".to_owned()]);
    let member = Member { session, key };
    member.assert_roles(gateway, "editor");
    member
}

fn change(user: &SignedIn, body: &Value) -> Request {
    Request::new("PATCH", &format!("/admin/users/{}", user.user)).json(body)
}

impl Member {
    fn requests(&self) -> [Request; 2] {
        let get = || Request::get("/private/a");
        [
            get().cookie(&self.session.cookie),
            get().bearer(&self.key.key),
        ]
    }

    fn assert_roles(&self, gateway: &Gateway, roles: &str) {
        for request in self.requests() {
            eventually("the roles", || {
                let response = gateway.request(&request);
                let echo = (response.status == 200).then(|| response.echo())?;
                (echo.header("x-user-roles").unwrap_or_default() == roles).then_some(())
            });
        }
    }

    fn await_end(&self, gateway: &Gateway) {
        for (request, code) in self
            .requests()
            .iter()
            .zip(["SESSION_REVOKED", "TOKEN_REVOKED"])
        {
            eventually(code, || {
                let response = gateway.request(request);
                (response.status == 401).then(|| response.assert_refused(401, code).status)
            });
        }
    }
}

#[test]
fn changes_during_an_outage_of_the_store_are_applied_after_it() {
    let (upstream, mut redis) = (Upstream::start(), Redis::start_persistent());
    let config = Config::new(upstream.address).set("/api_keys", json!({}));
    let gateway = Gateway::start(config.store(&redis.url()));
    let operator = KeyOperator::of(&gateway.config);
    let [disabled, demoted, kept] = ["ann@example.com", "bob@example.com", "cid@example.com"]
        .map(|email| member(&gateway, &operator, email));
    let eve = gateway.register("eve@example.com");
    redis.kill();
    eventually("the outage is noticed", || {
        (gateway.metric("portcullis_store_up", &[]) == 0.0).then_some(())
    });
    for (user, body) in [
        (&disabled.session, json!({ "disabled": true })),
        (&demoted.session, json!({ "roles": [] })),
        (&eve, json!({ "password": "another good one" })),
    ] {
        let response = gateway.admin(change(user, &body));
        response.assert_refused(503, "STORE_UNAVAILABLE");
    }
    gateway.wait_for_log("sessions and API keys do not follow a change of their user yet");
    gateway.wait_for_log("the store may lack changes of API keys");
    redis.restart();
    disabled.await_end(&gateway);
    demoted.assert_roles(&gateway, "");
    let session = Request::get("/private/a").cookie(&eve.cookie);
    eventually("the session of the earlier password ends", || {
        let response = gateway.request(&session);
        (response.status == 401).then(|| response.assert_refused(401, "SESSION_REVOKED").status)
    });
    kept.assert_roles(&gateway, "editor");
    gateway.wait_for_log("sessions and API keys follow a change of their user");
    gateway.wait_for_log("the store has all changes of API keys");
    // A session of the new password stays.
    let body = json!({ "email": "eve@example.com", "password": "another good one" });
    let again = gateway.request(&Request::post("/api/v1/auth/login").json(&body));
    again.assert_ok();
}

/// The database has the change, and the gateway does not learn it.
#[test]
fn change_of_unknown_outcome_is_applied() {
    let (upstream, redis, server) = (Upstream::start(), Redis::start(), Postgres::server());
    let name = server.database();
    let database = FaultProxy::before(server.address);
    let config = |address| {
        Config::new(upstream.address)
            .set("/api_keys", json!({}))
            .store(&redis.url())
            .postgres(address, &name)
    };
    let gateway = Gateway::start(config(database.address));
    let operator = KeyOperator::of(&config(server.address));
    let ann = member(&gateway, &operator, "ann@example.com");
    let bob = member(&gateway, &operator, "bob@example.com");
    database.cut_after(b"last-words");
    let body = json!({ "disabled": true, "roles": ["last-words"] });
    let response = gateway.admin(change(&ann.session, &body));
    assert_eq!(response.status, 503, "{}", response.text());
    database.restore();
    ann.await_end(&gateway);
    bob.assert_roles(&gateway, "editor");
}

#[test]
fn change_is_applied_after_its_client_has_gone() {
    let (upstream, redis) = (Upstream::start(), Redis::start());
    let config = Config::new(upstream.address)
        .set("/api_keys", json!({}))
        .set("/store/timeout", json!("20s"))
        .store(&redis.url());
    let gateway = Gateway::start(config);
    let operator = KeyOperator::of(&gateway.config);
    let ann = member(&gateway, &operator, "ann@example.com");
    redis.pause();
    let mut client = Client::connect(gateway.admin);
    let disable = change(&ann.session, &json!({ "disabled": true })).bearer(ADMIN_TOKEN);
    client.send(disable.to_bytes());
    // Reported once the database has it, before the store is called.
    gateway.wait_for_log("user_disabled");
    drop(client);
    gateway.wait_for_log("sessions and API keys do not follow a change of their user yet");
    redis.resume();
    ann.await_end(&gateway);
}
