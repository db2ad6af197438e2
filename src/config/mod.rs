//! The configuration file.
//!
//! A file passes these steps, each of which reports all errors with line and column:
//!
//! 1. `yaml` parses it into a tree with the position of every node;
//! 2. `environment` substitutes variables;
//! 3. `schema_check` validates the tree against the JSON Schema of the types in `file`;
//! 4. `resolve` checks what a schema cannot express, and builds [`Settings`].
//!
//! Only `gateway` and `cli` use this module.

mod context;
mod diagnostics;
mod document;
mod environment;
mod file;
mod keys;
mod recovery;
mod reference;
mod resolve;
mod schema;
mod schema_check;
mod units;
mod validator;
mod warnings;
mod watch;
mod yaml;

#[cfg(test)]
mod tests;

use std::path::Path;

use context::ResolveContext;
pub use diagnostics::{Diagnostic, Diagnostics, Position, Warnings};
use file::File;
pub use reference::reference;
pub use schema::schema;
pub use watch::{FileWatcher, WatchError};

use crate::settings::Settings;

/// Reads and checks a configuration file, with the environment of the process.
///
/// # Errors
///
/// All errors of the file, in file order.
pub fn load(path: &Path) -> Result<Settings, Diagnostics> {
    load_with_warnings(path).map(|(settings, _)| settings)
}

/// Reads and checks a configuration file, and also returns warnings about suspicious settings.
///
/// # Errors
///
/// All errors of the file, in file order.
pub fn load_with_warnings(path: &Path) -> Result<(Settings, Warnings), Diagnostics> {
    let text = std::fs::read(path).map_err(|error| format!("cannot read the file: {error}"));
    let text = text.and_then(|bytes| {
        if bytes.len() > yaml::MAX_BYTES {
            return Err("the file is larger than 16 MiB".to_owned());
        }
        String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned())
    });
    match text {
        Ok(text) => {
            let environment = |name: &str| std::env::var(name).ok();
            let (mut settings, warnings) = read(&text, path, &environment)
                .map_err(|list| Diagnostics::new(path.to_owned(), list))?;
            settings.fingerprint =
                watch::fingerprint_as_read(path, text.as_bytes(), &settings.watched);
            Ok((settings, Warnings::new(path.to_owned(), warnings)))
        }
        Err(message) => {
            let error = Diagnostic {
                position: Position::START,
                message,
            };
            Err(Diagnostics::new(path.to_owned(), vec![error]))
        }
    }
}

/// Checks the text of a configuration file, with the environment of the process. `path` is named in
/// the errors, and relative paths are relative to its directory.
///
/// # Errors
///
/// All errors of the file, in file order.
pub fn parse(text: &str, path: &Path) -> Result<Settings, Diagnostics> {
    parse_with(text, path, &|name| std::env::var(name).ok())
}

/// Checks the text of a configuration file, with `look_up` as the environment.
///
/// # Errors
///
/// All errors of the file, in file order.
pub fn parse_with(
    text: &str,
    path: &Path,
    look_up: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, Diagnostics> {
    let result = read(text, path, look_up);
    result
        .map(|(settings, _)| settings)
        .map_err(|list| Diagnostics::new(path.to_owned(), list))
}

fn read(
    text: &str,
    path: &Path,
    look_up: &dyn Fn(&str) -> Option<String>,
) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (mut root, mut errors) = yaml::read(text)?;
    environment::substitute(&mut root, look_up, &mut errors);
    let checked = schema_check::check(root, &schema()).map_err(|error| vec![error])?;
    errors.extend(checked.errors);
    let file: File = match serde_json::from_value(checked.value) {
        Ok(file) => file,
        Err(_) if !errors.is_empty() => return Err(errors),
        Err(error) => {
            let message = format!("the file cannot be deserialized: {error}");
            return Err(vec![Diagnostic {
                position: Position::START,
                message,
            }]);
        }
    };
    let mut context = ResolveContext {
        source_map: &checked.source_map,
        folder: path.parent().unwrap_or(Path::new("")),
        recovered: &checked.recovered,
        errors,
        warnings: Vec::new(),
        watched: Vec::new(),
    };
    let settings = resolve::resolve(&file, &mut context);
    match settings {
        Some(settings) if context.errors.is_empty() => {
            warnings::check(&file, &settings, &mut context);
            Ok((settings, context.warnings))
        }
        _ => Err(context.errors),
    }
}
