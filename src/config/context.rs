//! Context of resolving one file: errors and warnings, source positions, files read.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::diagnostics::{Diagnostic, did_you_mean};
use super::document::{ConfigPath, SourceMap};
use super::units::{Secret, Time};

/// Maximum size of a referenced file, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// State that all checks of a file share.
pub(super) struct ResolveContext<'a> {
    pub(super) source_map: &'a SourceMap,
    /// Directory of the configuration file, for relative paths.
    pub(super) folder: &'a Path,
    /// Locations whose values are guesses; errors there are not reported.
    pub(super) recovered: &'a [ConfigPath],
    pub(super) errors: Vec<Diagnostic>,
    /// Settings that are valid but suspicious.
    pub(super) warnings: Vec<Diagnostic>,
    pub(super) watched: Vec<PathBuf>,
}

impl ResolveContext<'_> {
    /// Reports an error in the value at `location`.
    pub(super) fn error(&mut self, location: &ConfigPath, message: impl Into<String>) {
        self.report(
            location,
            self.source_map.value_position(location),
            message.into(),
        );
    }

    /// Reports a warning about the value at `location`.
    pub(super) fn warn(&mut self, location: &ConfigPath, message: impl Into<String>) {
        let position = self.source_map.value_position(location);
        let message = message.into();
        self.warnings.push(Diagnostic { position, message });
    }

    /// Reports an error at the key of `location`.
    pub(super) fn error_at_key(&mut self, location: &ConfigPath, message: impl Into<String>) {
        self.report(
            location,
            self.source_map.key_position(location),
            message.into(),
        );
    }

    fn report(
        &mut self,
        location: &ConfigPath,
        position: super::diagnostics::Position,
        message: String,
    ) {
        if !self.recovered.iter().any(|guess| location.is_within(guess)) {
            self.errors.push(Diagnostic { position, message });
        }
    }

    /// Reports a reference to an undefined name, with the most similar defined one.
    pub(super) fn unknown_reference<'n>(
        &mut self,
        location: &ConfigPath,
        kind: &str,
        name: &str,
        names: impl Iterator<Item = &'n str>,
    ) {
        let hint = did_you_mean(name, names);
        let name = self.quoted(location, name);
        self.error(location, format!("there is no {kind} {name}{hint}"));
    }

    /// Quotes a text, unless it came from the environment and may be a secret.
    pub(super) fn quoted(&self, location: &ConfigPath, text: &str) -> String {
        if self.source_map.is_from_environment(location) {
            "of that name".to_owned()
        } else {
            format!("\"{text}\"")
        }
    }

    /// Returns a path for messages, unless it came from the environment and may be a misplaced
    /// secret.
    pub(super) fn display_path(&self, location: &ConfigPath, path: &str) -> String {
        if self.source_map.is_from_environment(location) {
            "the file".to_owned()
        } else {
            path.to_owned()
        }
    }

    /// Returns a duration that must not be zero.
    pub(super) fn require_positive(
        &mut self,
        location: &ConfigPath,
        time: Time,
    ) -> std::time::Duration {
        if time.0.is_zero() {
            let name = location.last().unwrap_or_default();
            self.error(location, format!("\"{name}\" must be greater than 0"));
        }
        time.0
    }

    /// Returns a text that must not be empty.
    pub(super) fn require_non_empty(&mut self, location: &ConfigPath, text: &str) -> String {
        if text.is_empty() {
            let name = location.last().unwrap_or_default();
            self.error(location, format!("\"{name}\" must not be empty"));
        }
        text.to_owned()
    }

    /// Resolves the path of a referenced file.
    pub(super) fn resolve_path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Reads a referenced file and adds it to the watched files.
    pub(super) fn read_file(
        &mut self,
        location: &ConfigPath,
        path: &str,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.resolve_path(path);
        let result = read_bounded(&path);
        let displayed = self.display_path(location, &path.display().to_string());
        if !self.watched.contains(&path) {
            self.watched.push(path);
        }
        match result {
            Ok(bytes) if bytes.is_empty() => {
                self.error(location, format!("{displayed} is empty"));
                None
            }
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.error(location, format!("cannot read {displayed}: {error}"));
                None
            }
        }
    }

    /// Reads a secret from the value `name` or from the file in `<name>_file`, without one final
    /// line break. An empty secret is an error, as are both keys together.
    pub(super) fn read_secret(
        &mut self,
        section: &ConfigPath,
        name: &str,
        inline: Option<&Secret>,
        file: Option<&str>,
    ) -> Option<SecretString> {
        let location = section.key(name);
        let file_location = section.key(&format!("{name}_file"));
        match (inline, file) {
            (Some(_), Some(_)) => {
                let message = format!("give \"{name}\" or \"{name}_file\", not both");
                self.error_at_key(&file_location, message);
                None
            }
            (Some(secret), None) => {
                if secret.0.is_empty() {
                    self.error(&location, format!("\"{name}\" is empty"));
                    return None;
                }
                Some(secret.0.clone().into())
            }
            (None, Some(path)) => {
                let bytes = self.read_file(&file_location, path)?;
                let path = self.display_path(&file_location, path);
                let text = std::str::from_utf8(&bytes).map(|text| {
                    let line = text.strip_suffix('\n').unwrap_or(text);
                    line.strip_suffix('\r').unwrap_or(line)
                });
                match text {
                    Ok("") => self.error(&file_location, format!("{path} is empty")),
                    Ok(text) => return Some(text.to_owned().into()),
                    Err(_) => self.error(&file_location, format!("{path} is not UTF-8 text")),
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
    let metadata = file.metadata().map_err(|error| describe_io_error(&error))?;
    if metadata.is_dir() {
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

/// Describes an I/O error without the error number of the operating system.
fn describe_io_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
