//! The caller's profile and password.

use http::StatusCode;
use serde_json::json;

use super::admin::admin_of;
use super::*;

const NEW: &str = "staple the battery";

struct Ann<'a> {
    gateway: &'a TestGateway,
    bearer: String,
    cookie: String,
    session: String,
}

async fn ann(gateway: &TestGateway) -> Ann<'_> {
    let response = gateway.register().await;
    ann_from_response(gateway, &response)
}

fn ann_from_response<'a>(gateway: &'a TestGateway, response: &TestResponse) -> Ann<'a> {
    Ann {
        gateway,
        bearer: format!("Bearer {}", response.text("/access_token")),
        cookie: response.cookie(),
        session: response.text("/session/id"),
    }
}

impl Ann<'_> {
    async fn call(&self, method: &str, path: &str, body: &Value) -> TestResponse {
        let headers = [("authorization", self.bearer.as_str())];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.gateway.call(method, path, &headers, &body).await
    }
}

fn field_names(response: &TestResponse) -> Vec<&str> {
    let fields = response.rejection.as_ref().unwrap().fields();
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn profile_is_shown_and_name_changed() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    let before = ann.call("GET", "/profile", &Value::Null).await;
    assert_eq!(before.text("/email"), EMAIL);
    assert!(!before.body.to_string().contains("argon2"));
    // A profile that was read may be sent back with another name in it.
    let mut sent = before.at("").clone();
    for (name, value) in [
        ("name", json!("Ann")),
        ("roles", json!(["admin"])),
        ("role", json!("admin")),
        ("is_admin", json!(true)),
        ("disabled", json!(true)),
    ] {
        sent.as_object_mut().unwrap().insert(name.to_owned(), value);
    }
    let changed = ann.call("PUT", "/profile", &sent).await;
    assert_eq!(changed.status, StatusCode::OK, "{:?}", changed.rejection);
    let after = ann.call("GET", "/profile", &Value::Null).await;
    assert_eq!(after.text("/name"), "Ann");
    assert_eq!(after.at("/roles"), &json!([]));
    ann.call("PUT", "/profile", &json!({"name": null})).await;
    let after = ann.call("GET", "/profile", &Value::Null).await;
    assert_eq!(after.at("/name"), &Value::Null);
    let refused = json!({"email": "x@y.example", "username": "bob", "id": 7, "name": 7});
    let refused = ann.call("PUT", "/profile", &refused).await;
    assert_eq!(refused.code(), "VALIDATION_FAILED");
    assert_eq!(field_names(&refused), ["id", "email", "username", "name"]);
}

#[tokio::test]
async fn new_password_ends_all_other_sessions() {
    let gateway = gateway().await;
    let other = gateway.register().await;
    let here = ann_from_response(&gateway, &gateway.login(EMAIL, PASSWORD).await);
    let body = json!({"current_password": PASSWORD, "new_password": NEW});
    let changed = here.call("PUT", "/profile/password", &body).await;
    assert_eq!(
        changed.status,
        StatusCode::NO_CONTENT,
        "{:?}",
        changed.rejection
    );
    assert!(!changed.info.limits.is_empty());
    assert!(gateway.is_session_active(&here.session).await);
    assert!(!gateway.is_session_active(&other.text("/session/id")).await);
    assert_eq!(gateway.count_events("password_changed").await, 1);
    let old = gateway.login(EMAIL, PASSWORD).await;
    assert_eq!(old.code(), "INVALID_CREDENTIALS");
    assert_eq!(gateway.login(EMAIL, NEW).await.status, StatusCode::OK);
    let refresh = json!({"refresh_token": other.text("/refresh_token")});
    let refreshed = gateway.post("/auth/refresh", &refresh).await;
    assert_eq!(refreshed.code(), "SESSION_REVOKED");
}

#[tokio::test]
async fn wrong_current_password_counts_as_failure() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    let body = json!({"current_password": "wrong", "new_password": NEW});
    for _ in 0..3 {
        let refused = ann.call("PUT", "/profile/password", &body).await;
        assert_eq!(refused.code(), "INVALID_CREDENTIALS");
        assert!(!refused.rejection.unwrap().decisions.is_empty());
    }
    let right = json!({"current_password": PASSWORD, "new_password": NEW});
    let refused = ann.call("PUT", "/profile/password", &right).await;
    assert_eq!(refused.code(), "RATE_LIMITED");
    // The account is over its limit; the typed name is not.
    assert_eq!(
        gateway.login(EMAIL, PASSWORD).await.code(),
        "INVALID_CREDENTIALS"
    );
    assert_eq!(gateway.count_events("sign_in_failed").await, 3);
}

#[tokio::test]
async fn new_password_is_validated_before_hashing() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    for bad in [
        json!("short"),
        json!("x".repeat(1025)),
        json!("Qwerty123456"),
        json!(EMAIL),
        json!("with a \u{0} in it"),
        json!(7),
        Value::Null,
    ] {
        let body = json!({"current_password": "x".repeat(1025), "new_password": bad});
        let refused = ann.call("PUT", "/profile/password", &body).await;
        let mut wrong = field_names(&refused);
        wrong.sort_unstable();
        assert_eq!(wrong, ["current_password", "new_password"], "{bad}");
    }
    let long = "x".repeat(128);
    let body = json!({"current_password": PASSWORD, "new_password": long});
    let changed = ann.call("PUT", "/profile/password", &body).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT);
    let cut = long.get(..127).unwrap();
    assert_eq!(
        gateway.login(EMAIL, cut).await.code(),
        "INVALID_CREDENTIALS"
    );
    assert_eq!(gateway.login(EMAIL, &long).await.status, StatusCode::OK);
}

#[tokio::test]
async fn signing_out_everywhere_ends_this_session_too() {
    let gateway = gateway().await;
    let other = gateway.register().await.text("/session/id");
    let here = ann_from_response(&gateway, &gateway.login(EMAIL, PASSWORD).await);
    let response = here.call("POST", "/auth/logout-all", &Value::Null).await;
    assert_eq!(response.at("/revoked"), 2);
    assert!(response.info.clear_cookie);
    assert!(
        !gateway.is_session_active(&other).await && !gateway.is_session_active(&here.session).await
    );
}

#[tokio::test]
async fn cookie_changes_from_other_sites_are_rejected() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    let description = gateway.call("GET", "/openapi.json", &[], "").await.body;
    let paths = description.pointer("/paths").unwrap().as_object().unwrap();
    let mut tried = 0;
    for (path, operations) in paths {
        let methods = operations.as_object().unwrap().keys();
        for method in methods.filter(|method| *method != "get") {
            let method = method.to_uppercase();
            let used = credential_use(&method.parse().unwrap(), path);
            if !matches!(used, CredentialUse::Optional | CredentialUse::Required) {
                continue;
            }
            let path = path.replace("{id}", &ann.session);
            for foreign in [
                ("x-nothing", "said"),
                ("origin", "http://evil.example"),
                ("origin", "null"),
                ("sec-fetch-site", "cross-site"),
            ] {
                let headers = [("cookie", ann.cookie.as_str()), foreign];
                let response = gateway.call(&method, &path, &headers, "{}").await;
                assert_eq!(
                    response.code(),
                    "CSRF_REJECTED",
                    "{method} {path} {foreign:?}"
                );
            }
            tried += 1;
        }
    }
    assert!(tried >= 6, "{tried}");
    assert!(gateway.is_session_active(&ann.session).await);
}

#[tokio::test]
async fn foreign_user_with_same_id_is_distinct() {
    let gateway = gateway().await;
    let signed_in = gateway.register().await;
    let claims = Arc::new(Claims {
        source: TokenSource::Trusted(0),
        issuer: "https://idp.example".to_owned(),
        session: None,
        ..claims(&signed_in.text("/access_token"))
    });
    assert_eq!(claims.user, signed_in.text("/user/id"));
    let identity = Identity::new(
        Principal::Token(Arc::clone(&claims)),
        Some(claims),
        CredentialKind::Bearer,
        0,
    );
    let send = |method: &str, path: &str| {
        let mut request = Request::builder().method(method).uri(path);
        let extensions = request.extensions_mut().unwrap();
        extensions.insert(Arc::clone(&gateway.snapshot));
        extensions.insert(Caller(Ok(Some(identity.clone()))));
        extensions.insert(Client {
            ip: "192.0.2.1".parse().unwrap(),
            https: false,
            host: HOST.to_owned(),
        });
        gateway
            .router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
    };
    let profile = read_response(send("GET", "/profile").await.unwrap()).await;
    assert_eq!(profile.code(), "NOT_FOUND");
    let sessions = read_response(send("GET", "/sessions").await.unwrap()).await;
    assert_eq!(sessions.at("/count"), 0);
    let everywhere = read_response(send("POST", "/auth/logout-all").await.unwrap()).await;
    assert_eq!(everywhere.at("/revoked"), 0);
    assert!(
        gateway
            .is_session_active(&signed_in.text("/session/id"))
            .await
    );
}

#[tokio::test]
async fn admin_changes_appear_in_the_profile() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    let profile = ann.call("GET", "/profile", &Value::Null).await;
    let path = format!("/admin/users/{}", profile.text("/id"));
    let patch = json!({"name": "Dr Ann", "roles": ["doctor"]});
    admin_of(&gateway)
        .call_as_operator("PATCH", &path, &patch)
        .await;
    let profile = ann.call("GET", "/profile", &Value::Null).await;
    assert_eq!(profile.text("/name"), "Dr Ann");
    assert_eq!(profile.at("/roles"), &json!(["doctor"]));
}
