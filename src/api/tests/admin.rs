//! The admin listener.

use arc_swap::ArcSwap;
use http::StatusCode;
use serde_json::json;

use super::super::admin::{self, Readiness, ReloadOutcome};
use super::*;

pub(super) const TOKEN: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");

pub(super) struct TestAdmin {
    pub(super) router: Router,
    pub(super) readiness: Readiness,
}

pub(super) fn admin_of(gateway: &TestGateway) -> TestAdmin {
    let readiness = Readiness::default();
    let state = admin::AdminState {
        count_open_streams: Arc::new(|_| 0),
        snapshot: Arc::new(ArcSwap::new(Arc::clone(&gateway.snapshot))),
        accounts: gateway.state.accounts.clone(),
        sessions: gateway.state.sessions.clone(),
        store: gateway.state.store.clone(),
        metrics: Arc::clone(&gateway.metrics),
        events: gateway.state.events.clone(),
        readiness: readiness.clone(),
        sessions_on_outage: settings::SessionsOnOutage::Deny,
        host_name: None,
        reload: Arc::new(|| {
            Box::pin(async { ReloadOutcome::Rejected(vec!["f:1:2: wrong".to_owned()]) })
        }),
    };
    TestAdmin {
        router: admin::router(state),
        readiness,
    }
}

impl TestAdmin {
    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TestResponse {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("host", "127.0.0.1:9090");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        read_response(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// As an operator.
    pub(super) async fn call_as_operator(
        &self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> TestResponse {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.call(method, path, &[TOKEN], &body).await
    }
}

#[tokio::test]
async fn admin_endpoints_require_the_token() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    for (method, path) in [
        ("GET", "/admin/users"),
        ("PUT", "/admin/users"),
        ("GET", "/admin/sessions?user=x"),
        ("POST", "/admin/reload"),
        ("DELETE", "/admin/blacklist/x"),
        ("GET", "/admin/nothing"),
        ("GET", "/admin"),
    ] {
        assert_eq!(
            admin.call(method, path, &[], "").await.code(),
            "UNAUTHENTICATED",
            "{path}"
        );
    }
    let closed = gateway_with(|settings| settings.admin_token = None).await;
    let response = admin_of(&closed)
        .call_as_operator("GET", "/admin/users", &Value::Null)
        .await;
    assert_eq!(response.code(), "FORBIDDEN");
    assert_eq!(
        admin
            .call_as_operator("GET", "/admin/nothing", &Value::Null)
            .await
            .code(),
        "NOT_FOUND"
    );
    let response = admin
        .call_as_operator("PUT", "/admin/users", &Value::Null)
        .await;
    assert_eq!(response.code(), "METHOD_NOT_ALLOWED");
    assert_eq!(
        admin.call("GET", "/nothing", &[], "").await.code(),
        "NOT_FOUND"
    );
}

#[tokio::test]
async fn cross_site_pages_cannot_call_admin() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    for path in ["/health", "/ready", "/metrics", "/admin/users"] {
        for header in [
            ("origin", "http://evil.example"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let response = admin.call("GET", path, &[TOKEN, header], "").await;
            assert_eq!(response.code(), "FORBIDDEN", "{path} {header:?}");
        }
    }
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    gateway.register().await;
    let health = admin.call("GET", "/health", &[], "").await;
    let unknown =
        json!({"activeSessions": null, "cachedProfiles": null, "blacklistedTokens": null});
    let expected = json!({"status": "OK", "store": "connected", "sessionStats": unknown});
    assert_eq!(health.body, expected);
    let store = &gateway.state.store;
    let lease = store.begin_clean_up(Duration::ZERO).await;
    store
        .clean_up(&lease.unwrap().unwrap(), &mut Vec::new())
        .await
        .unwrap();
    let health = admin.call("GET", "/health", &[], "").await;
    assert_eq!(
        health.body.pointer("/sessionStats/activeSessions").unwrap(),
        1
    );

    let starting = admin.call("GET", "/ready", &[], "").await;
    assert_eq!(starting.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(starting.body.get("status").unwrap(), "starting");
    admin.readiness.set_serving();
    let ready = admin.call("GET", "/ready", &[], "").await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(ready.body.pointer("/store/up").unwrap(), true);
    assert_eq!(ready.body.pointer("/database/up").unwrap(), true);
    assert_eq!(ready.body.pointer("/upstreams/0/name").unwrap(), "orders");
    admin.readiness.set_draining();
    let draining = admin.call("GET", "/ready", &[], "").await;
    assert_eq!(draining.status, StatusCode::SERVICE_UNAVAILABLE);

    let metrics = admin.call("GET", "/metrics", &[], "").await;
    let kind = metrics.headers.get("content-type").unwrap();
    assert!(
        kind.to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
}

#[tokio::test]
async fn users_are_created_listed_shown_and_changed() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    let new = json!({"email": EMAIL, "password": PASSWORD, "roles": ["a"], "scopes": ["s"]});
    let created = admin.call_as_operator("POST", "/admin/users", &new).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert!(!created.body.to_string().contains("argon2"));
    assert_eq!(
        admin
            .call_as_operator("POST", "/admin/users", &new)
            .await
            .code(),
        "USER_EXISTS"
    );
    let path = format!("/admin/users/{}", created.text("/id"));
    let shown = admin.call_as_operator("GET", &path, &Value::Null).await;
    assert_eq!(shown.at("/online"), false);
    gateway.login(EMAIL, PASSWORD).await;
    let shown = admin.call_as_operator("GET", &path, &Value::Null).await;
    assert_eq!(
        (shown.at("/online"), shown.at("/live_connections")),
        (&json!(true), &json!(0))
    );
    let listed = admin
        .call_as_operator("GET", "/admin/users", &Value::Null)
        .await;
    assert_eq!(
        (listed.at("/count"), listed.at("/users/0/email")),
        (&json!(1), &json!(EMAIL))
    );
    let fixed = admin
        .call_as_operator("PATCH", &path, &json!({"username": "x"}))
        .await;
    assert_eq!(fixed.code(), "VALIDATION_FAILED");
    assert_eq!(
        admin
            .call_as_operator("GET", "/admin/users/none", &Value::Null)
            .await
            .code(),
        "NOT_FOUND"
    );
    let renamed = admin
        .call_as_operator("PATCH", &path, &json!({"name": "Ann"}))
        .await;
    assert_eq!(renamed.text("/name"), "Ann");
    assert_eq!(renamed.at("/roles"), &json!(["a"]));
}

#[tokio::test]
async fn role_changes_apply_to_active_sessions() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    let signed_in = gateway.register().await;
    let path = format!("/admin/users/{}", signed_in.text("/user/id"));
    let response = admin
        .call_as_operator("PATCH", &path, &json!({"roles": ["b"], "scopes": ["s"]}))
        .await;
    assert_eq!(response.status, StatusCode::OK);
    let id = SessionId::parse(&signed_in.text("/session/id")).unwrap();
    let session = gateway
        .state
        .store
        .session(id)
        .await
        .unwrap()
        .unwrap()
        .session;
    assert_eq!(
        (&*session.roles, &*session.scopes),
        (&["b".to_owned()][..], &["s".to_owned()][..])
    );
}

#[tokio::test]
async fn disabling_or_new_password_ends_all_sessions() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    let first = gateway.register().await;
    let path = format!("/admin/users/{}", first.text("/user/id"));
    admin
        .call_as_operator("PATCH", &path, &json!({"disabled": true}))
        .await;
    assert!(!gateway.is_session_active(&first.text("/session/id")).await);
    assert_eq!(
        gateway.login(EMAIL, PASSWORD).await.code(),
        "INVALID_CREDENTIALS"
    );
    admin
        .call_as_operator("PATCH", &path, &json!({"disabled": false}))
        .await;
    let second = gateway.login(EMAIL, PASSWORD).await;
    let short = admin
        .call_as_operator("PATCH", &path, &json!({"password": "short"}))
        .await;
    assert_eq!(short.code(), "VALIDATION_FAILED");
    let changed = admin
        .call_as_operator("PATCH", &path, &json!({"password": "another long one"}))
        .await;
    assert_eq!(changed.status, StatusCode::OK);
    assert!(!gateway.is_session_active(&second.text("/session/id")).await);
    assert_eq!(
        gateway.login(EMAIL, PASSWORD).await.code(),
        "INVALID_CREDENTIALS"
    );
    assert_eq!(
        gateway.login(EMAIL, "another long one").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn all_sessions_are_listed_in_pages() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    let user = gateway.register().await.text("/user/id");
    gateway.login(EMAIL, PASSWORD).await;
    let (mut seen, mut cursor) = (0, Value::Null);
    loop {
        let page = match cursor.as_str() {
            None => "/admin/sessions?limit=1".to_owned(),
            Some(cursor) => format!("/admin/sessions?limit=1&cursor={cursor}"),
        };
        let page = admin.call_as_operator("GET", &page, &Value::Null).await;
        assert_eq!(page.at("/sessions/0/user_id"), user.as_str());
        assert_eq!(page.at("/count"), 1);
        seen += 1;
        cursor = page.at("/next_cursor").clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(seen, 2);
}

#[tokio::test]
async fn sessions_are_listed_by_user_address_and_status() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    let first = gateway.register().await;
    gateway.from("192.0.2.9").login(EMAIL, PASSWORD).await;
    let user = first.text("/user/id");
    let list = format!("/admin/sessions?user={user}");
    let all = admin.call_as_operator("GET", &list, &Value::Null).await;
    assert_eq!(all.at("/count"), 2);
    let there = admin
        .call_as_operator("GET", &format!("{list}&ip=192.0.2.9"), &Value::Null)
        .await;
    assert_eq!(there.at("/count"), 1);
    assert_eq!(there.at("/sessions/0/ip_address"), "192.0.2.9");
    for (query, expected) in [
        ("ip=192.0.2.9", 1),
        ("ip=::ffff:192.0.2.9", 1),
        ("ip=::FFFF:C000:209", 1),
        ("ip=::192.0.2.9", 0),
        ("status=revoked", 0),
        ("status=all", 2),
    ] {
        let path = format!("/admin/sessions?{query}");
        let found = admin.call_as_operator("GET", &path, &Value::Null).await;
        assert_eq!(found.at("/count"), expected, "{query}");
    }
    for query in [
        "ip=here",
        "status=on",
        "limit=0",
        "cursor=x",
        "user=u&cursor=x",
    ] {
        let path = format!("/admin/sessions?{query}");
        let refused = admin.call_as_operator("GET", &path, &Value::Null).await;
        assert_eq!(refused.code(), "VALIDATION_FAILED", "{query}");
    }
}

#[tokio::test]
async fn sessions_are_ended_one_by_one_and_by_user() {
    let gateway = gateway().await;
    let admin = admin_of(&gateway);
    let first = gateway.register().await;
    gateway.login(EMAIL, PASSWORD).await;
    let one = format!("/admin/sessions/{}", first.text("/session/id"));
    let wait = admin
        .call_as_operator("DELETE", &format!("{one}?wait=all"), &Value::Null)
        .await;
    assert_eq!(wait.code(), "VALIDATION_FAILED");
    for revoked in [1, 0] {
        let response = admin.call_as_operator("DELETE", &one, &Value::Null).await;
        assert_eq!(response.at("/revoked"), revoked);
    }
    let every = format!("/admin/users/{}/sessions", first.text("/user/id"));
    let response = admin.call_as_operator("DELETE", &every, &Value::Null).await;
    assert_eq!(response.at("/revoked"), 1);
}
