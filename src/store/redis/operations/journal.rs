//! Journal as Redis streams.
//!
//! Entry ids are the server's time, so that gateways agree on the order. Outside this module, the
//! number within the millisecond also encodes the stream.

use std::time::Duration;

use futures_util::future::try_join_all;
use redis::Value;

use crate::store::StoreError;
use crate::store::journal::{
    JournalEntry, JournalLine, JournalStream, LineId, Position, line_id, parse_id,
};
use crate::store::redis::links::exchange_error;
use crate::store::redis::{Redis, decode_reply};
use crate::telemetry::metrics::StoreOperation;

/// Number of entries that one step of a search scans.
const SEARCH_STEP: usize = 500;
/// Retention of a stream after its latest entry, in seconds.
const RETENTION_SECONDS: u32 = 90 * 86_400;
/// Number of streams that a line's number can encode.
const MAX_STREAMS: u64 = 16;
const _: () = assert!(JournalStream::COUNT <= MAX_STREAMS as usize);

/// Reply of `XRANGE`: ids, and fields with values.
type StreamEntries = Vec<(String, Vec<(String, String)>)>;
/// Lines with the ids that are used outside this module.
type DecodedLines = Vec<(LineId, String)>;

impl Redis {
    pub(in crate::store) async fn append_journal(
        &self,
        lines: &[JournalLine],
    ) -> Result<(), StoreError> {
        for stream in JournalStream::all() {
            let stream_lines = lines
                .iter()
                .filter(|line| JournalStream::of(line.kind) == stream);
            let stream_lines: Vec<&JournalLine> = stream_lines.collect();
            if !stream_lines.is_empty() {
                self.append_to_stream(stream, &stream_lines).await?;
            }
        }
        Ok(())
    }

    async fn append_to_stream(
        &self,
        stream: JournalStream,
        lines: &[&JournalLine],
    ) -> Result<(), StoreError> {
        let key = self.keys.events(stream.kind());
        let mut commands = redis::pipe();
        for line in lines {
            let add = commands.cmd("XADD").arg(&key);
            add.arg("MAXLEN").arg("~").arg(stream.max_len()).arg("*");
            add.arg("kind").arg(line.kind).arg("event").arg(&line.text);
        }
        commands.cmd("EXPIRE").arg(&key).arg(RETENTION_SECONDS);
        let mut replies = self.execute_all(&commands).await?;
        if replies.iter().any(exchange_error::is_wrong_type) {
            // A foreign key with this name is replaced.
            self.count_malformed(StoreOperation::WriteEvents, 1);
            self.execute(redis::cmd("DEL").arg(&key)).await?;
            replies = self.execute_all(&commands).await?;
        }
        replies
            .iter()
            .try_for_each(exchange_error::check_server_error)
    }

    /// Reads backward; lines of one kind are searched in steps.
    pub(in crate::store) async fn journal_before(
        &self,
        kind: Option<&str>,
        before: Option<LineId>,
        limit: usize,
        deadline: Duration,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        if let Some(kind) = kind {
            let stream = JournalStream::of(kind);
            // A stream of a single kind needs no filter.
            let filter = Some(kind).filter(|_| stream.kind().is_none());
            let lines = self.search(stream, filter, before, limit, deadline).await?;
            return Ok(lines.into_iter().map(journal_entry).collect());
        }
        let searches =
            JournalStream::all().map(|stream| self.search(stream, None, before, limit, deadline));
        let mut lines: DecodedLines = try_join_all(searches)
            .await?
            .into_iter()
            .flatten()
            .collect();
        lines.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        Ok(lines.into_iter().take(limit).map(journal_entry).collect())
    }

    /// Searches a stream backward, in steps, optionally for lines of one kind.
    async fn search(
        &self,
        stream: JournalStream,
        kind: Option<&str>,
        before: Option<LineId>,
        limit: usize,
        deadline: Duration,
    ) -> Result<DecodedLines, StoreError> {
        let key = self.keys.events(stream.kind());
        let mut end = before.map_or_else(|| "+".to_owned(), |id| stream.end_before(id));
        let mut lines = DecodedLines::new();
        loop {
            let count = match kind {
                Some(_) => SEARCH_STEP,
                None => SEARCH_STEP.min(limit - lines.len()),
            };
            let mut command = redis::cmd("XREVRANGE");
            command.arg(&key).arg(&end).arg("-");
            let entries = self.read_range(command.arg("COUNT").arg(count));
            let entries = self.with_deadline(deadline, entries).await?;
            let is_last_step = entries.len() < count;
            if let Some((id, _)) = entries.last() {
                end = format!("({id}");
            }
            for (id, fields) in entries {
                if kind.is_none_or(|kind| field(&fields, "kind") == Some(kind)) {
                    lines.extend(stream.line(&id, &fields));
                }
            }
            if is_last_step || lines.len() >= limit {
                lines.truncate(limit);
                return Ok(lines);
            }
        }
    }

    /// The newest line of each stream that has one.
    pub(in crate::store) async fn journal_ends(
        &self,
        deadline: Duration,
    ) -> Result<Vec<(JournalStream, LineId)>, StoreError> {
        let reads = JournalStream::all().map(async |stream| {
            let newest = self.search(stream, None, None, 1, deadline).await?;
            Ok::<_, StoreError>(newest.into_iter().next().map(|(id, _)| (stream, id)))
        });
        Ok(try_join_all(reads).await?.into_iter().flatten().collect())
    }

    /// The first lines after a position, up to `limit` of each stream.
    pub(in crate::store) async fn journal_after(
        &self,
        position: &Position,
        limit: usize,
    ) -> Result<Vec<(JournalStream, LineId, String)>, StoreError> {
        let reads = JournalStream::all().map(async |stream| {
            let mut command = redis::cmd("XRANGE");
            let key = self.keys.events(stream.kind());
            let start = stream.start_after(position.of(stream));
            command.arg(key).arg(start).arg("+");
            let entries = self.read_range(command.arg("COUNT").arg(limit)).await?;
            let lines: Vec<_> = entries
                .iter()
                .filter_map(|(id, fields)| stream.line(id, fields))
                .map(|(id, text)| (stream, id, text))
                .collect();
            Ok::<_, StoreError>(lines)
        });
        Ok(try_join_all(reads).await?.into_iter().flatten().collect())
    }

    async fn read_range(&self, command: &redis::Cmd) -> Result<StreamEntries, StoreError> {
        match self.execute(command).await {
            // A foreign key with this name is replaced at the next write.
            Err(StoreError::Malformed) => Ok(Vec::new()),
            reply => decode_reply(match reply? {
                Value::Nil => Value::Array(Vec::new()),
                reply => reply,
            }),
        }
    }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let matching = fields.iter().find(|(field, _)| field == name);
    matching.map(|(_, value)| value.as_str())
}

fn journal_entry((id, text): (LineId, String)) -> JournalEntry {
    JournalEntry {
        id: line_id(id),
        text,
    }
}

impl JournalStream {
    fn number(self) -> u64 {
        self.index() as u64
    }

    /// Converts an entry to a line, whose number within the millisecond also encodes the stream.
    fn line(self, id: &str, fields: &[(String, String)]) -> Option<(LineId, String)> {
        let (at, number) = parse_id(id)?;
        let number = number
            .saturating_mul(MAX_STREAMS)
            .saturating_add(self.number());
        Some(((at, number), field(fields, "event")?.to_owned()))
    }

    /// Start of a backward read: the latest entry of this stream before a line.
    fn end_before(self, (at, number): LineId) -> String {
        let entries = number.saturating_sub(self.number()).div_ceil(MAX_STREAMS);
        format!("({}", line_id((at, entries)))
    }

    /// Start of a forward read: the first entry of this stream after a line.
    fn start_after(self, (at, number): LineId) -> String {
        match number.checked_sub(self.number()) {
            Some(beyond) => format!("({}", line_id((at, beyond / MAX_STREAMS))),
            None => line_id((at, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn line_ids_order_entries_across_streams() {
        let fields = [("event".to_owned(), "{}".to_owned())];
        let outside = |stream: JournalStream, entry: u64| {
            let entry = format!("7-{entry}");
            stream.line(&entry, &fields).unwrap().0
        };
        for this in JournalStream::all() {
            for entry in 0..20 {
                let line = outside(this, entry);
                for other in JournalStream::all() {
                    let end = other.end_before(line);
                    let start = other.start_after(line);
                    let last = parse_id(end.strip_prefix('(').unwrap()).unwrap().1;
                    for near in entry.saturating_sub(1)..=entry + 1 {
                        let candidate = outside(other, near);
                        assert_eq!(near < last, candidate < line, "{line:?} {end}");
                        let after = match start.strip_prefix('(') {
                            Some(start) => near > parse_id(start).unwrap().1,
                            None => true,
                        };
                        assert_eq!(after, candidate > line, "{line:?} {start}");
                    }
                }
            }
        }
    }
}
