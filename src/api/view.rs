//! How users and sessions look in answers.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::LiveOf;
use crate::accounts::SignedIn;
use crate::directory::User;
use crate::session::{Millis, SessionId, Status};
use crate::store::{Entry, Page};

/// What a session's looks depend on besides the session.
pub(super) struct Sight {
    pub(super) idle: Option<Duration>,
    pub(super) now: Millis,
    /// The session that asks.
    pub(super) current: Option<SessionId>,
    pub(super) live_of: LiveOf,
}

/// A session as the contract shows it. `expires_at` is when it expires if it is not used again.
pub(super) fn session(entry: &Entry, sight: &Sight) -> Value {
    let (session, activity) = (&entry.session, &entry.activity);
    let status = session.status(activity.last_access, sight.idle, sight.now);
    let expires_at = session.idle_end(activity.last_access, sight.idle);
    let until = match (status, session.ended) {
        (Status::Revoked, Some(ended)) => ended.at,
        (Status::Expired, _) => expires_at,
        _ => sight.now,
    };
    // The one it was signed in from counts before it is used.
    let mut addresses = activity.ip_addresses.clone();
    if !addresses.contains(&session.ip) {
        addresses.push(session.ip);
    }
    json!({
        "id": session.id,
        "user_id": session.user,
        "email": session.email,
        "status": status,
        "is_active": status == Status::Active,
        "created_at": rfc3339(session.created_at),
        "last_access": rfc3339(activity.last_access.max(session.created_at)),
        "expires_at": rfc3339(expires_at),
        "duration_seconds": until.saturating_sub(session.created_at) / 1000,
        "ip_address": session.ip,
        "ip_addresses": addresses,
        "user_agent": session.user_agent,
        "device": {"type": session.device.kind, "name": session.device.name},
        "request_count": activity.request_count,
        "live_connections": (sight.live_of)(session.id),
        "data": {},
        "current": sight.current == Some(session.id),
    })
}

/// A page of a list of sessions.
pub(super) fn sessions(page: &Page, sight: &Sight) -> Value {
    let sessions: Vec<Value> = page
        .entries
        .iter()
        .map(|entry| session(entry, sight))
        .collect();
    json!({
        "sessions": sessions,
        "count": page.total,
        "next_cursor": page.next_cursor,
    })
}

/// A user as they see themselves.
pub(super) fn user(user: &User) -> Value {
    json!({
        "id": user.id,
        "email": user.email,
        "username": user.username,
        "name": user.name,
        "roles": user.roles,
        "scopes": user.scopes,
    })
}

/// A user as an operator sees them.
pub(super) fn user_for_admin(user: &User) -> Value {
    let mut shown = self::user(user);
    if let Some(members) = shown.as_object_mut() {
        members.insert("disabled".to_owned(), user.disabled.into());
        members.insert("created_at".to_owned(), rfc3339(user.created_at).into());
        members.insert("updated_at".to_owned(), rfc3339(user.updated_at).into());
    }
    shown
}

/// What a sign-in hands out.
pub(super) fn signed_in(signed_in: &SignedIn, sight: &Sight) -> Value {
    json!({
        "user": user(&signed_in.user),
        "session": session(&signed_in.session, sight),
        "access_token": signed_in.access_token,
        "token_type": "Bearer",
        "expires_in": signed_in.expires_in.as_secs(),
        "refresh_token": signed_in.refresh_token,
    })
}

/// Writes Unix milliseconds as RFC 3339 in UTC.
pub(super) fn rfc3339(time: Millis) -> String {
    // What the formatter cannot write (after the year 9999) is shown as its last moment.
    const LATEST: Millis = 253_402_300_799_999;
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(time.min(LATEST));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::session::{Activity, Device, EndReason, Ended, Session};

    #[test]
    fn times_are_utc_with_milliseconds_and_never_panic() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(Millis::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_session_shows_what_the_contract_lists() {
        let mut entry = Entry {
            session: Session {
                id: SessionId([1; 32]),
                user: "u".to_owned(),
                email: "e".to_owned(),
                name: None,
                roles: Vec::new(),
                scopes: Vec::new(),
                created_at: 10_000,
                expires_at: 1_000_000,
                ip: "192.0.2.1".parse().unwrap(),
                user_agent: "<b>".to_owned(),
                device: Device::default(),
                ended: None,
                data: crate::session::no_data(),
                revision: 0,
            },
            activity: Activity {
                last_access: 20_000,
                ..Activity::default()
            },
        };
        let sight = Sight {
            idle: Some(Duration::from_secs(60)),
            now: 40_000,
            current: Some(SessionId([1; 32])),
            live_of: std::sync::Arc::new(|_| 0),
        };
        let shown = session(&entry, &sight);
        let mut names: Vec<&str> = shown
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        let expected = "created_at current data device duration_seconds email expires_at id \
                        ip_address ip_addresses is_active last_access live_connections \
                        request_count status user_agent user_id";
        assert_eq!(names.join(" "), expected);
        let picked = |shown: &Value, name: &str| shown.get(name).unwrap().clone();
        assert_eq!(picked(&shown, "status"), "active");
        assert_eq!(picked(&shown, "expires_at"), "1970-01-01T00:01:20.000Z");
        assert_eq!(picked(&shown, "duration_seconds"), 30);
        assert_eq!(picked(&shown, "ip_addresses"), json!(["192.0.2.1"]));
        assert_eq!(picked(&shown, "current"), true);
        entry.session.ended = Some(Ended {
            at: 25_000,
            reason: EndReason::Admin,
        });
        let shown = session(
            &entry,
            &Sight {
                current: None,
                ..sight
            },
        );
        assert_eq!(picked(&shown, "status"), "revoked");
        assert_eq!(picked(&shown, "is_active"), false);
        assert_eq!(picked(&shown, "duration_seconds"), 15);
        assert_eq!(picked(&shown, "current"), false);
    }
}
