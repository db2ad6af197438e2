//! Errors and warnings about a configuration, with their positions.

use std::fmt;
use std::path::PathBuf;

/// Line and column, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// The first character of a file.
    pub const START: Position = Position { line: 1, column: 1 };
}

/// One error or warning. The message never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub position: Position,
    pub message: String,
}

/// All errors of one file, in file order. Displayed as one line per error,
/// `FILE:LINE:COLUMN: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    pub file: PathBuf,
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Sorts the errors into file order and removes duplicates.
    pub(super) fn new(file: PathBuf, mut list: Vec<Diagnostic>) -> Diagnostics {
        list.sort_by(|a, b| {
            a.position
                .cmp(&b.position)
                .then_with(|| a.message.cmp(&b.message))
        });
        list.dedup();
        Diagnostics { file, list }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for (index, Diagnostic { position, message }) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{file}:{}:{}: {message}", position.line, position.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Warnings about one file, in file order. Displayed as one line per warning,
/// `FILE:LINE:COLUMN: warning: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warnings(Diagnostics);

impl Warnings {
    pub(super) fn new(file: PathBuf, list: Vec<Diagnostic>) -> Warnings {
        Warnings(Diagnostics::new(file, list))
    }

    pub fn is_empty(&self) -> bool {
        self.0.list.is_empty()
    }
}

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.0.file.display();
        for Diagnostic { position, message } in &self.0.list {
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
