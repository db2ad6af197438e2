//! Merges the tree of an included file into that of the including one.

use std::path::PathBuf;

use serde_json::Value;

use crate::config::diagnostics::Diagnostic;
use crate::config::document::ConfigPath;
use crate::config::schema::{non_null_schema, subschema};
use crate::config::yaml::{Entry, NodeKind, YamlNode};

/// Merges trees by the schema: sections are merged key by key, lists are concatenated, and entries
/// with names of the operator's choice are added. A key or a name that both have is an error.
pub(super) struct Merger<'a> {
    schema: &'a Value,
    files: &'a [PathBuf],
    errors: &'a mut Vec<Diagnostic>,
}

impl<'a> Merger<'a> {
    pub(super) fn new(
        schema: &'a Value,
        files: &'a [PathBuf],
        errors: &'a mut Vec<Diagnostic>,
    ) -> Merger<'a> {
        Merger {
            schema,
            files,
            errors,
        }
    }

    /// Merges the root of a file into another one.
    pub(super) fn merge(&mut self, target: &mut YamlNode, addition: YamlNode) {
        if let (NodeKind::Map(target), NodeKind::Map(addition)) = (&mut target.kind, addition.kind)
        {
            self.merge_section(target, addition, &ConfigPath::root());
        }
    }

    fn merge_section(
        &mut self,
        target: &mut Vec<Entry>,
        addition: Vec<Entry>,
        location: &ConfigPath,
    ) {
        for entry in addition {
            let Some(existing) = target.iter_mut().find(|one| one.key == entry.key) else {
                target.push(entry);
                continue;
            };
            let location = location.key(&entry.key);
            match (&mut existing.value.kind, entry.value.kind) {
                (NodeKind::List(target), NodeKind::List(items)) => target.extend(items),
                (NodeKind::Map(target), NodeKind::Map(entries)) if self.merges(&location) => {
                    self.merge_section(target, entries, &location);
                }
                _ => {
                    let first = existing.key_position;
                    let first = first.as_seen_from(entry.key_position, self.files);
                    let message = format!("\"{}\" is specified twice, first at {first}", entry.key);
                    let position = entry.key_position;
                    self.errors.push(Diagnostic { position, message });
                }
            }
        }
    }

    /// Whether the mapping at this path is a section, or one of named entries, and not itself an
    /// entry with a name.
    fn merges(&self, location: &ConfigPath) -> bool {
        let names = |location: &ConfigPath| {
            let part = non_null_schema(self.schema, subschema(self.schema, location));
            part.get("additionalProperties")
                .is_some_and(Value::is_object)
        };
        !location.parent().is_some_and(|parent| names(&parent))
    }
}
