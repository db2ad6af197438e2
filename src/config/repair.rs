//! Guesses in place of what is wrong, so that one run can tell everything else that is.

use serde_json::Value;

use super::document::Place;
use super::mistakes::Position;
use super::schema::resolve;
use super::yaml::{Entry, Kind, Node, Scalar};

/// How to go on after a mistake.
pub(super) enum Repair {
    /// The key was probably meant to be another.
    Rename(Place, String),
    Remove(Place),
    Put(Place, Node),
    /// What looks like a number is text.
    Quote(Place),
}

impl Repair {
    /// What is mended.
    pub(super) fn place(&self) -> &Place {
        match self {
            Repair::Rename(place, _)
            | Repair::Remove(place)
            | Repair::Put(place, _)
            | Repair::Quote(place) => place,
        }
    }

    /// Where a renamed key is afterwards.
    pub(super) fn new_place(&self) -> Option<Place> {
        match self {
            Repair::Rename(place, to) => Some(place.parent()?.key(to)),
            Repair::Remove(_) | Repair::Put(..) | Repair::Quote(_) => None,
        }
    }
}

/// Changes the tree, and answers with the place whose value is now a guess.
pub(super) fn apply(root: &mut Node, repair: Repair) -> Option<Place> {
    match repair {
        Repair::Rename(place, to) => {
            if let Some((entries, index)) = entry(root, &place)
                && let Some(entry) = entries.get_mut(index)
            {
                entry.key = to;
            }
            None
        }
        Repair::Remove(place) => {
            if let Some((entries, index)) = entry(root, &place) {
                entries.remove(index);
            }
            Some(place)
        }
        Repair::Put(place, node) => {
            put(root, &place, node);
            Some(place)
        }
        Repair::Quote(place) => {
            if let Some(Node {
                kind: Kind::Scalar(scalar),
                ..
            }) = at(root, &place)
            {
                scalar.plain = false;
            }
            None
        }
    }
}

/// The simplest value that the schema accepts here.
pub(super) fn placeholder(root: &Value, part: &Value, position: Position) -> Node {
    let schema = resolve(root, part);
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
        (Some(Value::String(text)), _) => text_node(text, false),
        (Some(other), _) => text_node(&other.to_string(), true),
        (None, Some("array")) => Kind::List(Vec::new()),
        (None, Some("object")) => Kind::Map(Vec::new()),
        (None, Some("boolean")) => text_node("false", true),
        (None, Some("integer" | "number")) => text_node("1", true),
        (None, _) => text_node("", false),
    };
    Node { at: position, kind }
}

fn text_node(text: &str, plain: bool) -> Kind {
    Kind::Scalar(Scalar {
        text: text.to_owned(),
        plain,
        ..Scalar::default()
    })
}

fn at<'a>(root: &'a mut Node, place: &Place) -> Option<&'a mut Node> {
    let Some(parent) = place.parent() else {
        return Some(root);
    };
    let last = place.last()?;
    match &mut at(root, &parent)?.kind {
        Kind::Scalar(_) => None,
        Kind::List(items) => items.get_mut(last.parse::<usize>().ok()?),
        Kind::Map(entries) => {
            let entry = entries.iter_mut().find(|entry| entry.key == last)?;
            Some(&mut entry.value)
        }
    }
}

fn entry<'a>(root: &'a mut Node, place: &Place) -> Option<(&'a mut Vec<Entry>, usize)> {
    let last = place.last()?;
    match &mut at(root, &place.parent()?)?.kind {
        Kind::Map(entries) => {
            let index = entries.iter().position(|entry| entry.key == last)?;
            Some((entries, index))
        }
        Kind::Scalar(_) | Kind::List(_) => None,
    }
}

fn put(root: &mut Node, place: &Place, node: Node) {
    if let Some(old) = at(root, place) {
        *old = node;
    } else if let (Some(parent), Some(key)) = (place.parent(), place.last())
        && let Some(Node {
            kind: Kind::Map(entries),
            ..
        }) = at(root, &parent)
    {
        entries.push(Entry {
            key,
            key_at: node.at,
            value: node,
        });
    }
}
