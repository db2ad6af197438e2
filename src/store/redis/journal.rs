//! The journal, as a stream. An entry's name is the server's time, so that gateways agree on their
//! order.

use std::time::Duration;

use redis::Value;

use super::super::StoreError;
use super::super::journal::{KEPT, Line, LineId, Noted, line_id};
use super::{Redis, fault, read};

/// How many entries one step of a search looks at.
const STEP: usize = 500;
/// How long the journal is kept after its latest entry, in seconds.
const KEPT_FOR: u32 = 90 * 86_400;

/// What `XRANGE` answers: names, and fields with values.
type Entries = Vec<(String, Vec<(String, String)>)>;

impl Redis {
    pub(in super::super) async fn append(&self, lines: &[Line]) -> Result<(), StoreError> {
        let key = self.keys.events();
        let mut writes = redis::pipe();
        for line in lines {
            let add = writes.cmd("XADD").arg(&key);
            add.arg("MAXLEN").arg("~").arg(KEPT).arg("*");
            add.arg("kind").arg(line.kind).arg("event").arg(&line.text);
        }
        writes.cmd("EXPIRE").arg(&key).arg(KEPT_FOR);
        let mut replies = self.ask_all(&writes).await?;
        if replies.iter().any(fault::is_wrong_type) {
            // Not ours: it begins anew.
            self.count_malformed("write_events", 1);
            self.ask(redis::cmd("DEL").arg(&key)).await?;
            replies = self.ask_all(&writes).await?;
        }
        replies.iter().try_for_each(fault::checked)
    }

    /// Looks from the end for those of one kind, in steps.
    pub(in super::super) async fn journal_before(
        &self,
        kind: Option<&str>,
        before: Option<LineId>,
        limit: usize,
        deadline: Duration,
    ) -> Result<Vec<Noted>, StoreError> {
        let mut end = before.map_or_else(|| "+".to_owned(), |id| format!("({}", line_id(id)));
        let mut found = Vec::new();
        loop {
            let many = match kind {
                Some(_) => STEP,
                None => STEP.min(limit - found.len()),
            };
            let mut command = redis::cmd("XREVRANGE");
            command.arg(self.keys.events()).arg(&end).arg("-");
            let step = self.range(command.arg("COUNT").arg(many));
            let step = self.within(deadline, step).await?;
            let through = step.len() < many;
            if let Some((id, _)) = step.last() {
                end = format!("({id}");
            }
            for (id, fields) in step {
                if kind.is_none_or(|kind| field(&fields, "kind") == Some(kind)) {
                    found.extend(noted(id, &fields));
                }
            }
            if through || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    pub(in super::super) async fn journal_after(
        &self,
        after: LineId,
        limit: usize,
    ) -> Result<Vec<Noted>, StoreError> {
        let mut command = redis::cmd("XRANGE");
        let start = format!("({}", line_id(after));
        command.arg(self.keys.events()).arg(start).arg("+");
        let lines = self.range(command.arg("COUNT").arg(limit)).await?;
        let lines = lines.into_iter();
        Ok(lines
            .filter_map(|(id, fields)| noted(id, &fields))
            .collect())
    }

    async fn range(&self, command: &redis::Cmd) -> Result<Entries, StoreError> {
        match self.ask(command).await {
            // Not ours: the next event begins it anew.
            Err(StoreError::Malformed) => Ok(Vec::new()),
            reply => read(match reply? {
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

fn noted(id: String, fields: &[(String, String)]) -> Option<Noted> {
    let text = field(fields, "event")?.to_owned();
    Some(Noted { id, text })
}
