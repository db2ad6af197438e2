//! Errors of commands: how they are reported.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::Cli;
use super::admin_client::RequestError;
use crate::config::Diagnostics;
use crate::telemetry::printable::sanitize_line;

/// Several errors, one per line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(super) struct ErrorLines(pub(super) Vec<String>);

impl ErrorLines {
    /// Fails if there are any errors.
    pub(super) fn fail_if_any(errors: Vec<String>) -> anyhow::Result<()> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(ErrorLines(errors).into())
    }
}

/// An error in the use of options that clap does not find.
pub(super) fn wrong_usage(message: &str) -> anyhow::Error {
    let mut command = Cli::command();
    command.error(ErrorKind::ArgumentConflict, message).into()
}

/// Prints an error. Configuration errors include their positions; other errors are one line.
pub(super) fn report_error(error: &anyhow::Error) {
    if let Some(diagnostics) = error.downcast_ref::<Diagnostics>() {
        // A failure cannot be reported anywhere else.
        let _ = writeln!(std::io::stderr().lock(), "{diagnostics}");
        return;
    }
    for line in error_lines(error) {
        print_error_line(&line);
    }
}

/// Prints the warnings about a valid configuration.
pub(super) fn print_warnings(diagnostics: &Diagnostics) {
    if !diagnostics.warnings.is_empty() {
        // A failure to print them does not make the file invalid.
        let _ = writeln!(std::io::stderr().lock(), "{diagnostics}");
    }
}

/// Returns the lines that describe an error.
pub(super) fn error_lines(error: &anyhow::Error) -> Vec<String> {
    if let Some(diagnostics) = error.downcast_ref::<Diagnostics>() {
        return diagnostics.to_string().lines().map(str::to_owned).collect();
    }
    if let Some(ErrorLines(lines)) = error.downcast_ref() {
        return lines.clone();
    }
    if let Some(RequestError::Rejected(response)) = error.downcast_ref()
        && !response.fields.is_empty()
    {
        let fields = response.fields.iter();
        let lines = fields.map(|(name, problem)| format!("{name}: {problem}"));
        return lines.collect();
    }
    vec![format!("{error:#}")]
}

/// Prints a line to standard error, without control characters.
pub(super) fn print_error_line(line: &str) {
    // A failure cannot be reported anywhere else.
    let _ = writeln!(
        std::io::stderr().lock(),
        "portcullis: {}",
        sanitize_line(line)
    );
}
