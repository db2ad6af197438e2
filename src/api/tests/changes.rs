//! Changes to the caller's current session and avatar.

use http::StatusCode;
use serde_json::json;

use super::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR....\0\0\0\0IEND\xaeB`\x82";

struct SignedInCaller<'a> {
    gateway: &'a TestGateway,
    bearer: String,
}

async fn ann(gateway: &TestGateway) -> SignedInCaller<'_> {
    let response = gateway.register().await;
    SignedInCaller {
        gateway,
        bearer: format!("Bearer {}", response.text("/access_token")),
    }
}

impl SignedInCaller<'_> {
    async fn call(&self, method: &str, path: &str, body: &str) -> TestResponse {
        let headers = [("authorization", self.bearer.as_str())];
        self.gateway.call(method, path, &headers, body).await
    }

    async fn change(&self, body: &Value) -> TestResponse {
        self.call("PATCH", "/sessions/current", &body.to_string())
            .await
    }

    async fn send_avatar(&self, method: &str, kind: &str, bytes: &[u8]) -> TestResponse {
        let mut request = Request::builder()
            .method(method)
            .uri("/profile/avatar")
            .header("authorization", &self.bearer)
            .body(Body::from(bytes.to_vec()))
            .unwrap();
        if !kind.is_empty() {
            let kind = kind.parse().unwrap();
            request.headers_mut().insert("content-type", kind);
        }
        self.gateway.send(request).await
    }
}

fn field_names(response: &TestResponse) -> Vec<&str> {
    let fields = response.rejection.as_ref().unwrap().fields();
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn data_is_merged_and_the_device_renamed() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    let first = json!({"data": {"a": 1, "b": {"c": [true]}}, "device": {"name": "Ann's phone"}});
    let changed = ann.change(&first).await;
    assert_eq!(changed.status, StatusCode::OK, "{:?}", changed.rejection);
    assert_eq!(changed.at("/data"), &json!({"a": 1, "b": {"c": [true]}}));
    assert_eq!(changed.at("/device/name"), "Ann's phone");
    let second = json!({"data": {"a": null, "d": "x"}, "device": null, "unknown": 1});
    ann.change(&second).await;
    let shown = ann.call("GET", "/sessions/current", "").await;
    assert_eq!(shown.at("/data"), &json!({"b": {"c": [true]}, "d": "x"}));
    assert_eq!(shown.at("/device/name"), "Ann's phone");
    let other = gateway.login(EMAIL, PASSWORD).await;
    assert_eq!(other.at("/session/data"), &json!({}));
}

#[tokio::test]
async fn immutable_members_are_rejected_by_name() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    let before = ann.call("GET", "/sessions/current", "").await.body;
    let mut body = before.pointer("/data").unwrap().clone();
    let members = body.as_object_mut().unwrap();
    members.insert("data".to_owned(), json!("text"));
    members.insert("device".to_owned(), json!({"type": "x", "name": ""}));
    let count = members.len() + 1;
    let refused = ann.change(&body).await;
    assert_eq!(refused.code(), "VALIDATION_FAILED");
    assert_eq!(
        field_names(&refused).len(),
        count,
        "{:?}",
        field_names(&refused)
    );
    let long = json!({"data": {"a": "x".repeat(4096)}});
    assert_eq!(field_names(&ann.change(&long).await), ["data"]);
    for bad in [
        format!(
            r#"{{"data":{}1{}}}"#,
            "{\"a\":".repeat(200),
            "}".repeat(200)
        ),
        r#"{"data":{"a":1,"a":2}}"#.to_owned(),
        r#"{"data":{"a":"\ud800"}}"#.to_owned(),
        r#"{"data":{"a":1e999}}"#.to_owned(),
        r#"{"device":{"name":"\u0000"}}"#.to_owned(),
        "[]".to_owned(),
    ] {
        let refused = ann.call("PATCH", "/sessions/current", &bad).await;
        assert_eq!(refused.code(), "VALIDATION_FAILED", "{bad}");
    }
    let after = ann.call("GET", "/sessions/current", "").await.body;
    assert_eq!(after.pointer("/data/data"), before.pointer("/data/data"));
}

#[tokio::test]
async fn extend_moves_the_idle_expiry() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    let before = ann.call("GET", "/sessions/current", "").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let after = ann.call("POST", "/sessions/current/extend", "").await;
    assert_eq!(after.status, StatusCode::OK);
    assert!(after.text("/expires_at") > before.text("/expires_at"));
}

#[tokio::test]
async fn avatar_is_stored_shown_and_removed() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    let none = ann.call("GET", "/profile/avatar", "").await;
    assert_eq!(none.code(), "NOT_FOUND");
    let profile = ann.call("GET", "/profile", "").await;
    assert_eq!(profile.at("/avatar"), &Value::Null);
    for method in ["PUT", "POST"] {
        // The declared type does not matter, as long as it can be a picture.
        let given = ann.send_avatar(method, "image/gif", PNG).await;
        assert_eq!(given.text("/type"), "image/png", "{:?}", given.rejection);
    }
    let profile = ann.call("GET", "/profile", "").await;
    assert_eq!(profile.text("/avatar/type"), "image/png");
    let shown = ann.call("GET", "/profile/avatar", "").await;
    let header = |name: &str| shown.headers.get(name).unwrap().to_str().unwrap();
    assert_eq!(header("content-type"), "image/png");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(header("content-security-policy").contains("sandbox"));
    let gone = ann.call("DELETE", "/profile/avatar", "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let again = ann.call("DELETE", "/profile/avatar", "").await;
    assert_eq!(again.code(), "NOT_FOUND");
    let profile = ann.call("GET", "/profile", "").await;
    assert_eq!(profile.at("/avatar"), &Value::Null);
}

#[tokio::test]
async fn other_content_is_rejected_as_avatar() {
    let gateway = gateway().await;
    let ann = ann(&gateway).await;
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>";
    let refused = ann.send_avatar("PUT", "image/svg+xml", svg).await;
    assert_eq!(field_names(&refused), ["avatar"]);
    for kind in ["", "text/html", "application/json", "multipart/form-data"] {
        let refused = ann.send_avatar("PUT", kind, PNG).await;
        assert_eq!(refused.code(), "UNSUPPORTED_MEDIA_TYPE", "{kind}");
    }
    let mut large = PNG.to_vec();
    large.resize(1024 * 1024 + 1, 0);
    let refused = ann.send_avatar("PUT", "image/png", &large).await;
    assert_eq!(refused.code(), "BODY_TOO_LARGE");
}

#[tokio::test]
async fn new_device_records_an_event() {
    let gateway = gateway().await;
    gateway.register().await;
    let body = json!({"email": EMAIL, "password": PASSWORD}).to_string();
    for (agent, events) in [("", 0), ("Browser/1", 1), ("Browser/2", 1), ("Other", 2)] {
        let headers = [("user-agent", agent)];
        gateway.call("POST", "/auth/login", &headers, &body).await;
        assert_eq!(gateway.count_events("new_device").await, events, "{agent}");
    }
}

#[tokio::test]
async fn outdated_hash_is_replaced_at_sign_in() {
    let gateway = gateway().await;
    let user = gateway.register().await.text("/user/id");
    let database = &gateway.database;
    let hash = async || {
        database
            .user(&user)
            .await
            .unwrap()
            .unwrap()
            .password_hash
            .unwrap()
    };
    let params = argon2::Params::new(8192, 1, 1, None).unwrap();
    let (algorithm, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
    let cheap = argon2::Argon2::new(algorithm, version, params);
    let cheap = argon2::PasswordHasher::hash_password(&cheap, PASSWORD.as_bytes());
    let cheap = cheap.unwrap().to_string();
    assert!(
        database
            .replace_password_hash(&user, &hash().await, &cheap, None)
            .await
            .unwrap()
    );
    let wrong = gateway.login(EMAIL, "wrong").await;
    assert_eq!(wrong.code(), "INVALID_CREDENTIALS");
    assert_eq!(hash().await, cheap);
    // Concurrent sign-ins do not interfere.
    let (one, two) = tokio::join!(
        gateway.login(EMAIL, PASSWORD),
        gateway.login(EMAIL, PASSWORD)
    );
    assert_eq!((one.status, two.status), (StatusCode::OK, StatusCode::OK));
    assert!(hash().await.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    let again = gateway.login(EMAIL, PASSWORD).await;
    assert_eq!(again.status, StatusCode::OK);
}
