//! The journal, as a ring.

use std::collections::VecDeque;

use super::super::journal::{KEPT, Line, LineId, Noted, line_id};
use super::Memory;
use crate::session::Millis;

/// The latest lines, the oldest first.
#[derive(Default)]
pub(super) struct Journal {
    lines: VecDeque<(LineId, Line)>,
}

impl Journal {
    fn note(&mut self, line: Line, now: Millis) {
        let id = match self.lines.back() {
            Some(((at, number), _)) if *at == now => (now, number + 1),
            _ => (now, 0),
        };
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back((id, line));
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
        let lines = content.journal.lines.iter().rev();
        lines
            .filter(|(id, _)| before.is_none_or(|before| *id < before))
            .filter(|(_, line)| kind.is_none_or(|kind| line.kind == kind))
            .take(limit)
            .map(noted)
            .collect()
    }

    pub(in crate::store) fn journal_after(&self, after: LineId, limit: usize) -> Vec<Noted> {
        let (content, _) = self.enter();
        let lines = content.journal.lines.iter();
        let later = lines.filter(|(id, _)| *id > after);
        later.take(limit).map(noted).collect()
    }
}

fn noted((id, line): &(LineId, Line)) -> Noted {
    Noted {
        id: line_id(*id),
        text: line.text.clone(),
    }
}
