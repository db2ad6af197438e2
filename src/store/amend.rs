//! What the holder of a session may change of it while it lives: the device's name, the
//! application's `data`, and when it is idle.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{CacheKey, Engine, SessionEntry, Store, StoreError};
use crate::auth::session::{Session, SessionId};
use crate::json;
use crate::telemetry::metrics::StoreOperation;

/// How many bytes a session's `data` may take as text.
pub const MAX_DATA_BYTES: usize = 4096;

/// A partial change of a session; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Amendment {
    pub device_name: Option<String>,
    /// Merged member by member into what is there; `null` removes a member.
    pub data: Option<Map<String, Value>>,
}

/// What became of an amendment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is given"
)]
pub enum AmendOutcome {
    /// The session as it is now.
    Amended(SessionEntry),
    /// It is not there, or not alive any more.
    Gone,
    /// Its `data` would be longer than [`MAX_DATA_BYTES`] bytes. Nothing has changed.
    DataTooLong,
}

impl Store {
    /// Changes a session that is alive. Amendments made at the same time all take effect, one after
    /// another; none brings a session back that is over.
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

    /// Moves a session's idle expiry to the store's now and what follows it; never past its absolute
    /// end. `None`: it is not there, or not alive any more.
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

/// A session's `data` would be too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DataTooLong;

impl Amendment {
    /// Makes the change; the record is another one then.
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
    // What is not an object any more, for whatever reason, is begun anew.
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
        // Members of members are not looked into: they are the application's.
        check(
            r#"{"a":{"b":1}}"#,
            &json!({"a": {"c": null}}),
            r#"{"a":{"c":null}}"#,
        );
        check("broken", &json!({}), "{}");
        // A name that the parser of JSON uses within is a name like any other.
        let odd = r#"{"$serde_json::private::RawValue":"{"}"#;
        check(odd, &json!({}), odd);
    }

    #[test]
    fn data_length_limit_is_exact() {
        let padding = |bytes: usize| json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())});
        let long = |changes: &Value| merged("{}", changes.as_object().unwrap());
        assert_eq!(
            long(&padding(MAX_DATA_BYTES)).unwrap().len(),
            MAX_DATA_BYTES
        );
        assert_eq!(long(&padding(MAX_DATA_BYTES + 1)), Err(DataTooLong));
    }
}
