//! Security events: one log line each, and the fleet's latest in the store's journal. An event names
//! users, sessions and addresses; it never holds a secret.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::auth::session::SessionId;
use crate::clock;
use crate::store::{self, JournalEntry, Position, Store, StoreError};
use crate::telemetry::request_id::RequestId;

mod coalescing;

use coalescing::Coalescing;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
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
    UserRemoved,
    PasswordChanged,
    NewDevice,
    CsrfRejected,
    AdminRefused,
    Reload,
    StoreDataLost,
}

impl EventKind {
    /// The word in logs and in the list.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::SignIn => "sign_in",
            EventKind::SignInFailed => "sign_in_failed",
            EventKind::SignInLimited => "sign_in_limited",
            EventKind::SignOut => "sign_out",
            EventKind::Registered => "registered",
            EventKind::Refresh => "refresh",
            EventKind::RefreshReused => "refresh_reused",
            EventKind::Revoked => "revoked",
            EventKind::Evicted => "evicted",
            EventKind::BindingMismatch => "binding_mismatch",
            EventKind::TokenBlacklisted => "token_blacklisted",
            EventKind::TokenUnblacklisted => "token_unblacklisted",
            EventKind::LimitReset => "limit_reset",
            EventKind::UserCreated => "user_created",
            EventKind::UserChanged => "user_changed",
            EventKind::UserDisabled => "user_disabled",
            EventKind::UserEnabled => "user_enabled",
            EventKind::UserRemoved => "user_removed",
            EventKind::PasswordChanged => "password_changed",
            EventKind::NewDevice => "new_device",
            EventKind::CsrfRejected => "csrf_rejected",
            EventKind::AdminRefused => "admin_refused",
            EventKind::Reload => "reload",
            EventKind::StoreDataLost => "store_data_lost",
        }
    }
}

/// One event; whoever reports it fills in what is known.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// The request that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(rename = "user_id", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(rename = "session_id", skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    #[serde(rename = "client_ip", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Why a session ended, or a sign-in failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// What else there is to say, in our own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How many events of the kind and address this one stands for, where there is more than one
    /// in an interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Event {
    /// An event of which nothing but its kind is known yet.
    pub fn new(kind: EventKind) -> Event {
        Event {
            kind,
            request_id: None,
            user: None,
            session: None,
            ip: None,
            reason: None,
            detail: None,
            count: None,
        }
    }

    /// Names the request that caused it; inside [`RequestId::scope`] this is not needed.
    #[must_use]
    pub fn request(self, id: &RequestId) -> Event {
        Event {
            request_id: Some(id.to_string()),
            ..self
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

    /// Says why a session ended, or a sign-in failed.
    #[must_use]
    pub fn reason(self, reason: &'static str) -> Event {
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedEvent {
    /// Names it and sorts it, in the whole fleet.
    pub id: String,
    /// `event`, `time` (RFC 3339, UTC) and what else was known.
    #[serde(flatten)]
    pub event: Map<String, Value>,
}

/// Some events.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// Newest first.
    pub events: Vec<RecordedEvent>,
    /// What to ask the next page before, if there is one.
    pub next_cursor: Option<String>,
}

/// The log of security events; clones share it.
#[derive(Clone)]
pub struct Events {
    store: Store,
    coalescing: Arc<Coalescing>,
}

impl Events {
    /// Records into this store's journal.
    pub fn new(store: Store) -> Events {
        Events {
            store,
            coalescing: Arc::default(),
        }
    }

    /// Logs the event, and hands it to the journal; a kind that clients can cause in bulk is coalesced
    /// there. It never waits and never fails.
    pub fn record(&self, mut event: Event) {
        let current = || RequestId::current().map(|id| id.to_string());
        event.request_id = event.request_id.or_else(current);
        log_event(&event);
        if !store::is_bulk(event.kind.as_str()) {
            self.write(event);
        } else if let Some(event) = self.coalescing.add(event) {
            self.write(event);
        }
    }

    /// Writes to the journal what has been coalesced so far.
    pub fn flush(&self) {
        for event in self.coalescing.take() {
            self.write(event);
        }
    }

    /// Writes coalesced events at the end of each interval, for ever.
    pub async fn flush_periodically(self) {
        loop {
            tokio::time::sleep(coalescing::INTERVAL).await;
            self.flush();
        }
    }

    fn write(&self, event: Event) {
        #[derive(Serialize)]
        struct TimedEvent {
            time: String,
            #[serde(flatten)]
            event: Event,
        }
        let kind = event.kind.as_str();
        let time = humantime::format_rfc3339_millis(clock::system_time()).to_string();
        // Texts, numbers and addresses: there is nothing that JSON cannot hold.
        let text = serde_json::to_string(&TimedEvent { time, event }).unwrap_or_default();
        self.store.append_journal(kind, text);
    }

    /// The newest events: at most `limit`, of one kind if asked, and older than the one that
    /// `before` names. A name that is none begins with the newest.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn page(
        &self,
        kind: Option<&str>,
        before: Option<&str>,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        let mut noted = self.store.journal_before(kind, before, limit + 1).await?;
        let more = noted.len() > limit;
        noted.truncate(limit);
        let next_cursor = noted.last().filter(|_| more).map(|noted| noted.id.clone());
        Ok(EventPage {
            events: noted.into_iter().filter_map(parse_entry).collect(),
            next_cursor,
        })
    }

    /// The position after the newest event: to follow those that are recorded from now on.
    ///
    /// # Errors
    /// When the store does not respond.
    pub async fn end(&self) -> Result<Position, StoreError> {
        self.store.journal_end().await
    }

    /// The events after this position, the oldest first; advances it.
    ///
    /// # Errors
    /// When the store does not respond.
    pub async fn after(
        &self,
        position: &mut Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let noted = self.store.journal_after(position, limit).await?;
        Ok(noted.into_iter().filter_map(parse_entry).collect())
    }
}

/// A line that is no event is nobody's.
fn parse_entry(noted: JournalEntry) -> Option<RecordedEvent> {
    Some(RecordedEvent {
        id: noted.id,
        event: serde_json::from_str(&noted.text).ok()?,
    })
}

fn log_event(event: &Event) {
    tracing::info!(
        target: "event",
        event = event.kind.as_str(),
        request_id = event.request_id.as_deref(),
        user_id = event.user.as_deref(),
        session_id = event.session.map(tracing::field::display),
        client_ip = event.ip.map(tracing::field::display),
        reason = event.reason,
        detail = event.detail.as_deref(),
    );
}
