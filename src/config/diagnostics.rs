//! What is wrong with a configuration, each mistake with the place where it can be mended.

use std::fmt;
use std::path::PathBuf;

/// A line and a column, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// The first character of a file.
    pub const START: Position = Position { line: 1, column: 1 };
}

/// One thing that is wrong. The message never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub position: Position,
    pub message: String,
}

/// Everything that is wrong with one file, in the order of the file. Shown as one line a mistake,
/// `FILE:LINE:COLUMN: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    pub file: PathBuf,
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Sorts the mistakes into file order and drops repetitions.
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
        for (
            index,
            Diagnostic {
                position: at,
                message,
            },
        ) in self.list.iter().enumerate()
        {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{file}:{}:{}: {message}", at.line, at.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// What is valid in a file and probably not meant, in the order of the file. Shown as one line each,
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
        for Diagnostic {
            position: at,
            message,
        } in &self.0.list
        {
            writeln!(f, "{file}:{}:{}: warning: {message}", at.line, at.column)?;
        }
        Ok(())
    }
}

/// Finds the candidate that somebody who wrote `wrong` most likely meant.
pub(super) fn nearest_match<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(wrong, candidate), candidate))
        // Half of it right is near enough to be worth a look.
        .filter(|(distance, candidate)| {
            candidate.starts_with(wrong) || 2 * distance <= wrong.len().max(candidate.len())
        })
        // What was only begun is nearer than what is as short.
        .min_by_key(|(distance, candidate)| (!candidate.starts_with(wrong), *distance))
        .map(|(_, candidate)| candidate)
}

/// The end of a sentence that suggests the nearest candidate; empty when none is near.
pub(super) fn did_you_mean<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    nearest_match(wrong, candidates)
        .map_or_else(String::new, |near| format!(", did you mean \"{near}\"?"))
}
