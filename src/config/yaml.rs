//! YAML text to a tree in which every node knows where it was written.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::mistakes::{Mistake, Position};

/// Bytes of a configuration file; what is longer is not one.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// Levels of nesting; the deepest valid file has eight.
const MAX_DEPTH: usize = 32;
/// Nodes, those that aliases repeat included.
const MAX_NODES: usize = 500_000;

/// A piece of the file and where it starts.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// Text that is not interpreted yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Written without quotes, so that `1` is a number and `true` a boolean.
    pub(super) plain: bool,
    /// Holds something from the environment, which messages must not repeat.
    pub(super) from_environment: bool,
    /// Names a variable that is not there, so that nothing more can be said of the value.
    pub(super) unresolved: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Position,
    pub(super) value: Node,
}

/// Reads the one document in `text`, and tells which keys are given twice. Other errors stop at the
/// first.
pub(super) fn read(text: &str) -> Result<(Node, Vec<Mistake>), Vec<Mistake>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => builder.take(event, position(span.start)),
            Err(error) => Err(syntax(&error)),
        };
        if let Err(mistake) = step {
            builder.mistakes.push(mistake);
            return Err(builder.mistakes);
        }
    }
    let Builder { root, mistakes, .. } = builder;
    match root {
        Some(root) => Ok((root, mistakes)),
        None => Err(vec![Mistake {
            at: Position::START,
            message: "the file is empty: listeners, upstreams and routes are required".to_owned(),
        }]),
    }
}

fn position(marker: Marker) -> Position {
    Position {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

fn syntax(error: &ScanError) -> Mistake {
    Mistake {
        at: position(*error.marker()),
        message: format!("this is not valid YAML: {}", error.info()),
    }
}

/// A list or a mapping that is not closed yet.
struct Open {
    at: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    /// Where each key was first given.
    first: HashMap<String, Position>,
    /// The key that waits for its value.
    waiting: Option<(String, Position)>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
    mistakes: Vec<Mistake>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), Mistake> {
        match event {
            Event::DocumentStart(_) => self.start_document(at),
            Event::SequenceStart(anchor, _) => self.start(at, anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.start(at, anchor, Content::Map(OpenMap::default()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = Scalar {
                    text: text.into_owned(),
                    // A tag such as `!!str` says how to read it just as quotes do.
                    plain: style == ScalarStyle::Plain && tag.is_none(),
                    ..Scalar::default()
                };
                self.put(
                    Node {
                        at,
                        kind: Kind::Scalar(scalar),
                    },
                    anchor,
                    1,
                )
            }
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn start_document(&mut self, at: Position) -> Result<(), Mistake> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(mistake(at, "the file holds more than one YAML document"));
        }
        Ok(())
    }

    fn start(&mut self, at: Position, anchor: usize, content: Content) -> Result<(), Mistake> {
        if self.open.len() >= MAX_DEPTH {
            return Err(mistake(at, "the file is nested too deeply"));
        }
        self.open.push(Open {
            at,
            anchor,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Mistake> {
        let Some(Open {
            at,
            anchor,
            content,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let kind = match content {
            Content::List(items) => Kind::List(items),
            Content::Map(map) => Kind::Map(map.entries),
        };
        self.put(Node { at, kind }, anchor, 1)
    }

    /// Repeats what the anchor named. An alias within its own anchor has no meaning here.
    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Mistake> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(mistake(at, "this alias refers to what it is part of"));
        };
        if self.nodes + size > MAX_NODES {
            return Err(mistake(at, "the file's aliases repeat too much"));
        }
        let (node, size) = (Node { at, ..node.clone() }, *size);
        if self.open.len() + depth(&node) > MAX_DEPTH {
            return Err(mistake(at, "the file is nested too deeply"));
        }
        self.put(node, 0, size)
    }

    fn put(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Mistake> {
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err(mistake(node.at, "the file has too many entries"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), count(&node)));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map(map) => match map.waiting.take() {
                Some((key, key_at)) => map.entries.push(Entry {
                    key,
                    key_at,
                    value: node,
                }),
                None => map.waiting = Some(key_of(node, &mut map.first, &mut self.mistakes)?),
            },
        }
        Ok(())
    }
}

fn key_of(
    node: Node,
    first: &mut HashMap<String, Position>,
    mistakes: &mut Vec<Mistake>,
) -> Result<(String, Position), Mistake> {
    let Kind::Scalar(scalar) = node.kind else {
        return Err(mistake(node.at, "a key must be plain text"));
    };
    if let Some(Position { line, column }) = first.get(&scalar.text) {
        mistakes.push(Mistake {
            at: node.at,
            message: format!(
                "\"{}\" is given twice, first at {line}:{column}",
                scalar.text
            ),
        });
    } else {
        first.insert(scalar.text.clone(), node.at);
    }
    Ok((scalar.text, node.at))
}

fn count(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::Scalar(_) => 0,
        Kind::List(items) => items.iter().map(count).sum(),
        Kind::Map(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
    }
}

fn depth(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar(_) => 0,
        Kind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Kind::Map(entries) => {
            1 + entries
                .iter()
                .map(|entry| depth(&entry.value))
                .max()
                .unwrap_or(0)
        }
    }
}

fn mistake(at: Position, message: &str) -> Mistake {
    Mistake {
        at,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        let mistakes = read(text).map_or_else(|mistakes| mistakes, |(_, mistakes)| mistakes);
        let lines = mistakes.into_iter();
        lines
            .map(|m| format!("{}:{}: {}", m.at.line, m.at.column, m.message))
            .collect()
    }

    #[test]
    fn positions_are_those_of_an_editor() {
        let (root, _) = read("a:\n  bé: [x, {c: 1}]\n").unwrap();
        let Kind::Map(entries) = root.kind else {
            panic!("a map")
        };
        let Kind::Map(inner) = &entries[0].value.kind else {
            panic!("a map")
        };
        assert_eq!(inner[0].key_at, Position { line: 2, column: 3 });
        let Kind::List(items) = &inner[0].value.kind else {
            panic!("a list")
        };
        assert_eq!(items[0].at, Position { line: 2, column: 8 });
        assert_eq!(
            items[1].at,
            Position {
                line: 2,
                column: 11
            }
        );
    }

    #[test]
    fn what_is_refused() {
        for (text, expected) in [
            (
                "",
                "1:1: the file is empty: listeners, upstreams and routes are required",
            ),
            (
                "a: 1\nb: 2\na: 3\n",
                "3:1: \"a\" is given twice, first at 1:1",
            ),
            (
                "a: 1\n---\nb: 2\n",
                "2:1: the file holds more than one YAML document",
            ),
            ("? [a]\n: 1\n", "1:3: a key must be plain text"),
        ] {
            assert_eq!(complaints(text), [expected], "{text:?}");
        }
        assert!(complaints("a: [1\n")[0].contains("this is not valid YAML"));
        assert!(complaints("a: &x [*x]\n")[0].contains("alias"));
    }

    #[test]
    fn aliases_repeat_but_cannot_explode() {
        assert!(read("a: &x {b: 1}\nc: *x\n").is_ok());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            bomb += &format!(
                "a{level}: &a{level} [{}]\n",
                [before.as_str(); 10].join(", ")
            );
        }
        assert!(complaints(&bomb)[0].ends_with("the file's aliases repeat too much"));
    }

    #[test]
    fn depth_is_bounded() {
        assert!(complaints(&"- ".repeat(20_000))[0].ends_with("nested too deeply"));
        assert!(!complaints(&"[".repeat(20_000)).is_empty());
    }
}
