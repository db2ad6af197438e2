//! The journal, as rings.

use std::collections::VecDeque;

use super::super::journal::{Line, LineId, Noted, Position, Stream, line_id};
use super::Memory;
use crate::auth::session::Millis;

/// The latest lines of each stream, the oldest first. Identifiers are unique in all of them.
#[derive(Default)]
pub(super) struct Journal {
    streams: [VecDeque<(LineId, Line)>; Stream::COUNT],
    latest: LineId,
}

impl Journal {
    fn note(&mut self, line: Line, now: Millis) {
        let (at, number) = self.latest;
        self.latest = if at >= now {
            (at, number + 1)
        } else {
            (now, 0)
        };
        let stream = Stream::of(line.kind);
        let Some(lines) = self.streams.get_mut(stream.index()) else {
            return;
        };
        if lines.len() >= stream.kept() {
            lines.pop_front();
        }
        lines.push_back((self.latest, line));
    }
}

impl Memory {
    pub(in crate::store) fn note(&self, line: Line) {
        let (mut content, now) = self.enter();
        content.journal.note(line, now / 1000);
    }

    pub(in crate::store) fn journal_before(
        &self,
        kind: Option<&str>,
        before: Option<LineId>,
        limit: usize,
    ) -> Vec<Noted> {
        let (content, _) = self.enter();
        let of_stream = |lines: &VecDeque<(LineId, Line)>| {
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
        found.into_iter().take(limit).map(noted).collect()
    }

    /// The newest line of each stream that has one.
    pub(in crate::store) fn journal_ends(&self) -> Vec<(Stream, LineId)> {
        let (content, _) = self.enter();
        let streams = Stream::all().zip(&content.journal.streams);
        streams
            .filter_map(|(stream, lines)| Some((stream, lines.back()?.0)))
            .collect()
    }

    /// The first lines after a position: at most `limit` of each stream.
    pub(in crate::store) fn journal_after(
        &self,
        position: &Position,
        limit: usize,
    ) -> Vec<(Stream, LineId, String)> {
        let (content, _) = self.enter();
        let mut found = Vec::new();
        for (stream, lines) in Stream::all().zip(&content.journal.streams) {
            let after = position.of(stream);
            let later = lines.iter().filter(|(id, _)| *id > after).take(limit);
            found.extend(later.map(|(id, line)| (stream, *id, line.text.clone())));
        }
        found
    }
}

fn noted((id, text): (LineId, String)) -> Noted {
    Noted {
        id: line_id(id),
        text,
    }
}
