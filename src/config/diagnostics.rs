//! Errors and warnings about a configuration, with their positions.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::telemetry::printable::sanitize_line;

/// Position in one of the files of a configuration. Ordered by the order of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Index of the file in the order of reading; 0 is the configuration file itself.
    pub file: usize,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
}

impl Position {
    /// The first character of the configuration file.
    pub const START: Position = Position {
        file: 0,
        line: 1,
        column: 1,
    };

    /// Names this position in a message about `other`: the line and column, and the file if it is
    /// another one.
    pub(super) fn as_seen_from(self, other: Position, files: &[PathBuf]) -> String {
        let Position { file, line, column } = self;
        match files.get(file) {
            Some(path) if file != other.file => format!("{}:{line}:{column}", path.display()),
            _ => format!("{line}:{column}"),
        }
    }
}

/// One error or warning. The message never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub position: Position,
    pub message: String,
}

/// All errors and warnings of one configuration, in file order. Displayed as one line each,
/// `FILE:LINE:COLUMN: message`, where the message of a warning begins with `warning: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The configuration file and the files that it includes, in the order of reading.
    pub files: Vec<PathBuf>,
    /// The errors.
    pub list: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Collects errors.
    pub(super) fn new(files: Vec<PathBuf>, list: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics {
            files,
            list: in_file_order(list),
            warnings: Vec::new(),
        }
    }

    /// Adds warnings.
    pub(super) fn with_warnings(self, warnings: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics {
            warnings: in_file_order(warnings),
            ..self
        }
    }

    /// Returns the errors and warnings in file order, and whether each is a warning.
    pub fn all(&self) -> Vec<(&Diagnostic, bool)> {
        let errors = self.list.iter().map(|error| (error, false));
        let warnings = self.warnings.iter().map(|warning| (warning, true));
        let mut all: Vec<_> = errors.chain(warnings).collect();
        all.sort_by_key(|(diagnostic, _)| diagnostic.position);
        all
    }

    /// Returns the file that contains a position.
    pub fn file(&self, position: Position) -> &Path {
        let file = self.files.get(position.file).or(self.files.first());
        file.map_or(Path::new(""), PathBuf::as_path)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (diagnostic, is_warning)) in self.all().into_iter().enumerate() {
            let Position { line, column, .. } = diagnostic.position;
            let file = self.file(diagnostic.position).display().to_string();
            let file = sanitize_line(&file);
            let separator = if index > 0 { "\n" } else { "" };
            let severity = if is_warning { "warning: " } else { "" };
            let message = sanitize_line(&diagnostic.message);
            write!(f, "{separator}{file}:{line}:{column}: {severity}{message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Sorts errors or warnings into file order and removes duplicates.
fn in_file_order(mut list: Vec<Diagnostic>) -> Vec<Diagnostic> {
    list.sort_by(|a, b| {
        a.position
            .cmp(&b.position)
            .then_with(|| a.message.cmp(&b.message))
    });
    list.dedup();
    list
}

/// Finds the candidate that is most similar to a misspelt name.
pub(super) fn nearest_match<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(wrong, candidate), candidate))
        // At most half of the characters may differ.
        .filter(|(distance, candidate)| {
            candidate.starts_with(wrong) || 2 * distance <= wrong.len().max(candidate.len())
        })
        // A completion of the name is preferred over other candidates.
        .min_by_key(|(distance, candidate)| (!candidate.starts_with(wrong), *distance))
        .map(|(_, candidate)| candidate)
}

/// Returns the end of a message that suggests the most similar candidate; empty if there is none.
pub(super) fn did_you_mean<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    nearest_match(wrong, candidates)
        .map_or_else(String::new, |near| format!(", did you mean \"{near}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_is_one_line_that_controls_no_terminal() {
        let diagnostic = |message: &str| Diagnostic {
            position: Position::START,
            message: message.to_owned(),
        };
        let errors = vec![diagnostic("unknown key \"a\r\n::warning::b\"")];
        let diagnostics = Diagnostics::new(vec!["a\u{1b}.yaml".into()], errors);
        let diagnostics = diagnostics.with_warnings(vec![diagnostic("\u{202e}\u{9b}31m")]);
        assert_eq!(
            diagnostics.to_string(),
            "a\\u{1b}.yaml:1:1: unknown key \"a\\u{d}\\u{a}::warning::b\"\n\
             a\\u{1b}.yaml:1:1: warning: \\u{202e}\\u{9b}31m"
        );
    }
}
