//! Errors and warnings about a configuration, with their positions.

use std::fmt;
use std::path::{Path, PathBuf};

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

/// All errors of one configuration, in file order. Displayed as one line per error,
/// `FILE:LINE:COLUMN: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The configuration file and the files that it includes, in the order of reading.
    pub files: Vec<PathBuf>,
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Sorts the errors into file order and removes duplicates.
    pub(super) fn new(files: Vec<PathBuf>, mut list: Vec<Diagnostic>) -> Diagnostics {
        list.sort_by(|a, b| {
            a.position
                .cmp(&b.position)
                .then_with(|| a.message.cmp(&b.message))
        });
        list.dedup();
        Diagnostics { files, list }
    }

    /// Returns the file that contains a position.
    pub fn file(&self, position: Position) -> &Path {
        let file = self.files.get(position.file).or(self.files.first());
        file.map_or(Path::new(""), PathBuf::as_path)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Diagnostic { position, message }) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let file = self.file(*position).display();
            write!(f, "{file}:{}:{}: {message}", position.line, position.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Warnings about one configuration, in file order. Displayed as one line per warning,
/// `FILE:LINE:COLUMN: warning: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warnings(pub Diagnostics);

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Diagnostic { position, message } in &self.0.list {
            let file = self.0.file(*position).display();
            writeln!(
                f,
                "{file}:{}:{}: warning: {message}",
                position.line, position.column
            )?;
        }
        Ok(())
    }
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
