//! The journal, as streams. An entry's name is the server's time, so that gateways agree on their
//! order. Outside this file, the number within the millisecond also tells the stream.

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

/// How many entries one step of a search looks at.
const SEARCH_STEP: usize = 500;
/// How long a stream is kept after its latest entry, in seconds.
const RETENTION_SECONDS: u32 = 90 * 86_400;
/// How many streams a line's number can tell apart.
const MAX_STREAMS: u64 = 8;
const _: () = assert!(JournalStream::COUNT <= MAX_STREAMS as usize);

/// What `XRANGE` answers: names, and fields with values.
type StreamEntries = Vec<(String, Vec<(String, String)>)>;
/// A line as it is known outside this file.
type DecodedLines = Vec<(LineId, String)>;

impl Redis {
    pub(in crate::store) async fn append_journal(
        &self,
        lines: &[JournalLine],
    ) -> Result<(), StoreError> {
        for stream in JournalStream::all() {
            let of_stream = lines
                .iter()
                .filter(|line| JournalStream::of(line.kind) == stream);
            let of_stream: Vec<&JournalLine> = of_stream.collect();
            if !of_stream.is_empty() {
                self.append_to_stream(stream, &of_stream).await?;
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
        let mut writes = redis::pipe();
        for line in lines {
            let add = writes.cmd("XADD").arg(&key);
            add.arg("MAXLEN").arg("~").arg(stream.max_len()).arg("*");
            add.arg("kind").arg(line.kind).arg("event").arg(&line.text);
        }
        writes.cmd("EXPIRE").arg(&key).arg(RETENTION_SECONDS);
        let mut replies = self.execute_all(&writes).await?;
        if replies.iter().any(exchange_error::is_wrong_type) {
            // Not ours: it begins anew.
            self.count_malformed(StoreOperation::WriteEvents, 1);
            self.execute(redis::cmd("DEL").arg(&key)).await?;
            replies = self.execute_all(&writes).await?;
        }
        replies
            .iter()
            .try_for_each(exchange_error::check_server_error)
    }

    /// Reads backwards; those of one kind are searched for in steps.
    pub(in crate::store) async fn journal_before(
        &self,
        kind: Option<&str>,
        before: Option<LineId>,
        limit: usize,
        deadline: Duration,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        if let Some(wanted) = kind {
            let stream = JournalStream::of(wanted);
            // A stream of one kind needs no search.
            let kind = kind.filter(|_| stream.kind().is_none());
            let found = self.search(stream, kind, before, limit, deadline).await?;
            return Ok(found.into_iter().map(stored_line).collect());
        }
        let searches =
            JournalStream::all().map(|stream| self.search(stream, None, before, limit, deadline));
        let mut found: DecodedLines = try_join_all(searches)
            .await?
            .into_iter()
            .flatten()
            .collect();
        found.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        Ok(found.into_iter().take(limit).map(stored_line).collect())
    }

    /// Looks from the end for those of one kind, in steps.
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
        let mut found = DecodedLines::new();
        loop {
            let many = match kind {
                Some(_) => SEARCH_STEP,
                None => SEARCH_STEP.min(limit - found.len()),
            };
            let mut command = redis::cmd("XREVRANGE");
            command.arg(&key).arg(&end).arg("-");
            let step = self.read_range(command.arg("COUNT").arg(many));
            let step = self.with_deadline(deadline, step).await?;
            let through = step.len() < many;
            if let Some((id, _)) = step.last() {
                end = format!("({id}");
            }
            for (id, fields) in step {
                if kind.is_none_or(|kind| field(&fields, "kind") == Some(kind)) {
                    found.extend(stream.line(&id, &fields));
                }
            }
            if through || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
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

    /// The first lines after a position: at most `limit` of each stream.
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
            let lines = entries.iter();
            let found: Vec<_> = lines
                .filter_map(|(id, fields)| stream.line(id, fields))
                .map(|(id, text)| (stream, id, text))
                .collect();
            Ok::<_, StoreError>(found)
        });
        Ok(try_join_all(reads).await?.into_iter().flatten().collect())
    }

    async fn read_range(&self, command: &redis::Cmd) -> Result<StreamEntries, StoreError> {
        match self.execute(command).await {
            // Not ours: the next event begins it anew.
            Err(StoreError::Malformed) => Ok(Vec::new()),
            reply => decode_reply(match reply? {
                Value::Nil => Value::Array(Vec::new()),
                reply => reply,
            }),
        }
    }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|(field, _)| field == name);
    found.map(|(_, value)| value.as_str())
}

fn stored_line((id, text): (LineId, String)) -> JournalEntry {
    JournalEntry {
        id: line_id(id),
        text,
    }
}

impl JournalStream {
    fn number(self) -> u64 {
        self.index() as u64
    }

    /// An entry as it is known outside: its number in the millisecond tells the stream too.
    fn line(self, id: &str, fields: &[(String, String)]) -> Option<(LineId, String)> {
        let (at, number) = parse_id(id)?;
        let number = number
            .saturating_mul(MAX_STREAMS)
            .saturating_add(self.number());
        Some(((at, number), field(fields, "event")?.to_owned()))
    }

    /// Where a backward read begins: at the latest entry of this stream that is before a line.
    fn end_before(self, (at, number): LineId) -> String {
        let entries = number.saturating_sub(self.number()).div_ceil(MAX_STREAMS);
        format!("({}", line_id((at, entries)))
    }

    /// Where a forward read begins: at the first entry of this stream that is after a line.
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
