//! Changes that clients make to their own session: device name, application `data`, idle expiry.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{CacheKey, Engine, SessionEntry, Store, StoreError};
use crate::auth::session::{Session, SessionId};
use crate::json;
use crate::telemetry::metrics::StoreOperation;

/// Largest size of a session's `data` as JSON text, in bytes.
pub const MAX_DATA_BYTES: usize = 4096;

/// A partial change of a session; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Amendment {
    pub device_name: Option<String>,
    /// Merged into `data` member by member; `null` removes a member.
    pub data: Option<Map<String, Value>>,
}

/// Outcome of [`Store::amend_session`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "the caller destructures it at once"
)]
pub enum AmendOutcome {
    /// The changed session.
    Amended(SessionEntry),
    /// The session does not exist or is not active.
    Gone,
    /// `data` would exceed [`MAX_DATA_BYTES`]; nothing was changed.
    DataTooLong,
}

impl Store {
    /// Changes an active session.
    ///
    /// Concurrent amendments are applied one after another; none revives an ended session.
    pub async fn amend_session(
        &self,
        id: SessionId,
        amendment: &Amendment,
        idle: Option<Duration>,
    ) -> Result<AmendOutcome, StoreError> {
        let outcome = self.measured(StoreOperation::AmendSession, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.amend(id, amendment, idle)),
                Engine::Redis(redis) => redis.amend(id, amendment, idle).await,
            }
        });
        let outcome = outcome.await;
        self.invalidate(&CacheKey::Session(id));
        outcome
    }

    /// Restarts a session's idle timeout; `None`: it does not exist or is not active.
    ///
    /// The absolute expiry stays as it is.
    pub async fn touch(
        &self,
        id: SessionId,
        idle: Option<Duration>,
    ) -> Result<Option<SessionEntry>, StoreError> {
        self.measured(StoreOperation::Touch, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.touch(id, idle)),
                Engine::Redis(redis) => redis.touch(id, idle).await,
            }
        })
        .await
    }
}

/// Error of an amendment whose `data` would exceed [`MAX_DATA_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DataTooLong;

impl Amendment {
    /// Applies the change and increments the record's revision.
    pub(super) fn apply(&self, session: &mut Session) -> Result<(), DataTooLong> {
        if let Some(changes) = &self.data {
            session.data = merged(&session.data, changes)?.into();
        }
        if let Some(name) = &self.device_name {
            session.device.name = Some(name.as_str().into());
        }
        session.revision += 1;
        Ok(())
    }
}

fn merged(data: &str, changes: &Map<String, Value>) -> Result<String, DataTooLong> {
    // Stored data that is not an object is replaced.
    let mut members = json::parse(data.as_bytes()).unwrap_or_default();
    for (name, value) in changes {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    let text = Value::Object(members).to_string();
    if text.len() > MAX_DATA_BYTES {
        return Err(DataTooLong);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(before: &str, changes: &Value, after: &str) {
        let merged = merged(before, changes.as_object().unwrap());
        assert_eq!(merged.as_deref(), Ok(after), "{before} with {changes}");
    }

    #[test]
    fn members_are_merged_and_null_removes() {
        check("{}", &json!({"a": 1}), r#"{"a":1}"#);
        check(r#"{"a":1,"b":2}"#, &json!({"a": "x"}), r#"{"a":"x","b":2}"#);
        check(
            r#"{"a":1,"b":2}"#,
            &json!({"a": null, "c": null}),
            r#"{"b":2}"#,
        );
        // The merge is shallow: nested members belong to the application.
        check(
            r#"{"a":{"b":1}}"#,
            &json!({"a": {"c": null}}),
            r#"{"a":{"c":null}}"#,
        );
        check("broken", &json!({}), "{}");
        // Names that `serde_json` uses internally are treated as ordinary names.
        let internal = r#"{"$serde_json::private::RawValue":"{"}"#;
        check(internal, &json!({}), internal);
    }

    #[test]
    fn data_length_limit_is_exact() {
        let padding = |bytes: usize| json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())});
        let merge = |changes: &Value| merged("{}", changes.as_object().unwrap());
        assert_eq!(
            merge(&padding(MAX_DATA_BYTES)).unwrap().len(),
            MAX_DATA_BYTES
        );
        assert_eq!(merge(&padding(MAX_DATA_BYTES + 1)), Err(DataTooLong));
    }
}
