//! Reports of `check` for programs.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use crate::cli::output;
use crate::config::Diagnostics;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Error,
    Warning,
}

/// One error or warning.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    file: String,
    line: usize,
    column: usize,
    severity: Severity,
    message: String,
}

/// Lists errors and warnings in file order.
pub(super) fn entries(diagnostics: &Diagnostics) -> Vec<Entry> {
    let all = diagnostics.all().into_iter();
    all.map(|(diagnostic, is_warning)| Entry {
        file: diagnostics.file(diagnostic.position).display().to_string(),
        line: diagnostic.position.line,
        column: diagnostic.position.column,
        severity: match is_warning {
            true => Severity::Warning,
            false => Severity::Error,
        },
        message: diagnostic.message.clone(),
    })
    .collect()
}

/// Renders `{valid, diagnostics: [{file, line, column, severity, message}]}`.
pub(super) fn json(list: &[Entry], is_valid: bool) -> String {
    output::json(&json!({ "valid": is_valid, "diagnostics": list }))
}

/// Renders workflow commands of GitHub Actions, one per line.
pub(super) fn github(list: &[Entry]) -> String {
    let mut text = String::new();
    for entry in list {
        let command = match entry.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let (file, message) = (escape_property(&entry.file), escape_data(&entry.message));
        let (line, column) = (entry.line, entry.column);
        let _ = writeln!(
            text,
            "::{command} file={file},line={line},col={column}::{message}"
        );
    }
    text
}

/// Escapes the message of a workflow command, as `@actions/core` does.
fn escape_data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Escapes a property of a workflow command, as `@actions/core` does.
fn escape_property(text: &str) -> String {
    escape_data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflow_commands_are_escaped() {
        let entry = Entry {
            file: "a,b:c%.yaml".to_owned(),
            line: 3,
            column: 5,
            severity: Severity::Error,
            message: "100%: \"a\", b\r\nnext".to_owned(),
        };
        assert_eq!(
            github(&[entry]),
            "::error file=a%2Cb%3Ac%25.yaml,line=3,col=5::100%25: \"a\", b%0D%0Anext\n"
        );
    }
}
