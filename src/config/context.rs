//! Context of resolving a configuration: errors and warnings, source positions, files read.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::diagnostics::{Diagnostic, Position, did_you_mean};
use super::document::{ConfigPath, SourceMap};
use super::files::{self, FilesRead};
use super::secrets::{self, Purpose};
use super::units::{Secret, Time};

/// Maximum size of a referenced file, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// State that all checks of a file share.
pub(super) struct ResolveContext<'a> {
    pub(super) source_map: &'a SourceMap,
    /// The configuration file and the files that it includes; positions refer to them.
    pub(super) files: &'a [PathBuf],
    pub(super) purpose: Purpose,
    /// Locations whose values are guesses; errors there are not reported.
    pub(super) recovered: &'a [ConfigPath],
    pub(super) errors: Vec<Diagnostic>,
    /// Settings that are valid but suspicious.
    pub(super) warnings: Vec<Diagnostic>,
    /// The files that were read, those of the configuration and those that it refers to.
    pub(super) read: FilesRead,
    /// The values that are paths of files, with the paths resolved.
    pub(super) resolved_paths: Vec<(ConfigPath, PathBuf)>,
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

    fn report(&mut self, location: &ConfigPath, position: Position, mut message: String) {
        if !self.recovered.iter().any(|guess| location.is_within(guess)) {
            message += &self.source_map.environment_note(location);
            self.errors.push(Diagnostic { position, message });
        }
    }

    /// Names the position of the value at `first` in a message about that at `location`.
    pub(super) fn first_position(&self, first: &ConfigPath, location: &ConfigPath) -> String {
        let seen_from = self.source_map.value_position(location);
        let first = self.source_map.value_position(first);
        first.as_seen_from(seen_from, self.files)
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

    /// Resolves the path of a referenced file, which is relative to the file that contains it.
    pub(super) fn resolve_path(&self, location: &ConfigPath, path: &str) -> PathBuf {
        let file = self.source_map.value_position(location).file;
        let folder = self.files.get(file).and_then(|file| file.parent());
        folder.unwrap_or(Path::new("")).join(path)
    }

    /// Reads a referenced file and adds it to the watched files.
    pub(super) fn read_file(
        &mut self,
        location: &ConfigPath,
        path: &str,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.resolve_path(location, path);
        let result = files::read(&path, MAX_FILE);
        let content = result.as_ref().ok();
        self.read
            .record(&path, content.map(|content| content.as_slice()));
        let displayed = self.display_path(location, &path.display().to_string());
        self.resolved_paths.push((location.clone(), path));
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

    /// Whether a private key and its certificate are read. If not, only their paths are resolved.
    pub(super) fn reads_key_pair(&mut self, location: &ConfigPath, cert: &str, key: &str) -> bool {
        let is_read = self.purpose.reads_file(&location.key("key"));
        for (name, path) in [("cert", cert), ("key", key)] {
            if !is_read {
                let location = location.key(name);
                let path = self.resolve_path(&location, path);
                self.resolved_paths.push((location, path));
            }
        }
        is_read
    }

    /// Whether a secret is neither available nor needed. `location` is the value, or the path of the
    /// file that contains it.
    pub(super) fn lacks_secret(&self, location: &ConfigPath, is_file: bool) -> bool {
        if is_file {
            !self.purpose.reads_file(location)
        } else {
            self.source_map.is_unresolved(location)
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
            (Some(_), None) if self.lacks_secret(&location, false) => Some(secrets::stand_in()),
            (None, Some(path)) if self.lacks_secret(&file_location, true) => {
                let path = self.resolve_path(&file_location, path);
                self.resolved_paths.push((file_location, path));
                Some(secrets::stand_in())
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
