//! Security events: one log line each, and the latest of the fleet in the journal of the store.
//!
//! An event contains users, sessions and addresses, but never a secret.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::auth::api_key::ApiKeyId;
use crate::auth::session::SessionId;
use crate::clock;
use crate::store::{self, JournalEntry, Position, Store, StoreError};
use crate::telemetry::request_id::RequestId;

mod coalescing;

use coalescing::Coalescing;

/// The kind of an event.
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
    IdentityLinked,
    IdentityUnlinked,
    CsrfRejected,
    AdminRefused,
    Reload,
    StoreDataLost,
    BackchannelLogout,
    BackchannelLogoutRefused,
    ProviderUnavailable,
    ProviderBack,
    ProviderEndedSession,
    CertificateIssued,
    CertificateFailed,
    ApiKeyCreated,
    ApiKeyRotated,
    ApiKeyRevoked,
    ApiKeyRefused,
}

impl EventKind {
    /// The name in logs and in the API.
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
            EventKind::IdentityLinked => "identity_linked",
            EventKind::IdentityUnlinked => "identity_unlinked",
            EventKind::CsrfRejected => "csrf_rejected",
            EventKind::AdminRefused => "admin_refused",
            EventKind::Reload => "reload",
            EventKind::StoreDataLost => "store_data_lost",
            EventKind::BackchannelLogout => "backchannel_logout",
            EventKind::BackchannelLogoutRefused => "backchannel_logout_refused",
            EventKind::ProviderUnavailable => "provider_unavailable",
            EventKind::ProviderBack => "provider_back",
            EventKind::ProviderEndedSession => "provider_ended_session",
            EventKind::CertificateIssued => "certificate_issued",
            EventKind::CertificateFailed => "certificate_failed",
            EventKind::ApiKeyCreated => "api_key_created",
            EventKind::ApiKeyRotated => "api_key_rotated",
            EventKind::ApiKeyRevoked => "api_key_revoked",
            EventKind::ApiKeyRefused => "api_key_refused",
        }
    }
}

/// A security event, with the values that are known.
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
    #[serde(rename = "api_key_id", skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    #[serde(rename = "client_ip", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Name of the provider at which the user signs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Why a session ended, or a sign-in failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Additional text; never text from a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Number of coalesced events that this one represents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Event {
    /// Creates an event without values.
    pub fn new(kind: EventKind) -> Event {
        Event {
            kind,
            request_id: None,
            user: None,
            session: None,
            api_key: None,
            ip: None,
            provider: None,
            reason: None,
            detail: None,
            count: None,
        }
    }

    /// Sets the request that caused it; not needed inside [`RequestId::scope`].
    #[must_use]
    pub fn request(self, id: &RequestId) -> Event {
        Event {
            request_id: Some(id.to_string()),
            ..self
        }
    }

    /// Sets the user.
    #[must_use]
    pub fn user(self, user: &str) -> Event {
        Event {
            user: Some(user.to_owned()),
            ..self
        }
    }

    /// Sets the session.
    #[must_use]
    pub fn session(self, session: SessionId) -> Event {
        Event {
            session: Some(session),
            ..self
        }
    }

    /// Sets the API key.
    #[must_use]
    pub fn api_key(self, id: ApiKeyId) -> Event {
        Event {
            api_key: Some(id.to_string()),
            ..self
        }
    }

    /// Sets the client address.
    #[must_use]
    pub fn ip(self, ip: IpAddr) -> Event {
        Event {
            ip: Some(ip),
            ..self
        }
    }

    /// Sets the provider at which the user signs in.
    #[must_use]
    pub fn provider(self, name: &str) -> Event {
        Event {
            provider: Some(name.to_owned()),
            ..self
        }
    }

    /// Sets the reason why a session ended or a sign-in failed.
    #[must_use]
    pub fn reason(self, reason: &'static str) -> Event {
        Event {
            reason: Some(reason),
            ..self
        }
    }

    /// Sets additional text, which must not come from a client.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Event {
        Event {
            detail: Some(detail.into()),
            ..self
        }
    }
}

/// An event in the journal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedEvent {
    /// Identifier in the fleet, which is also the sort key.
    pub id: String,
    /// `event`, `time` (RFC 3339, UTC) and the values of the event.
    #[serde(flatten)]
    pub event: Map<String, Value>,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// Newest first.
    pub events: Vec<RecordedEvent>,
    /// Cursor of the next page, if there is one.
    pub next_cursor: Option<String>,
}

/// The log of security events; clones share it.
#[derive(Clone)]
pub struct Events {
    store: Store,
    coalescing: Arc<Coalescing>,
}

impl Events {
    /// Records events in the journal of this store.
    pub fn new(store: Store) -> Events {
        Events {
            store,
            coalescing: Arc::default(),
        }
    }

    /// Logs the event and writes it to the journal, where events that clients can cause in bulk are
    /// coalesced. Never waits and never fails.
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

    /// Writes the coalesced events to the journal.
    pub fn flush(&self) {
        for event in self.coalescing.take() {
            self.write(event);
        }
    }

    /// Writes the coalesced events at the end of each interval, until the task is aborted.
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
        // Strings, numbers and addresses can always be serialized.
        let text = serde_json::to_string(&TimedEvent { time, event }).unwrap_or_default();
        self.store.append_journal(kind, text);
    }

    /// Returns up to `limit` of the newest events, optionally of one kind and older than `before`.
    /// An invalid `before` is ignored.
    ///
    /// # Errors
    ///
    /// The store does not respond.
    pub async fn page(
        &self,
        kind: Option<&str>,
        before: Option<&str>,
        limit: usize,
    ) -> Result<EventPage, StoreError> {
        let mut entries = self.store.journal_before(kind, before, limit + 1).await?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next_cursor = entries
            .last()
            .filter(|_| more)
            .map(|entry| entry.id.clone());
        Ok(EventPage {
            events: entries.into_iter().filter_map(parse_entry).collect(),
            next_cursor,
        })
    }

    /// Returns the position after the newest event, to follow events recorded from now on.
    ///
    /// # Errors
    ///
    /// The store does not respond.
    pub async fn end(&self) -> Result<Position, StoreError> {
        self.store.journal_end().await
    }

    /// Returns the events after a position, oldest first, and advances it.
    ///
    /// # Errors
    ///
    /// The store does not respond.
    pub async fn after(
        &self,
        position: &mut Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let entries = self.store.journal_after(position, limit).await?;
        Ok(entries.into_iter().filter_map(parse_entry).collect())
    }
}

/// Parses a journal entry; `None` if it is not an event.
fn parse_entry(entry: JournalEntry) -> Option<RecordedEvent> {
    Some(RecordedEvent {
        id: entry.id,
        event: serde_json::from_str(&entry.text).ok()?,
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
        provider = event.provider.as_deref(),
        reason = event.reason,
        detail = event.detail.as_deref(),
    );
}
