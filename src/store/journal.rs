//! The journal: the fleet's latest security events, the oldest dropped first. Kinds that clients can
//! cause in bulk have a stream each, so that none of them displaces another kind. Noting an event never
//! waits: what Redis has to store is queued, and written in batches by one task.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Engine, Store, StoreError};
use crate::telemetry::metrics::{Metrics, StoreOperation};

/// Lines that may wait for the store. Beyond it the newest are lost.
const MAX_PENDING: usize = 10_000;
/// The same, of all kinds together that clients can cause in bulk.
const MAX_PENDING_BULK: usize = 1_000;
/// How many are written at once.
const BATCH_SIZE: usize = 256;
/// The pause after a batch that could not be written.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// One line, to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalLine {
    pub kind: &'static str,
    pub text: String,
}

/// One line as it is read: `<milliseconds>-<number>` names it and sorts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    pub id: String,
    pub text: String,
}

/// How far a reader has come in each stream: the latest line that it has read there. One position for
/// all of them would pass over a line that is added to one stream in the millisecond of a line of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position([LineId; JournalStream::COUNT]);

impl Position {
    /// After the line of this identifier, in every stream. Text that is no identifier: before the oldest line.
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

/// The kinds that clients without a session can cause in bulk, or with one that was stolen.
const BULK_KINDS: [&str; 6] = [
    "registered",
    "sign_in_failed",
    "sign_in_limited",
    "csrf_rejected",
    "admin_refused",
    "binding_mismatch",
];

/// Whether clients can cause events of this kind in bulk.
pub fn is_bulk(kind: &str) -> bool {
    BULK_KINDS.contains(&kind)
}

/// One of the journal's streams: that of a kind of high volume, or that of all other kinds.
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

    /// Its only kind; `None`: it holds several.
    pub(super) fn kind(self) -> Option<&'static str> {
        BULK_KINDS.get(self.0.checked_sub(1)?).copied()
    }

    /// Lines that are kept, roughly.
    pub(super) fn max_len(self) -> usize {
        match self.kind() {
            Some(_) => 2_000,
            None => 10_000,
        }
    }
}

/// What waits to be written.
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
        let (queue, most) = match is_bulk(line.kind) {
            true => (&mut self.bulk, MAX_PENDING_BULK),
            false => (&mut self.others, MAX_PENDING),
        };
        (queue.len() < most).then_some(queue)
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
        let many = queue.len().min(BATCH_SIZE);
        queue.drain(..many).collect()
    }

    /// Takes back what could not be written. The room of what came meanwhile is not taken away.
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
    /// Notes a line of this kind. It never waits and never fails: what cannot be kept is counted in
    /// `portcullis_events_lost_total`.
    pub fn append_journal(&self, kind: &'static str, text: String) {
        match &self.engine {
            Engine::Memory(memory) => memory.append_journal(JournalLine { kind, text }),
            Engine::Redis(_) => {
                let line = JournalLine { kind, text };
                self.shared.journal.push(line, &self.shared.metrics);
            }
        }
    }

    /// Writes what waits, now and whenever there is something, for ever.
    pub async fn run_journal_writer(self) {
        let shared = Arc::clone(&self.shared);
        loop {
            shared.journal.filled.notified().await;
            while self.flush_journal().await.is_err() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Writes everything that waits. Where an answer is lost on the way, lines may be there twice.
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

    /// Reads the journal backwards from before a line, or from its end: at most `limit` lines, of
    /// one kind if asked. A name that is none begins at the end.
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

    /// Reads the journal forwards from a position, and advances it.
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
        let noted = |(stream, id, text)| {
            position.advance(stream, id);
            let id = line_id(id);
            JournalEntry { id, text }
        };
        Ok(lines.into_iter().map(noted).collect())
    }
}

/// The moment and the number within it.
pub(super) type LineId = (u64, u64);

pub(super) fn parse_id(id: &str) -> Option<LineId> {
    let (at, number) = id.split_once('-')?;
    Some((at.parse().ok()?, number.parse().ok()?))
}

pub(super) fn line_id((at, number): LineId) -> String {
    format!("{at}-{number}")
}
