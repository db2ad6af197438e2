//! One reading of one file: the mistakes found so far, the places to put them, the files read.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::diagnostics::{Diagnostic, did_you_mean};
use super::document::{ConfigPath, SourceMap};
use super::units::{Secret, Time};

/// Bytes of a file that the configuration refers to.
const MAX_FILE: u64 = 4 << 20;

/// What the meaning checks share.
pub(super) struct ResolveContext<'a> {
    pub(super) source_map: &'a SourceMap,
    /// Relative paths are relative to the configuration file.
    pub(super) folder: &'a Path,
    /// Guesses, which are not complained about again.
    pub(super) recovered: &'a [ConfigPath],
    pub(super) errors: Vec<Diagnostic>,
    /// What is valid and probably not meant.
    pub(super) warnings: Vec<Diagnostic>,
    pub(super) watched: Vec<PathBuf>,
}

impl ResolveContext<'_> {
    /// Reports a mistake in the value at `place`.
    pub(super) fn error(&mut self, place: &ConfigPath, message: impl Into<String>) {
        self.report(place, self.source_map.value_position(place), message.into());
    }

    /// Warns of the value at `place`.
    pub(super) fn warn(&mut self, place: &ConfigPath, message: impl Into<String>) {
        let at = self.source_map.value_position(place);
        let message = message.into();
        self.warnings.push(Diagnostic {
            position: at,
            message,
        });
    }

    /// Reports that the key at `place` should not be there.
    pub(super) fn error_at_key(&mut self, place: &ConfigPath, message: impl Into<String>) {
        self.report(place, self.source_map.key_position(place), message.into());
    }

    fn report(&mut self, place: &ConfigPath, at: super::diagnostics::Position, message: String) {
        if !self.recovered.iter().any(|guess| place.is_within(guess)) {
            self.errors.push(Diagnostic {
                position: at,
                message,
            });
        }
    }

    /// Reports a name that nothing has, with the nearest one that something has.
    pub(super) fn unknown_reference<'n>(
        &mut self,
        place: &ConfigPath,
        kind: &str,
        name: &str,
        names: impl Iterator<Item = &'n str>,
    ) {
        let hint = did_you_mean(name, names);
        let name = self.quoted(place, name);
        self.error(place, format!("there is no {kind} {name}{hint}"));
    }

    /// The text in quotes, unless it came from the environment and may be a secret.
    pub(super) fn quoted(&self, place: &ConfigPath, text: &str) -> String {
        if self.source_map.is_from_environment(place) {
            "of that name".to_owned()
        } else {
            format!("\"{text}\"")
        }
    }

    /// A file's name, unless it came from the environment and may be a secret put in the wrong
    /// place.
    pub(super) fn display_path(&self, place: &ConfigPath, path: &str) -> String {
        if self.source_map.is_from_environment(place) {
            "the file".to_owned()
        } else {
            path.to_owned()
        }
    }

    /// A duration that may not be zero.
    pub(super) fn require_positive(
        &mut self,
        place: &ConfigPath,
        time: Time,
    ) -> std::time::Duration {
        if time.0.is_zero() {
            let name = place.last().unwrap_or_default();
            self.error(place, format!("\"{name}\" must be longer than 0"));
        }
        time.0
    }

    /// A text that may not be empty.
    pub(super) fn require_non_empty(&mut self, place: &ConfigPath, text: &str) -> String {
        if text.is_empty() {
            let name = place.last().unwrap_or_default();
            self.error(place, format!("\"{name}\" must not be empty"));
        }
        text.to_owned()
    }

    /// Where a file is that the configuration names.
    pub(super) fn resolve_path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Reads a file that the configuration names, and has it watched.
    pub(super) fn read_file(
        &mut self,
        place: &ConfigPath,
        path: &str,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.resolve_path(path);
        let read = read_bounded(&path);
        let shown = self.display_path(place, &path.display().to_string());
        if !self.watched.contains(&path) {
            self.watched.push(path);
        }
        match read {
            Ok(bytes) if bytes.is_empty() => {
                self.error(place, format!("{shown} is empty"));
                None
            }
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.error(place, format!("cannot read {shown}: {error}"));
                None
            }
        }
    }

    /// Reads a secret from the file itself or from the file that `<name>_file` names. One line end
    /// is taken off the latter. An empty secret is a mistake, and so are two.
    pub(super) fn read_secret(
        &mut self,
        section: &ConfigPath,
        name: &str,
        inline: Option<&Secret>,
        file: Option<&str>,
    ) -> Option<SecretString> {
        let place = section.key(name);
        let file_place = section.key(&format!("{name}_file"));
        match (inline, file) {
            (Some(_), Some(_)) => {
                let message = format!("give \"{name}\" or \"{name}_file\", not both");
                self.error_at_key(&file_place, message);
                None
            }
            (Some(secret), None) => {
                if secret.0.is_empty() {
                    self.error(&place, format!("\"{name}\" is empty"));
                    return None;
                }
                Some(secret.0.clone().into())
            }
            (None, Some(path)) => {
                let bytes = self.read_file(&file_place, path)?;
                let path = self.display_path(&file_place, path);
                let text = std::str::from_utf8(&bytes).map(|text| {
                    let line = text.strip_suffix('\n').unwrap_or(text);
                    line.strip_suffix('\r').unwrap_or(line)
                });
                match text {
                    Ok("") => self.error(&file_place, format!("{path} is empty")),
                    Ok(text) => return Some(text.to_owned().into()),
                    Err(_) => self.error(&file_place, format!("{path} is not UTF-8 text")),
                }
                None
            }
            (None, None) => None,
        }
    }
}

fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| describe_io_error(&error))?;
    let about = file.metadata().map_err(|error| describe_io_error(&error))?;
    if about.is_dir() {
        return Err("it is a directory".to_owned());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| describe_io_error(&error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("it is larger than 4 MiB".to_owned());
    }
    Ok(bytes)
}

/// The reason without the operating system's error number.
fn describe_io_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
