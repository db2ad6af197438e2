//! Journal of the embedded engine, as ring buffers.

use std::collections::VecDeque;

use super::super::journal::{JournalEntry, JournalLine, JournalStream, LineId, Position, line_id};
use super::Memory;
use crate::auth::session::Millis;

/// Latest lines of each stream, oldest first. Ids are unique across the streams.
#[derive(Default)]
pub(super) struct Journal {
    streams: [VecDeque<(LineId, JournalLine)>; JournalStream::COUNT],
    latest: LineId,
}

impl Journal {
    fn append(&mut self, line: JournalLine, now: Millis) {
        let (at, number) = self.latest;
        self.latest = if at >= now {
            (at, number + 1)
        } else {
            (now, 0)
        };
        let stream = JournalStream::of(line.kind);
        let Some(lines) = self.streams.get_mut(stream.index()) else {
            return;
        };
        if lines.len() >= stream.max_len() {
            lines.pop_front();
        }
        lines.push_back((self.latest, line));
    }
}

impl Memory {
    pub(in crate::store) fn append_journal(&self, line: JournalLine) {
        let (mut state, now) = self.lock();
        state.journal.append(line, now / 1000);
    }

    pub(in crate::store) fn journal_before(
        &self,
        kind: Option<&str>,
        before: Option<LineId>,
        limit: usize,
    ) -> Vec<JournalEntry> {
        let (state, _) = self.lock();
        let stream_lines = |lines: &VecDeque<(LineId, JournalLine)>| {
            let lines = lines.iter().rev();
            lines
                .filter(|(id, _)| before.is_none_or(|before| *id < before))
                .filter(|(_, line)| kind.is_none_or(|kind| line.kind == kind))
                .take(limit)
                .map(|(id, line)| (*id, line.text.clone()))
                .collect::<Vec<_>>()
        };
        let mut lines: Vec<_> = state
            .journal
            .streams
            .iter()
            .flat_map(stream_lines)
            .collect();
        lines.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        lines.into_iter().take(limit).map(journal_entry).collect()
    }

    /// The newest line of each stream that has one.
    pub(in crate::store) fn journal_ends(&self) -> Vec<(JournalStream, LineId)> {
        let (state, _) = self.lock();
        let streams = JournalStream::all().zip(&state.journal.streams);
        streams
            .filter_map(|(stream, lines)| Some((stream, lines.back()?.0)))
            .collect()
    }

    /// The first lines after a position, up to `limit` of each stream.
    pub(in crate::store) fn journal_after(
        &self,
        position: &Position,
        limit: usize,
    ) -> Vec<(JournalStream, LineId, String)> {
        let (state, _) = self.lock();
        let mut later = Vec::new();
        for (stream, lines) in JournalStream::all().zip(&state.journal.streams) {
            let after = position.of(stream);
            let lines = lines.iter().filter(|(id, _)| *id > after).take(limit);
            later.extend(lines.map(|(id, line)| (stream, *id, line.text.clone())));
        }
        later
    }
}

fn journal_entry((id, text): (LineId, String)) -> JournalEntry {
    JournalEntry {
        id: line_id(id),
        text,
    }
}
