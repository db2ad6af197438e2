//! Security events: one log line each, and a bounded memory of the latest for the admin listener.
//! An event names users, sessions and addresses; it never holds a secret.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;

use crate::session::{EndReason, SessionId};

/// Events that are remembered.
const REMEMBERED: usize = 1000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    SignIn,
    SignInFailed,
    SignInLimited,
    SignOut,
    Registered,
    Refresh,
    RefreshReused,
    Revoked,
    Evicted,
    BindingMismatch,
    TokenBlacklisted,
    TokenUnblacklisted,
    LimitReset,
    UserCreated,
    UserChanged,
    UserDisabled,
    UserEnabled,
    PasswordChanged,
    CsrfRejected,
    AdminRefused,
    Reload,
}

impl Kind {
    /// The word in logs and in the list.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::SignIn => "sign_in",
            Kind::SignInFailed => "sign_in_failed",
            Kind::SignInLimited => "sign_in_limited",
            Kind::SignOut => "sign_out",
            Kind::Registered => "registered",
            Kind::Refresh => "refresh",
            Kind::RefreshReused => "refresh_reused",
            Kind::Revoked => "revoked",
            Kind::Evicted => "evicted",
            Kind::BindingMismatch => "binding_mismatch",
            Kind::TokenBlacklisted => "token_blacklisted",
            Kind::TokenUnblacklisted => "token_unblacklisted",
            Kind::LimitReset => "limit_reset",
            Kind::UserCreated => "user_created",
            Kind::UserChanged => "user_changed",
            Kind::UserDisabled => "user_disabled",
            Kind::UserEnabled => "user_enabled",
            Kind::PasswordChanged => "password_changed",
            Kind::CsrfRejected => "csrf_rejected",
            Kind::AdminRefused => "admin_refused",
            Kind::Reload => "reload",
        }
    }
}

/// One event; whoever reports it fills in what is known.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    #[serde(rename = "event")]
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Why a session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
    /// What else there is to say, in our own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Event {
    /// An event of which nothing but its kind is known yet.
    pub fn new(kind: Kind) -> Event {
        Event {
            kind,
            user: None,
            session: None,
            ip: None,
            reason: None,
            detail: None,
        }
    }

    /// Says whom it concerns.
    #[must_use]
    pub fn user(self, user: &str) -> Event {
        Event {
            user: Some(user.to_owned()),
            ..self
        }
    }

    /// Says which session it concerns.
    #[must_use]
    pub fn session(self, session: SessionId) -> Event {
        Event {
            session: Some(session),
            ..self
        }
    }

    /// Says where it came from.
    #[must_use]
    pub fn ip(self, ip: IpAddr) -> Event {
        Event {
            ip: Some(ip),
            ..self
        }
    }

    /// Says why a session ended.
    #[must_use]
    pub fn reason(self, reason: EndReason) -> Event {
        Event {
            reason: Some(reason),
            ..self
        }
    }

    /// Adds a remark of our own; never text that a client chose.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Event {
        Event {
            detail: Some(detail.into()),
            ..self
        }
    }
}

/// An event as it is listed.
#[derive(Debug, Clone, Serialize)]
pub struct Recorded {
    /// Counts up from 1 in this process.
    pub number: u64,
    /// RFC 3339, UTC.
    pub time: String,
    #[serde(flatten)]
    pub event: Event,
}

/// The log of security events; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Events {
    recent: Arc<Mutex<Recent>>,
}

#[derive(Debug, Default)]
struct Recent {
    ring: VecDeque<Recorded>,
    last: u64,
}

impl Events {
    /// Logs the event, and remembers it until a thousand newer ones came.
    pub fn record(&self, event: Event) {
        log(&event);
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut recent = self.recent.lock();
        recent.last += 1;
        let number = recent.last;
        if recent.ring.len() == REMEMBERED {
            recent.ring.pop_front();
        }
        recent.ring.push_back(Recorded {
            number,
            time,
            event,
        });
    }

    /// The newest events first: at most `limit`, older than number `before`, of one kind if asked.
    pub fn recent(&self, kind: Option<&str>, before: Option<u64>, limit: usize) -> Vec<Recorded> {
        let recent = self.recent.lock();
        let before = before.unwrap_or(u64::MAX);
        recent
            .ring
            .iter()
            .rev()
            .filter(|recorded| recorded.number < before)
            .filter(|recorded| kind.is_none_or(|kind| recorded.event.kind.as_str() == kind))
            .take(limit)
            .cloned()
            .collect()
    }
}

fn log(event: &Event) {
    tracing::info!(
        target: "event",
        event = event.kind.as_str(),
        user = event.user.as_deref(),
        session = event.session.map(tracing::field::display),
        ip = event.ip.map(tracing::field::display),
        reason = event.reason.map(EndReason::as_str),
        detail = event.detail.as_deref(),
    );
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_ring_forgets_the_oldest_and_lists_the_newest_first() {
        let events = Events::default();
        for number in 0..REMEMBERED + 5 {
            let kind = if number % 2 == 0 {
                Kind::SignIn
            } else {
                Kind::SignOut
            };
            events.record(Event::new(kind).user(&number.to_string()));
        }
        assert_eq!(events.recent(None, None, usize::MAX).len(), REMEMBERED);
        let page = events.recent(None, Some(1005), 2);
        let numbers: Vec<u64> = page.iter().map(|recorded| recorded.number).collect();
        assert_eq!(numbers, [1004, 1003]);
        let outs = events.recent(Some("sign_out"), None, 3);
        assert!(
            outs.iter()
                .all(|recorded| recorded.event.kind == Kind::SignOut)
        );
        assert_eq!(outs.len(), 3);
    }

    #[test]
    fn an_event_is_listed_flat_and_without_what_is_unknown() {
        let events = Events::default();
        events.record(Event::new(Kind::Revoked).user("u").reason(EndReason::Admin));
        let recorded = events.recent(None, None, 1).remove(0);
        let mut value = serde_json::to_value(recorded).unwrap();
        let time = value.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z'));
        assert_eq!(
            value,
            serde_json::json!({"number": 1, "event": "revoked", "user": "u", "reason": "admin"})
        );
    }
}
