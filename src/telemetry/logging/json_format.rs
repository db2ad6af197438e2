//! JSON format of log lines and events, with the field names of the access log, such as `time`,
//! `request_id` and `user_id`.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// Formats one JSON object per line.
pub(super) struct JsonFormat;

impl<S, N> FormatEvent<S, N> for JsonFormat
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let target = match &fields.target {
            Some(target) => target.as_str(),
            None => metadata.target(),
        };
        let now = humantime::format_rfc3339_millis(clock::system_time());
        write!(
            out,
            "{{\"time\":\"{now}\",\"level\":\"{}\"",
            metadata.level()
        )?;
        for (name, value) in &fields.named {
            write!(out, ",{}:{value}", Value::from(name.as_str()))?;
        }
        writeln!(out, ",\"target\":{}}}", Value::from(target))
    }
}

/// The fields of an event. Fields added by the bridge from the `log` crate are metadata.
#[derive(Default)]
struct EventFields {
    named: Map<String, Value>,
    target: Option<String>,
}

impl EventFields {
    fn add(&mut self, field: &Field, value: Value) {
        match field.name() {
            "log.target" => self.target = value.as_str().map(str::to_owned),
            name if name.starts_with("log.") => {}
            name => {
                self.named.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for EventFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            // Writing to memory cannot fail.
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.add(field, text.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn hostile_values_stay_inside_one_json_object() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(JsonFormat)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let hostile = "\"}\n{\"event\":\"sign_in\"";
            tracing::warn!(target: "event", user_id = hostile, many = 7, good = true, none = None::<&str>, "a {}", 1);
        });
        let bytes = written.0.lock().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["target"], "event");
        assert_eq!(line["message"], "a 1");
        assert_eq!(line["user_id"], "\"}\n{\"event\":\"sign_in\"");
        assert_eq!((&line["many"], &line["good"]), (&7.into(), &true.into()));
        assert!(line.get("none").is_none() && line.get("timestamp").is_none());
    }
}
