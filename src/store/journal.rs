//! Journal of the fleet's latest security events; the oldest are dropped first.
//!
//! Kinds that clients can cause in bulk have a stream each, so that none of them displaces another
//! kind. Appending never blocks: lines for Redis are queued, and one task writes them in batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Engine, Store, StoreError};
use crate::telemetry::metrics::{Metrics, StoreOperation};

/// Capacity of the queue of ordinary kinds; beyond it, new lines are lost.
const MAX_PENDING: usize = 10_000;
/// Capacity of the queue of all kinds that clients can cause in bulk.
const MAX_PENDING_BULK: usize = 1_000;
/// Number of lines written at once.
const BATCH_SIZE: usize = 256;
/// Pause after a batch that could not be written.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A line to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalLine {
    pub kind: &'static str,
    pub text: String,
}

/// A line as read; its id `<milliseconds>-<number>` also is its sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    pub id: String,
    pub text: String,
}

/// Position of a reader: the latest line that it has read in each stream.
///
/// A single position for all streams would skip a line that is added to one stream in the same
/// millisecond as a line of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position([LineId; JournalStream::COUNT]);

impl Position {
    /// The position after the line with this id in every stream; an invalid id: before the oldest.
    pub fn after(id: &str) -> Position {
        Position([parse_id(id).unwrap_or_default(); JournalStream::COUNT])
    }

    fn advance(&mut self, stream: JournalStream, id: LineId) {
        if let Some(latest) = self.0.get_mut(stream.index()) {
            *latest = id;
        }
    }

    pub(super) fn of(&self, stream: JournalStream) -> LineId {
        self.0.get(stream.index()).copied().unwrap_or_default()
    }
}

/// Kinds that clients can cause in bulk, without a session or with a stolen one.
const BULK_KINDS: [&str; 8] = [
    "registered",
    "sign_in_failed",
    "sign_in_limited",
    "csrf_rejected",
    "admin_refused",
    "binding_mismatch",
    "backchannel_logout_refused",
    "api_key_refused",
];

/// Whether clients can cause events of this kind in bulk.
pub fn is_bulk(kind: &str) -> bool {
    BULK_KINDS.contains(&kind)
}

/// A stream of the journal: of one bulk kind, or of all other kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JournalStream(usize);

impl JournalStream {
    pub(super) const COUNT: usize = BULK_KINDS.len() + 1;

    pub(super) fn all() -> impl Iterator<Item = JournalStream> {
        (0..JournalStream::COUNT).map(JournalStream)
    }

    pub(super) fn of(kind: &str) -> JournalStream {
        let bulk = BULK_KINDS.iter().position(|bulk| *bulk == kind);
        JournalStream(bulk.map_or(0, |index| index + 1))
    }

    pub(super) fn index(self) -> usize {
        self.0
    }

    /// The stream's only kind; `None`: it holds several.
    pub(super) fn kind(self) -> Option<&'static str> {
        BULK_KINDS.get(self.0.checked_sub(1)?).copied()
    }

    /// Approximate number of lines that are kept.
    pub(super) fn max_len(self) -> usize {
        match self.kind() {
            Some(_) => 2_000,
            None => 10_000,
        }
    }
}

/// Queue of the lines to write to Redis.
#[derive(Default)]
pub(super) struct JournalQueue {
    lines: Mutex<PendingLines>,
    filled: Notify,
}

#[derive(Default)]
struct PendingLines {
    /// Of kinds that clients can cause in bulk.
    bulk: VecDeque<JournalLine>,
    others: VecDeque<JournalLine>,
}

impl PendingLines {
    /// The queue of a line's kind, if it has room.
    fn queue_with_room(&mut self, line: &JournalLine) -> Option<&mut VecDeque<JournalLine>> {
        let (queue, capacity) = match is_bulk(line.kind) {
            true => (&mut self.bulk, MAX_PENDING_BULK),
            false => (&mut self.others, MAX_PENDING),
        };
        (queue.len() < capacity).then_some(queue)
    }
}

impl JournalQueue {
    fn push(&self, line: JournalLine, metrics: &Metrics) {
        match self.lines.lock().queue_with_room(&line) {
            Some(queue) => queue.push_back(line),
            None => return metrics.events_lost.inc(),
        }
        self.filled.notify_one();
    }

    fn take_batch(&self) -> Vec<JournalLine> {
        let mut lines = self.lines.lock();
        let queue = match lines.others.is_empty() {
            true => &mut lines.bulk,
            false => &mut lines.others,
        };
        let count = queue.len().min(BATCH_SIZE);
        queue.drain(..count).collect()
    }

    /// Puts back lines that could not be written, as far as newer lines have left room.
    fn requeue(&self, unwritten: Vec<JournalLine>, metrics: &Metrics) {
        let mut lines = self.lines.lock();
        for line in unwritten.into_iter().rev() {
            match lines.queue_with_room(&line) {
                Some(queue) => queue.push_front(line),
                None => metrics.events_lost.inc(),
            }
        }
    }
}

impl Store {
    /// Appends a line of this kind, without blocking.
    ///
    /// It never fails; lost lines are counted in `portcullis_events_lost_total`.
    pub fn append_journal(&self, kind: &'static str, text: String) {
        match &self.engine {
            Engine::Memory(memory) => memory.append_journal(JournalLine { kind, text }),
            Engine::Redis(_) => {
                let line = JournalLine { kind, text };
                self.shared.journal.push(line, &self.shared.metrics);
            }
        }
    }

    /// Writes queued lines to Redis; runs forever.
    pub async fn run_journal_writer(self) {
        let shared = Arc::clone(&self.shared);
        loop {
            shared.journal.filled.notified().await;
            while self.flush_journal().await.is_err() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Writes all queued lines. If a reply is lost, lines may be written twice.
    pub async fn flush_journal(&self) -> Result<(), StoreError> {
        let Engine::Redis(redis) = &self.engine else {
            return Ok(());
        };
        let (journal, metrics) = (&self.shared.journal, &self.shared.metrics);
        loop {
            let batch = journal.take_batch();
            if batch.is_empty() {
                return Ok(());
            }
            let written = self
                .measured(StoreOperation::WriteEvents, redis.append_journal(&batch))
                .await;
            if let Err(error) = written {
                journal.requeue(batch, metrics);
                return Err(error);
            }
        }
    }

    /// Reads up to `limit` lines backward from before a line, or from the end; optionally one kind.
    ///
    /// An invalid id starts at the end.
    pub async fn journal_before(
        &self,
        kind: Option<&str>,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        let before = before.and_then(parse_id);
        self.measured_steps(StoreOperation::Events, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.journal_before(kind, before, limit)),
                Engine::Redis(redis) => {
                    let deadline = self.shared.timeout;
                    redis.journal_before(kind, before, limit, deadline).await
                }
            }
        })
        .await
    }

    /// The position after the newest line.
    pub async fn journal_end(&self) -> Result<Position, StoreError> {
        let newest = self.measured(StoreOperation::Events, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.journal_ends()),
                Engine::Redis(redis) => redis.journal_ends(self.shared.timeout).await,
            }
        });
        let mut position = Position::after("");
        for (stream, id) in newest.await? {
            position.advance(stream, id);
        }
        Ok(position)
    }

    /// Reads up to `limit` lines forward from a position, and advances it.
    pub async fn journal_after(
        &self,
        position: &mut Position,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, StoreError> {
        let mut lines = self
            .measured(StoreOperation::Events, async {
                match &self.engine {
                    Engine::Memory(memory) => Ok(memory.journal_after(position, limit)),
                    Engine::Redis(redis) => redis.journal_after(position, limit).await,
                }
            })
            .await?;
        lines.sort_unstable_by_key(|(_, id, _)| *id);
        lines.truncate(limit);
        let entry = |(stream, id, text)| {
            position.advance(stream, id);
            let id = line_id(id);
            JournalEntry { id, text }
        };
        Ok(lines.into_iter().map(entry).collect())
    }
}

/// Milliseconds since the epoch, and the number within the millisecond.
pub(super) type LineId = (u64, u64);

pub(super) fn parse_id(id: &str) -> Option<LineId> {
    let (at, number) = id.split_once('-')?;
    Some((at.parse().ok()?, number.parse().ok()?))
}

pub(super) fn line_id((at, number): LineId) -> String {
    format!("{at}-{number}")
}
