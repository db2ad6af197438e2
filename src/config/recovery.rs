//! Recovery from invalid values, so that one run can report all errors.

use serde_json::Value;

use super::diagnostics::Position;
use super::document::ConfigPath;
use super::schema::resolve_ref;
use super::yaml::{Entry, NodeKind, Scalar, YamlNode};

/// A change of the tree that allows checking to continue after an error.
pub(super) enum Recovery {
    /// Renames a key that is probably misspelt.
    Rename(ConfigPath, String),
    Remove(ConfigPath),
    Put(ConfigPath, YamlNode),
    /// Makes a scalar plain, so that it can be a number or a boolean, or else a string.
    SetPlain(ConfigPath, bool),
}

impl Recovery {
    /// The path of the change.
    pub(super) fn path(&self) -> &ConfigPath {
        match self {
            Recovery::Rename(location, _)
            | Recovery::Remove(location)
            | Recovery::Put(location, _)
            | Recovery::SetPlain(location, _) => location,
        }
    }

    /// The new path of a renamed key.
    pub(super) fn renamed_path(&self) -> Option<ConfigPath> {
        match self {
            Recovery::Rename(location, to) => Some(location.parent()?.key(to)),
            Recovery::Remove(_) | Recovery::Put(..) | Recovery::SetPlain(..) => None,
        }
    }
}

/// Changes the tree, and returns the path of the value that is now a guess.
pub(super) fn apply(root: &mut YamlNode, recovery: Recovery) -> Option<ConfigPath> {
    match recovery {
        Recovery::Rename(location, to) => {
            if let Some((entries, index)) = find_entry(root, &location)
                && let Some(entry) = entries.get_mut(index)
            {
                entry.key = to;
            }
            None
        }
        Recovery::Remove(location) => {
            if let Some((entries, index)) = find_entry(root, &location) {
                entries.remove(index);
            }
            Some(location)
        }
        Recovery::Put(location, node) => {
            put_node(root, &location, node);
            Some(location)
        }
        Recovery::SetPlain(location, plain) => {
            if let Some(YamlNode {
                kind: NodeKind::Scalar(scalar),
                ..
            }) = node_at(root, &location)
            {
                scalar.plain = plain;
            }
            None
        }
    }
}

/// Creates the simplest value that a schema accepts.
pub(super) fn placeholder(root: &Value, part: &Value, position: Position) -> YamlNode {
    let schema = resolve_ref(root, part);
    let first = |list: &str| {
        schema
            .get(list)
            .and_then(Value::as_array)
            .and_then(|all| all.first())
    };
    if let Some(branch) = first("anyOf") {
        return placeholder(root, branch, position);
    }
    let value = first("enum")
        .or_else(|| first("examples"))
        .or_else(|| schema.get("minimum"));
    let type_name = match schema.get("type") {
        Some(Value::Array(several)) => several.first().and_then(Value::as_str),
        one => one.and_then(Value::as_str),
    };
    let kind = match (value, type_name) {
        (Some(Value::String(text)), _) => scalar_node(text, false),
        (Some(other), _) => scalar_node(&other.to_string(), true),
        (None, Some("array")) => NodeKind::List(Vec::new()),
        (None, Some("object")) => NodeKind::Map(Vec::new()),
        (None, Some("boolean")) => scalar_node("false", true),
        (None, Some("integer" | "number")) => scalar_node("1", true),
        (None, _) => scalar_node("", false),
    };
    YamlNode { position, kind }
}

fn scalar_node(text: &str, plain: bool) -> NodeKind {
    NodeKind::Scalar(Scalar {
        text: text.to_owned(),
        plain,
        ..Scalar::default()
    })
}

fn node_at<'a>(root: &'a mut YamlNode, location: &ConfigPath) -> Option<&'a mut YamlNode> {
    let Some(parent) = location.parent() else {
        return Some(root);
    };
    let last = location.last()?;
    match &mut node_at(root, &parent)?.kind {
        NodeKind::Scalar(_) => None,
        NodeKind::List(items) => items.get_mut(last.parse::<usize>().ok()?),
        NodeKind::Map(entries) => {
            let entry = entries.iter_mut().find(|entry| entry.key == last)?;
            Some(&mut entry.value)
        }
    }
}

fn find_entry<'a>(
    root: &'a mut YamlNode,
    location: &ConfigPath,
) -> Option<(&'a mut Vec<Entry>, usize)> {
    let last = location.last()?;
    match &mut node_at(root, &location.parent()?)?.kind {
        NodeKind::Map(entries) => {
            let index = entries.iter().position(|entry| entry.key == last)?;
            Some((entries, index))
        }
        NodeKind::Scalar(_) | NodeKind::List(_) => None,
    }
}

fn put_node(root: &mut YamlNode, location: &ConfigPath, node: YamlNode) {
    if let Some(old) = node_at(root, location) {
        *old = node;
    } else if let (Some(parent), Some(key)) = (location.parent(), location.last())
        && let Some(YamlNode {
            kind: NodeKind::Map(entries),
            ..
        }) = node_at(root, &parent)
    {
        entries.push(Entry {
            key,
            key_position: node.position,
            value: node,
        });
    }
}
