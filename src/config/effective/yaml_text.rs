//! YAML in block style.

use std::fmt::Write;

use serde_json::Value;

use super::Node;
use crate::config::document::resolve_scalar;
use crate::config::yaml::Scalar;

/// Formats a document.
pub(super) fn format(root: &Node) -> String {
    let mut text = String::new();
    match root {
        Node::Map(entries) if !entries.is_empty() => write_map(entries, 0, &mut text),
        Node::List(items) if !items.is_empty() => write_list(items, 0, &mut text),
        other => {
            text += &inline(other);
            text.push('\n');
        }
    }
    text
}

fn write_map(entries: &[(String, Node)], indent: usize, text: &mut String) {
    for (index, (key, value)) in entries.iter().enumerate() {
        // The first key stands behind the dash of its item.
        if index > 0 || text.is_empty() || text.ends_with('\n') {
            let _ = write!(text, "{:indent$}", "");
        }
        let _ = write!(text, "{}:", scalar(&Value::from(key.as_str())));
        match value {
            Node::Map(entries) if !entries.is_empty() => {
                text.push('\n');
                write_map(entries, indent + 2, text);
            }
            Node::List(items) if !items.is_empty() => {
                text.push('\n');
                write_list(items, indent + 2, text);
            }
            other => {
                let _ = writeln!(text, " {}", inline(other));
            }
        }
    }
}

fn write_list(items: &[Node], indent: usize, text: &mut String) {
    for item in items {
        let _ = write!(text, "{:indent$}- ", "");
        match item {
            Node::Map(entries) if !entries.is_empty() => write_map(entries, indent + 2, text),
            // The schema has no lists of lists.
            other => {
                let _ = writeln!(text, "{}", inline(other));
            }
        }
    }
}

/// Formats a value in one line.
fn inline(node: &Node) -> String {
    match node {
        Node::Scalar(value) => scalar(value),
        Node::List(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Node::Map(entries) => {
            let entries = entries.iter();
            let entries = entries
                .map(|(key, value)| format!("{}: {}", quote(key), inline(value)))
                .collect::<Vec<_>>();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

/// Whether a text is the same without quotes, also for parsers of YAML 1.1.
fn is_plain(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._/@+=:".contains(c);
    let plain = Scalar {
        text: text.to_owned(),
        plain: true,
        ..Scalar::default()
    };
    let words = ["y", "n", "yes", "no", "on", "off"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(is_allowed)
        && !text.ends_with(':')
        && !words.contains(&text.to_ascii_lowercase().as_str())
        && resolve_scalar(&plain).is_string()
}

fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            ' '..='~' => quoted.push(c),
            _ if c.is_alphanumeric() => quoted.push(c),
            _ => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xffff => write!(quoted, "\\u{code:04x}"),
                    _ => write!(quoted, "\\U{code:08x}"),
                };
            }
        }
    }
    quoted.push('"');
    quoted
}
