//! Users of the database who sign in at a provider: first sign-ins, links, unlinks, and roles.

use serde_json::{Value, json};
use url::Url;

use crate::support::client::{Request, Response};
use crate::support::clock::Clock;
use crate::support::config::Config;
use crate::support::gateway::{Gateway, PASSWORD};
use crate::support::postgres::Postgres;
use crate::support::provider::{Provider, User};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::visitor::{Visit, Visitor};

struct Site {
    provider: Provider,
    gateway: Gateway,
    _upstream: Upstream,
}

/// A gateway whose users at `corp` have rows, beside passwords.
fn site(users: &Value, change: impl FnOnce(Config) -> Config) -> Site {
    let (provider, upstream) = (Provider::start(), Upstream::start());
    let mut config = provider.configure(Config::new(upstream.address));
    config.put("/identity/providers/corp/users", json!("database"));
    config.put(
        "/identity/providers/corp/claims",
        json!({ "roles": "groups" }),
    );
    config.put("/identity/builtin/registration", json!("closed"));
    for (key, value) in users.as_object().unwrap() {
        config.put(&format!("/identity/providers/corp/{key}"), value.clone());
    }
    Site {
        gateway: Gateway::start(change(config)),
        provider,
        _upstream: upstream,
    }
}

/// Everything embedded; and over Redis and PostgreSQL.
fn for_each_store(story: impl Fn(&dyn Fn(Value) -> Site)) {
    let (redis, people) = (Redis::start(), Postgres::server());
    story(&|users| site(&users, |config| config));
    story(&|users| {
        site(&users, |config| {
            let config = config.store(&redis.url());
            let prefix = format!("test{}:", config.listener(0).port());
            let config = config.set("/store/key_prefix", json!(prefix));
            config.postgres(people.address, &people.database())
        })
    });
}

impl Site {
    fn url(&self, target: &str) -> Url {
        Url::parse(&format!("http://{}{target}", self.gateway.public)).unwrap()
    }

    /// Signs in at the provider and opens a page.
    fn sign_in(&self, visitor: &mut Visitor) -> Visit {
        visitor.open(&self.provider.start_url(&self.gateway, "/private/a"))
    }

    /// The user and the roles that the upstream saw.
    #[track_caller]
    fn signed_in(&self, visitor: &mut Visitor) -> (String, Option<String>) {
        let visit = self.sign_in(visitor);
        assert_eq!(visit.response.status, 200, "{visit:?}");
        seen(&visit.response)
    }

    fn page(&self, visitor: &mut Visitor) -> Response {
        visitor.get(&self.url("/private/a"))
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        let mut visitor = Visitor::new();
        let visit = self.sign_in(&mut visitor);
        assert_eq!(visit.response.status, status, "{visit:?}");
        assert!(visit.response.text().contains(code), "{visit:?}");
        assert_eq!(visitor.session_cookie(), None);
    }

    fn add_user(&self, email: &str) -> String {
        let body = json!({ "email": email, "password": PASSWORD, "roles": ["boss"] });
        let created = self
            .gateway
            .admin(Request::post("/admin/users").json(&body));
        assert_eq!(created.status, 201, "{}", created.text());
        created.data()["id"].as_str().unwrap().to_owned()
    }

    fn patch(&self, user: &str, change: &Value) {
        let request = Request::new("PATCH", &format!("/admin/users/{user}")).json(change);
        self.gateway.admin(request).assert_ok();
    }

    fn identities(&self, user: &str) -> Vec<Value> {
        let path = format!("/admin/users/{user}/identities");
        let list = self.gateway.admin(Request::get(&path)).data();
        list["identities"].as_array().unwrap().clone()
    }

    fn operator(&self, method: &str, user: &str, subject: &str) -> Response {
        let path = format!("/admin/users/{user}/identities");
        let body = json!({ "provider": "corp", "subject": subject });
        self.gateway.admin(Request::new(method, &path).json(&body))
    }

    fn events(&self, kind: &str) -> usize {
        let events = self.gateway.events();
        events.iter().filter(|event| event["event"] == kind).count()
    }

    /// Signs in with the password, in a browser.
    fn password_sign_in(&self, visitor: &mut Visitor, email: &str) -> Response {
        let body = json!({ "email": email, "password": PASSWORD });
        let url = self.url("/api/v1/auth/login");
        visitor.send(&url, Request::post(url.path()).json(&body))
    }

    fn call(&self, visitor: &mut Visitor, method: &str, path: &str) -> Response {
        let url = self.url(path);
        let origin = url.origin().ascii_serialization();
        let target = &url[url::Position::BeforePath..];
        let request = Request::new(method, target)
            .header("Host", url.authority())
            .header("Origin", &origin);
        visitor.send(&url, request)
    }

    /// Starts to link, and returns the callback as a browser sends it that has lost its session, or whose
    /// cookie is strict: it comes with a redirect from another site.
    fn callback_without_session(&self, browser: &mut Visitor) -> Request {
        browser.lose_cookies("-flow-");
        let start = self.call(browser, "POST", "/api/v1/auth/link/corp");
        let is_callback = |url: &Url| url.path().contains("/auth/callback/");
        let visit = browser.follow(start.header("location").unwrap(), is_callback);
        let callback = visit.hops.last().unwrap();
        let cookies = browser.cookie_header(callback);
        let flow = cookies.split("; ").find(|it| it.contains("-flow-"));
        Request::get(&callback[url::Position::BeforePath..]).cookie(flow.unwrap())
    }

    /// Starts to link, and follows the way to its end.
    fn link(&self, visitor: &mut Visitor) -> Response {
        let start = self.call(
            visitor,
            "POST",
            "/api/v1/auth/link/corp?return_to=/private/linked",
        );
        match start.header("location") {
            Some(location) => visitor.open(location).response,
            None => start,
        }
    }
}

fn seen(response: &Response) -> (String, Option<String>) {
    let echo = response.echo();
    let header = |name: &str| echo.header(name);
    (header("x-user-id").unwrap(), header("x-user-roles"))
}

fn ann(groups: &[&str]) -> User {
    User::new("ann").claim("groups", json!(groups))
}

#[test]
fn identity_has_a_row_whose_roles_and_its_own_are_in_force() {
    for_each_store(|site| {
        let site = site(json!({}));
        site.provider.set_user(ann(&["staff"]));
        let mut browser = Visitor::new();
        let (user, roles) = site.signed_in(&mut browser);
        assert_eq!((user.len(), roles.as_deref()), (36, Some("staff")));
        // An operator's change keeps the mapped roles, at once.
        site.patch(&user, &json!({ "roles": ["boss"] }));
        let roles = seen(&site.page(&mut browser)).1;
        assert_eq!(roles.as_deref(), Some("boss,staff"));
        // A sign-in elsewhere maps anew, for the sessions of this identity.
        site.provider.set_user(ann(&["ops", "boss"]));
        let again = site.signed_in(&mut Visitor::new());
        assert_eq!(again, (user.clone(), Some("boss,ops".to_owned())));
        // There is no password; an operator can set one, and its sessions have the row's roles alone.
        let refused = site.password_sign_in(&mut Visitor::new(), "ann@example.com");
        refused.assert_refused(401, "INVALID_CREDENTIALS");
        site.patch(&user, &json!({ "password": PASSWORD }));
        let mut other = Visitor::new();
        site.password_sign_in(&mut other, "ann@example.com")
            .assert_ok();
        let (same, roles) = seen(&site.page(&mut other));
        assert_eq!((same, roles.as_deref()), (user, Some("boss")));
        assert_eq!(site.events("user_created"), 1);
    });
}

#[test]
fn email_of_another_row_is_not_taken_over() {
    for_each_store(|site| {
        let site = site(json!({}));
        let bob = site.add_user("bob@example.com");
        site.provider.set_user(User::new("bob"));
        site.refused(409, "USER_EXISTS");
        let shouting = User::new("b2").claim("email", json!("BOB@Example.com"));
        site.provider.set_user(shouting);
        site.refused(409, "USER_EXISTS");
        // One that is not verified is not stored, and joins nothing.
        for verified in [json!(false), json!("true"), Value::Null] {
            let user = User::new("b3").claim("email", json!("bob@example.com"));
            site.provider
                .set_user(user.claim("email_verified", verified));
            let (user, _) = site.signed_in(&mut Visitor::new());
            assert_ne!(user, bob);
            let shown = site
                .gateway
                .admin(Request::get(&format!("/admin/users/{user}")));
            assert_eq!(shown.data()["email"], "");
        }
        assert!(site.identities(&bob).is_empty());
    });
}

#[test]
fn verified_email_joins_the_row_that_has_it() {
    for_each_store(|site| {
        let site = site(json!({ "create": false, "link_by_email": true }));
        let bob = site.add_user("bob@example.com");
        site.provider.set_user(User::new("nobody"));
        site.refused(403, "SIGN_IN_REFUSED");
        site.provider
            .set_user(User::new("x").claim("email", json!("Bob@example.com")));
        assert_eq!(site.signed_in(&mut Visitor::new()).0, bob);
        assert_eq!(site.events("identity_linked"), 1);
        // Another account at the provider that has got the email does not.
        site.provider
            .set_user(User::new("y").claim("email", json!("bob@example.com")));
        site.refused(409, "USER_EXISTS");
        // A disabled row is joined never, and signs in never.
        let off = site.add_user("off@example.com");
        site.patch(&off, &json!({ "disabled": true }));
        site.provider.set_user(User::new("off"));
        site.refused(409, "USER_EXISTS");
        assert!(site.identities(&off).is_empty());
    });
}

#[test]
fn operator_links_and_unlinks() {
    for_each_store(|site| {
        let site = site(json!({ "create": false }));
        let (bob, eve) = (
            site.add_user("bob@example.com"),
            site.add_user("eve@example.com"),
        );
        site.provider.set_user(User::new("b"));
        site.refused(403, "SIGN_IN_REFUSED");
        let linked = site.operator("POST", &bob, "b");
        assert_eq!(linked.status, 201, "{}", linked.text());
        assert_eq!(linked.data()["issuer"], site.provider.issuer.as_str());
        site.operator("POST", &eve, "b")
            .assert_refused(409, "USER_EXISTS");
        site.operator("POST", &bob, "")
            .assert_refused(400, "VALIDATION_FAILED");
        let mut browser = Visitor::new();
        assert_eq!(site.signed_in(&mut browser).0, bob);
        site.patch(&bob, &json!({ "disabled": true }));
        assert_eq!(site.page(&mut browser).status, 401);
        site.refused(403, "SIGN_IN_REFUSED");
        site.patch(&bob, &json!({ "disabled": false }));
        assert_eq!(site.signed_in(&mut browser).0, bob);
        // Its sessions end with it, others of the user stay.
        let mut other = Visitor::new();
        site.password_sign_in(&mut other, "bob@example.com")
            .assert_ok();
        site.operator("DELETE", &eve, "b")
            .assert_refused(404, "NOT_FOUND");
        assert_eq!(site.operator("DELETE", &bob, "b").status, 204);
        assert_eq!(site.page(&mut browser).status, 401);
        assert_eq!(site.page(&mut other).status, 200);
        site.refused(403, "SIGN_IN_REFUSED");
        // What was unlinked is anyone's again.
        assert_eq!(site.operator("POST", &eve, "b").status, 201);
        assert_eq!(site.signed_in(&mut Visitor::new()).0, eve);
        assert_eq!(site.events("identity_linked"), 2);
        assert_eq!(site.events("identity_unlinked"), 1);
    });
}

#[test]
fn user_links_and_unlinks_up_to_the_last_way_to_sign_in() {
    for_each_store(|site| {
        let site = site(json!({ "create": false }));
        let bob = site.add_user("bob@example.com");
        site.provider.set_user(User::new("b"));
        let mut browser = Visitor::new();
        site.password_sign_in(&mut browser, "bob@example.com")
            .assert_ok();
        let cookie = browser.session_cookie();
        let linked = site.link(&mut browser);
        assert_eq!(seen(&linked).0, bob);
        assert_eq!(browser.session_cookie(), cookie);
        // Linking again changes nothing.
        site.link(&mut browser).assert_ok();
        let list = site
            .call(&mut browser, "GET", "/api/v1/profile/identities")
            .data();
        assert_eq!(list["count"], 1);
        let identity = &list["identities"][0];
        assert_eq!(
            (&identity["provider"], &identity["subject"]),
            (&json!("corp"), &json!("b"))
        );
        let id = identity["id"].as_str().unwrap();
        let mut other = Visitor::new();
        assert_eq!(site.signed_in(&mut other).0, bob);
        // The one who unlinks stays signed in; the password is left.
        let path = format!("/api/v1/profile/identities/{id}");
        assert_eq!(site.call(&mut browser, "DELETE", &path).status, 204);
        assert_eq!(site.page(&mut browser).status, 200);
        assert_eq!(site.page(&mut other).status, 401);
        site.call(&mut browser, "DELETE", &path)
            .assert_refused(404, "NOT_FOUND");

        let site = self::site(&json!({}), |config| config);
        site.provider.set_user(ann(&[]));
        let (user, _) = site.signed_in(&mut browser);
        let id = site.identities(&user)[0]["id"].as_str().unwrap().to_owned();
        let path = format!("/api/v1/profile/identities/{id}");
        site.call(&mut browser, "DELETE", &path)
            .assert_refused(409, "LAST_IDENTITY");
        site.operator("DELETE", &user, "ann")
            .assert_refused(409, "LAST_IDENTITY");
        assert_eq!(site.page(&mut browser).status, 200);
        // Of the sessions that the identity has opened, the one that unlinks it goes on.
        let mut elsewhere = Visitor::new();
        site.signed_in(&mut elsewhere);
        site.patch(&user, &json!({ "password": PASSWORD }));
        let again = site.signed_in(&mut browser);
        assert_eq!(again.0, user);
        site.signed_in(&mut elsewhere);
        assert_eq!(site.call(&mut browser, "DELETE", &path).status, 204);
        assert_eq!(site.page(&mut browser).status, 200);
        assert_eq!(site.page(&mut elsewhere).status, 401);
    });
}

#[test]
fn identity_that_allow_rejects_is_not_linked() {
    let site = site(&json!({ "allow": { "users": ["b"] } }), |config| config);
    let bob = site.add_user("bob@example.com");
    let mut browser = Visitor::new();
    site.password_sign_in(&mut browser, "bob@example.com")
        .assert_ok();
    site.provider.set_user(User::new("other"));
    let refused = site.link(&mut browser);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("SIGN_IN_REFUSED"));
    assert!(site.identities(&bob).is_empty());
    site.provider.set_user(User::new("b"));
    site.link(&mut browser).assert_ok();
    assert_eq!(site.identities(&bob).len(), 1);
}

#[test]
fn identity_is_linked_only_where_users_have_rows() {
    let mut site = site(&json!({}), |config| config);
    let bob = site.add_user("bob@example.com");
    let hub = site.provider.github_settings();
    site.gateway.reload("applied", |config| {
        config.put("/identity/providers/hub", hub);
    });
    let mut browser = Visitor::new();
    site.password_sign_in(&mut browser, "bob@example.com")
        .assert_ok();
    site.call(&mut browser, "POST", "/api/v1/auth/link/hub")
        .assert_refused(404, "NOT_FOUND");
    // A user of the other provider has no row.
    let mut external = Visitor::new();
    let start = site.url("/api/v1/auth/start/hub?return_to=/private/a");
    assert_eq!(external.open(start.as_str()).response.status, 200);
    site.call(&mut external, "POST", "/api/v1/auth/link/corp")
        .assert_refused(404, "NOT_FOUND");
    // Users lose their rows while one of them is at the provider.
    let start = site.call(&mut browser, "POST", "/api/v1/auth/link/corp");
    site.gateway.reload("applied", |config| {
        config.put("/identity/providers/corp/users", json!("external"));
    });
    let visit = browser.open(start.header("location").unwrap());
    assert_eq!(visit.response.status, 400, "{visit:?}");
    assert!(visit.response.text().contains("FLOW_INVALID"));
    assert!(site.identities(&bob).is_empty());
}

#[test]
fn strict_cookie_is_not_needed_to_link_but_its_session_is() {
    let site = site(&json!({ "create": false }), |config| {
        config.set("/sessions/cookie/same_site", json!("strict"))
    });
    let bob = site.add_user("bob@example.com");
    site.provider.set_user(User::new("b"));
    let mut browser = Visitor::new();
    site.password_sign_in(&mut browser, "bob@example.com")
        .assert_ok();
    let callback = site.callback_without_session(&mut browser);
    site.call(&mut browser, "POST", "/api/v1/auth/logout");
    let ended = site.gateway.request(&callback);
    ended.assert_refused(400, "FLOW_INVALID");
    assert!(site.identities(&bob).is_empty());
    site.password_sign_in(&mut browser, "bob@example.com")
        .assert_ok();
    let linked = site
        .gateway
        .request(&site.callback_without_session(&mut browser));
    assert_eq!(linked.status, 303, "{}", linked.text());
    assert_eq!(site.identities(&bob).len(), 1);
}

#[test]
fn identity_is_linked_only_by_the_session_that_started_it() {
    let clock = Clock::start();
    let site = site(&json!({ "create": false }), |config| config.clock(&clock));
    let (bob, eve) = (
        site.add_user("bob@example.com"),
        site.add_user("eve@example.com"),
    );
    site.provider.set_user(User::new("b"));
    let (mut browser, mut attacker) = (Visitor::new(), Visitor::new());
    site.password_sign_in(&mut browser, "bob@example.com")
        .assert_ok();
    site.password_sign_in(&mut attacker, "eve@example.com")
        .assert_ok();
    // Another site cannot start it.
    let url = site.url("/api/v1/auth/link/corp");
    let foreign = Request::post(url.path()).header("Origin", "https://evil.example");
    browser
        .send(&url, foreign)
        .assert_refused(403, "CSRF_REJECTED");
    site.call(&mut Visitor::new(), "POST", url.path())
        .assert_refused(401, "UNAUTHENTICATED");
    site.call(&mut browser, "POST", "/api/v1/auth/link/other")
        .assert_refused(404, "NOT_FOUND");
    // Nor can another browser finish it, with or without a session.
    let callback = site.callback_without_session(&mut attacker);
    let refused = site.gateway.request(&callback);
    refused.assert_refused(400, "FLOW_INVALID");
    for has_session in [true, false] {
        let start = site.call(&mut attacker, "POST", url.path());
        let mut victim = attacker.clone();
        match has_session {
            true => site.password_sign_in(&mut victim, "bob@example.com"),
            false => site.call(&mut victim, "POST", "/api/v1/auth/logout"),
        };
        let visit = victim.open(start.header("location").unwrap());
        assert_eq!(visit.response.status, 400, "{visit:?}");
        assert!(visit.response.text().contains("FLOW_INVALID"));
    }
    assert!(site.identities(&bob).is_empty() && site.identities(&eve).is_empty());
    // An identity of another user is not linked.
    assert_eq!(site.operator("POST", &eve, "b").status, 201);
    let taken = site.link(&mut browser);
    assert_eq!(taken.status, 409);
    assert!(taken.text().contains("USER_EXISTS"));
    assert_eq!(site.operator("DELETE", &eve, "b").status, 204);
    // A session that was opened longer ago does not link.
    clock.step(306);
    let old = site.link(&mut browser);
    old.assert_refused(401, "INSUFFICIENT_AUTHENTICATION");
    let challenge = old.header("www-authenticate").unwrap();
    assert!(challenge.ends_with("max_age=\"300\""), "{challenge}");
}
