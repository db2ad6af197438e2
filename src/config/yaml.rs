//! Parser of YAML into a tree with the position of every node.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::diagnostics::{Diagnostic, Position};
use super::environment::Variables;

/// Maximum nesting; the deepest valid file has eight levels.
const MAX_DEPTH: usize = 32;
/// Maximum number of nodes of a configuration, including those that aliases repeat.
pub(super) const MAX_NODES: usize = 500_000;

/// A node and its position.
#[derive(Debug, Clone)]
pub(super) struct YamlNode {
    pub(super) position: Position,
    pub(super) kind: NodeKind,
}

#[derive(Debug, Clone)]
pub(super) enum NodeKind {
    Scalar(Scalar),
    List(Vec<YamlNode>),
    Map(Vec<Entry>),
}

/// A scalar that is not interpreted yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Without quotes, so that `1` is a number and `true` a boolean.
    pub(super) plain: bool,
    /// The environment variables that the scalar refers to.
    pub(super) variables: Option<Arc<Variables>>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_position: Position,
    pub(super) value: YamlNode,
}

/// Parses the only document in `text`, which is the file with this index; `None` if it has no
/// content. Duplicate keys are collected; any other error ends parsing.
pub(super) fn read(text: &str, file: usize) -> ParsedDocument {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => builder.handle_event(event, position(file, span.start)),
            Err(error) => Err(syntax_error(file, &error)),
        };
        if let Err(error) = step {
            builder.errors.push(error);
            return Err(builder.errors);
        }
    }
    Ok((builder.root, builder.errors))
}

/// The root of a document with the errors found so far, or the errors that ended parsing.
pub(super) type ParsedDocument = Result<(Option<YamlNode>, Vec<Diagnostic>), Vec<Diagnostic>>;

fn position(file: usize, marker: Marker) -> Position {
    Position {
        file,
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

fn syntax_error(file: usize, error: &ScanError) -> Diagnostic {
    Diagnostic {
        position: position(file, *error.marker()),
        message: format!("invalid YAML: {}", error.info()),
    }
}

/// A list or mapping that is not closed yet.
struct OpenCollection {
    position: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<YamlNode>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    /// First position of each key.
    first_positions: HashMap<String, Position>,
    /// The key that has no value yet.
    pending_key: Option<(String, Position)>,
}

#[derive(Default)]
struct Builder {
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, (YamlNode, usize)>,
    nodes: usize,
    documents: usize,
    root: Option<YamlNode>,
    errors: Vec<Diagnostic>,
}

impl Builder {
    fn handle_event(&mut self, event: Event<'_>, position: Position) -> Result<(), Diagnostic> {
        match event {
            Event::DocumentStart(_) => self.start_document(position),
            Event::SequenceStart(anchor, _) => {
                self.start(position, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, _) => {
                self.start(position, anchor, Content::Map(OpenMap::default()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = Scalar {
                    text: text.into_owned(),
                    // A tag such as `!!str` has the same effect as quotes.
                    plain: style == ScalarStyle::Plain && tag.is_none(),
                    ..Scalar::default()
                };
                self.add_node(
                    YamlNode {
                        position,
                        kind: NodeKind::Scalar(scalar),
                    },
                    anchor,
                    1,
                )
            }
            Event::Alias(anchor) => self.alias(anchor, position),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn start_document(&mut self, position: Position) -> Result<(), Diagnostic> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(diagnostic(
                position,
                "the file contains more than one YAML document",
            ));
        }
        Ok(())
    }

    fn start(
        &mut self,
        position: Position,
        anchor: usize,
        content: Content,
    ) -> Result<(), Diagnostic> {
        if self.open.len() >= MAX_DEPTH {
            return Err(diagnostic(position, "the file is nested too deeply"));
        }
        self.open.push(OpenCollection {
            position,
            anchor,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Diagnostic> {
        let Some(OpenCollection {
            position,
            anchor,
            content,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let kind = match content {
            Content::List(items) => NodeKind::List(items),
            Content::Map(map) => NodeKind::Map(map.entries),
        };
        self.add_node(YamlNode { position, kind }, anchor, 1)
    }

    /// Repeats the node of an anchor. An alias within its own anchor is an error.
    fn alias(&mut self, anchor: usize, position: Position) -> Result<(), Diagnostic> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(diagnostic(
                position,
                "this alias refers to a node that contains it",
            ));
        };
        if self.nodes + size > MAX_NODES {
            return Err(diagnostic(position, "the file's aliases repeat too much"));
        }
        let (node, size) = (
            YamlNode {
                position,
                ..node.clone()
            },
            *size,
        );
        if self.open.len() + depth(&node) > MAX_DEPTH {
            return Err(diagnostic(position, "the file is nested too deeply"));
        }
        self.add_node(node, 0, size)
    }

    fn add_node(&mut self, node: YamlNode, anchor: usize, size: usize) -> Result<(), Diagnostic> {
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err(diagnostic(node.position, "the file has too many entries"));
        }
        if anchor > 0 {
            self.anchors
                .insert(anchor, (node.clone(), count_nodes(&node)));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map(map) => match map.pending_key.take() {
                Some((key, key_position)) => map.entries.push(Entry {
                    key,
                    key_position,
                    value: node,
                }),
                None => {
                    map.pending_key =
                        Some(take_key(node, &mut map.first_positions, &mut self.errors)?)
                }
            },
        }
        Ok(())
    }
}

fn take_key(
    node: YamlNode,
    first: &mut HashMap<String, Position>,
    errors: &mut Vec<Diagnostic>,
) -> Result<(String, Position), Diagnostic> {
    let NodeKind::Scalar(scalar) = node.kind else {
        return Err(diagnostic(node.position, "a key must be plain text"));
    };
    if let Some(before) = first.get(&scalar.text) {
        let before = before.as_seen_from(node.position, &[]);
        errors.push(Diagnostic {
            position: node.position,
            message: format!("\"{}\" is specified twice, first at {before}", scalar.text),
        });
    } else {
        first.insert(scalar.text.clone(), node.position);
    }
    Ok((scalar.text, node.position))
}

/// Counts the nodes of a tree.
pub(super) fn count_nodes(node: &YamlNode) -> usize {
    1 + match &node.kind {
        NodeKind::Scalar(_) => 0,
        NodeKind::List(items) => items.iter().map(count_nodes).sum(),
        NodeKind::Map(entries) => entries.iter().map(|entry| count_nodes(&entry.value)).sum(),
    }
}

fn depth(node: &YamlNode) -> usize {
    match &node.kind {
        NodeKind::Scalar(_) => 0,
        NodeKind::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        NodeKind::Map(entries) => {
            1 + entries
                .iter()
                .map(|entry| depth(&entry.value))
                .max()
                .unwrap_or(0)
        }
    }
}

fn diagnostic(position: Position, message: &str) -> Diagnostic {
    Diagnostic {
        position,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn error_messages(text: &str) -> Vec<String> {
        let errors = read(text, 0).map_or_else(|errors| errors, |(_, errors)| errors);
        let errors = errors.into_iter();
        errors
            .map(|m| format!("{}:{}: {}", m.position.line, m.position.column, m.message))
            .collect()
    }

    #[test]
    fn positions_match_those_of_an_editor() {
        let (root, _) = read("a:\n  bé: [x, {c: 1}]\n", 1).unwrap();
        let NodeKind::Map(entries) = root.unwrap().kind else {
            panic!("a map")
        };
        let NodeKind::Map(inner) = &entries[0].value.kind else {
            panic!("a map")
        };
        let at = |line, column| Position {
            file: 1,
            line,
            column,
        };
        assert_eq!(inner[0].key_position, at(2, 3));
        let NodeKind::List(items) = &inner[0].value.kind else {
            panic!("a list")
        };
        assert_eq!(items[0].position, at(2, 8));
        assert_eq!(items[1].position, at(2, 11));
    }

    #[test]
    fn invalid_documents_are_rejected() {
        for (text, expected) in [
            (
                "a: 1\nb: 2\na: 3\n",
                "3:1: \"a\" is specified twice, first at 1:1",
            ),
            (
                "a: 1\n---\nb: 2\n",
                "2:1: the file contains more than one YAML document",
            ),
            ("? [a]\n: 1\n", "1:3: a key must be plain text"),
        ] {
            assert_eq!(error_messages(text), [expected], "{text:?}");
        }
        assert!(error_messages("a: [1\n")[0].contains("invalid YAML"));
        assert!(error_messages("a: &x [*x]\n")[0].contains("alias"));
    }

    #[test]
    fn alias_expansion_is_bounded() {
        assert!(read("a: &x {b: 1}\nc: *x\n", 0).is_ok());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            bomb += &format!(
                "a{level}: &a{level} [{}]\n",
                [before.as_str(); 10].join(", ")
            );
        }
        assert!(error_messages(&bomb)[0].ends_with("the file's aliases repeat too much"));
    }

    #[test]
    fn depth_is_bounded() {
        assert!(error_messages(&"- ".repeat(20_000))[0].ends_with("nested too deeply"));
        assert!(!error_messages(&"[".repeat(20_000)).is_empty());
    }
}
