//! The journal, as rings.

use std::collections::VecDeque;

use super::super::journal::{JournalEntry, JournalLine, JournalStream, LineId, Position, line_id};
use super::Memory;
use crate::auth::session::Millis;

/// The latest lines of each stream, the oldest first. Identifiers are unique in all of them.
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
        let (mut content, now) = self.lock();
        content.journal.append(line, now / 1000);
    }

    pub(in crate::store) fn journal_before(
        &self,
        kind: Option<&str>,
        before: Option<LineId>,
        limit: usize,
    ) -> Vec<JournalEntry> {
        let (content, _) = self.lock();
        let of_stream = |lines: &VecDeque<(LineId, JournalLine)>| {
            let lines = lines.iter().rev();
            lines
                .filter(|(id, _)| before.is_none_or(|before| *id < before))
                .filter(|(_, line)| kind.is_none_or(|kind| line.kind == kind))
                .take(limit)
                .map(|(id, line)| (*id, line.text.clone()))
                .collect::<Vec<_>>()
        };
        let mut found: Vec<_> = content.journal.streams.iter().flat_map(of_stream).collect();
        found.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        found.into_iter().take(limit).map(journal_entry).collect()
    }

    /// The newest line of each stream that has one.
    pub(in crate::store) fn journal_ends(&self) -> Vec<(JournalStream, LineId)> {
        let (content, _) = self.lock();
        let streams = JournalStream::all().zip(&content.journal.streams);
        streams
            .filter_map(|(stream, lines)| Some((stream, lines.back()?.0)))
            .collect()
    }

    /// The first lines after a position: at most `limit` of each stream.
    pub(in crate::store) fn journal_after(
        &self,
        position: &Position,
        limit: usize,
    ) -> Vec<(JournalStream, LineId, String)> {
        let (content, _) = self.lock();
        let mut found = Vec::new();
        for (stream, lines) in JournalStream::all().zip(&content.journal.streams) {
            let after = position.of(stream);
            let later = lines.iter().filter(|(id, _)| *id > after).take(limit);
            found.extend(later.map(|(id, line)| (stream, *id, line.text.clone())));
        }
        found
    }
}

fn journal_entry((id, text): (LineId, String)) -> JournalEntry {
    JournalEntry {
        id: line_id(id),
        text,
    }
}
