#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::*;
use crate::auth::provider_sign_in::ProviderSignIn;
use crate::auth::session::{Activity, Device, EndReason, Session, SessionEnd};

#[test]
fn times_are_utc_with_milliseconds_and_never_panic() {
    assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    assert_eq!(rfc3339(Millis::MAX), "9999-12-31T23:59:59.999Z");
}

fn entry(ended: Option<SessionEnd>) -> SessionEntry {
    SessionEntry {
        session: Session {
            id: SessionId([1; 32]),
            user: "u".to_owned(),
            email: "e".to_owned(),
            username: None,
            name: None,
            roles: [].into(),
            scopes: [].into(),
            created_at: 10_000,
            expires_at: 1_000_000,
            ip: "192.0.2.1".parse().unwrap(),
            user_agent: "".into(),
            device: Device::default(),
            ended,
            data: crate::auth::session::no_data(),
            revision: 0,
            provider: None,
            api_key: None,
        },
        activity: Activity {
            last_access: 20_000,
            ..Activity::default()
        },
    }
}

fn shown(entry: &SessionEntry, current: Option<SessionId>) -> Value {
    let context = ViewContext {
        idle: Some(Duration::from_secs(60)),
        now: 40_000,
        current,
        count_open_streams: std::sync::Arc::new(|_| 0),
    };
    serde_json::to_value(session(entry, &context)).unwrap()
}

fn member(shown: &Value, name: &str) -> Value {
    shown.get(name).unwrap().clone()
}

#[test]
fn session_view_has_the_documented_members() {
    let shown = shown(&entry(None), Some(SessionId([1; 32])));
    let mut names: Vec<&str> = shown
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    let expected = "acr amr authenticated_at created_at current data device duration_seconds \
                    email expires_at id ip_address ip_addresses is_active last_access \
                    live_connections provider request_count status user_agent user_id";
    assert_eq!(names.join(" "), expected);
    assert_eq!(member(&shown, "status"), "active");
    assert_eq!(member(&shown, "expires_at"), "1970-01-01T00:01:20.000Z");
    assert_eq!(member(&shown, "duration_seconds"), 30);
    assert_eq!(member(&shown, "ip_addresses"), json!(["192.0.2.1"]));
    assert_eq!(member(&shown, "current"), true);
}

#[test]
fn sign_in_at_a_provider_is_shown() {
    let mut entry = entry(None);
    let by_password = shown(&entry, None);
    assert_eq!(member(&by_password, "provider"), Value::Null);
    assert_eq!(member(&by_password, "acr"), Value::Null);
    assert_eq!(member(&by_password, "amr"), json!([]));
    let created_at = member(&by_password, "created_at");
    assert_eq!(member(&by_password, "authenticated_at"), created_at);
    entry.session.provider = Some(std::sync::Arc::new(ProviderSignIn {
        provider: "corp".into(),
        subject: "1".to_owned(),
        sid: Some("hidden".to_owned()),
        authenticated_at: 5_000,
        acr: Some("mfa".into()),
        amr: ["otp".to_owned()].into(),
    }));
    let by_provider = shown(&entry, None);
    assert_eq!(member(&by_provider, "provider"), "corp");
    let authenticated_at = member(&by_provider, "authenticated_at");
    assert_eq!(authenticated_at, "1970-01-01T00:00:05.000Z");
    assert_eq!(member(&by_provider, "acr"), "mfa");
    assert_eq!(member(&by_provider, "amr"), json!(["otp"]));
    assert!(!by_provider.to_string().contains("hidden"));
}

#[test]
fn ended_session_is_shown_until_its_end() {
    let end = SessionEnd {
        at: 25_000,
        reason: EndReason::Admin,
    };
    let shown = shown(&entry(Some(end)), None);
    assert_eq!(member(&shown, "status"), "revoked");
    assert_eq!(member(&shown, "is_active"), false);
    assert_eq!(member(&shown, "duration_seconds"), 15);
    assert_eq!(member(&shown, "current"), false);
}
