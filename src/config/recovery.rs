//! Guesses in place of what is wrong, so that one run can tell everything else that is.

use serde_json::Value;

use super::diagnostics::Position;
use super::document::ConfigPath;
use super::schema::resolve_ref;
use super::yaml::{Entry, NodeKind, Scalar, YamlNode};

/// How to go on after a mistake.
pub(super) enum Recovery {
    /// The key was probably meant to be another.
    Rename(ConfigPath, String),
    Remove(ConfigPath),
    Put(ConfigPath, YamlNode),
    /// What looks like a number is text.
    Quote(ConfigPath),
}

impl Recovery {
    /// What is mended.
    pub(super) fn path(&self) -> &ConfigPath {
        match self {
            Recovery::Rename(place, _)
            | Recovery::Remove(place)
            | Recovery::Put(place, _)
            | Recovery::Quote(place) => place,
        }
    }

    /// Where a renamed key is afterwards.
    pub(super) fn renamed_path(&self) -> Option<ConfigPath> {
        match self {
            Recovery::Rename(place, to) => Some(place.parent()?.key(to)),
            Recovery::Remove(_) | Recovery::Put(..) | Recovery::Quote(_) => None,
        }
    }
}

/// Changes the tree, and answers with the place whose value is now a guess.
pub(super) fn apply(root: &mut YamlNode, repair: Recovery) -> Option<ConfigPath> {
    match repair {
        Recovery::Rename(place, to) => {
            if let Some((entries, index)) = find_entry(root, &place)
                && let Some(entry) = entries.get_mut(index)
            {
                entry.key = to;
            }
            None
        }
        Recovery::Remove(place) => {
            if let Some((entries, index)) = find_entry(root, &place) {
                entries.remove(index);
            }
            Some(place)
        }
        Recovery::Put(place, node) => {
            put_node(root, &place, node);
            Some(place)
        }
        Recovery::Quote(place) => {
            if let Some(YamlNode {
                kind: NodeKind::Scalar(scalar),
                ..
            }) = node_at(root, &place)
            {
                scalar.plain = false;
            }
            None
        }
    }
}

/// The simplest value that the schema accepts here.
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
    let known = first("enum")
        .or_else(|| first("examples"))
        .or_else(|| schema.get("minimum"));
    let of_type = match schema.get("type") {
        Some(Value::Array(several)) => several.first().and_then(Value::as_str),
        one => one.and_then(Value::as_str),
    };
    let kind = match (known, of_type) {
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

fn node_at<'a>(root: &'a mut YamlNode, place: &ConfigPath) -> Option<&'a mut YamlNode> {
    let Some(parent) = place.parent() else {
        return Some(root);
    };
    let last = place.last()?;
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
    place: &ConfigPath,
) -> Option<(&'a mut Vec<Entry>, usize)> {
    let last = place.last()?;
    match &mut node_at(root, &place.parent()?)?.kind {
        NodeKind::Map(entries) => {
            let index = entries.iter().position(|entry| entry.key == last)?;
            Some((entries, index))
        }
        NodeKind::Scalar(_) | NodeKind::List(_) => None,
    }
}

fn put_node(root: &mut YamlNode, place: &ConfigPath, node: YamlNode) {
    if let Some(old) = node_at(root, place) {
        *old = node;
    } else if let (Some(parent), Some(key)) = (place.parent(), place.last())
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
