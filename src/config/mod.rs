//! What the operator wrote. A file goes through these steps, each of which reports every mistake
//! it finds with its line and column:
//!
//! 1. `yaml` reads it into a tree that knows where everything was written;
//! 2. `environment` replaces variables;
//! 3. `shape` holds the tree against the JSON Schema, which `schema` makes from the types in `file`;
//! 4. `meaning` checks what a schema cannot say, and makes [`Settings`].
//!
//! Only `gateway` and `cli` know this room.

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

/// Reads and checks a configuration file, with the process' environment.
///
/// # Errors
///
/// Everything that is wrong with it, in file order.
pub fn load(path: &Path) -> Result<Settings, Diagnostics> {
    load_with_warnings(path).map(|(settings, _)| settings)
}

/// [`load`] with what is valid and probably not meant.
///
/// # Errors
///
/// Everything that is wrong with the file, in file order.
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
            let mistake = Diagnostic {
                position: Position::START,
                message,
            };
            Err(Diagnostics::new(path.to_owned(), vec![mistake]))
        }
    }
}

/// Checks the text of a configuration file, with the process' environment. `path` is named in the
/// mistakes, and relative paths are relative to its folder.
///
/// # Errors
///
/// Everything that is wrong with it, in file order.
pub fn parse(text: &str, path: &Path) -> Result<Settings, Diagnostics> {
    parse_with(text, path, &|name| std::env::var(name).ok())
}

/// [`parse`] with another environment: `look_up` answers with a variable's value.
///
/// # Errors
///
/// Everything that is wrong with it, in file order.
pub fn parse_with(
    text: &str,
    path: &Path,
    look_up: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, Diagnostics> {
    let read = read(text, path, look_up);
    read.map(|(settings, _)| settings)
        .map_err(|list| Diagnostics::new(path.to_owned(), list))
}

fn read(
    text: &str,
    path: &Path,
    look_up: &dyn Fn(&str) -> Option<String>,
) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (mut root, mut mistakes) = yaml::read(text)?;
    environment::substitute(&mut root, look_up, &mut mistakes);
    let shaped = schema_check::check(root, &schema()).map_err(|mistake| vec![mistake])?;
    mistakes.extend(shaped.errors);
    let file: File = match serde_json::from_value(shaped.value) {
        Ok(file) => file,
        Err(_) if !mistakes.is_empty() => return Err(mistakes),
        Err(error) => {
            let message = format!("the file is not understood: {error}");
            return Err(vec![Diagnostic {
                position: Position::START,
                message,
            }]);
        }
    };
    let mut review = ResolveContext {
        source_map: &shaped.source_map,
        folder: path.parent().unwrap_or(Path::new("")),
        recovered: &shaped.recovered,
        errors: mistakes,
        warnings: Vec::new(),
        watched: Vec::new(),
    };
    let settings = resolve::resolve(&file, &mut review);
    match settings {
        Some(settings) if review.errors.is_empty() => {
            warnings::check(&file, &settings, &mut review);
            Ok((settings, review.warnings))
        }
        _ => Err(review.errors),
    }
}
