//! One reading of one file: the mistakes found so far, the places to put them, the files read.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::document::{Place, Places};
use super::mistakes::{Mistake, did_you_mean};
use super::units::{Secret, Time};

/// Bytes of a file that the configuration refers to.
const MAX_FILE: u64 = 4 << 20;

/// What the meaning checks share.
pub(super) struct Review<'a> {
    pub(super) places: &'a Places,
    /// Relative paths are relative to the configuration file.
    pub(super) folder: &'a Path,
    /// Guesses, which are not complained about again.
    pub(super) guessed: &'a [Place],
    pub(super) mistakes: Vec<Mistake>,
    /// What is valid and probably not meant.
    pub(super) warnings: Vec<Mistake>,
    pub(super) watched: Vec<PathBuf>,
}

impl Review<'_> {
    /// Reports a mistake in the value at `place`.
    pub(super) fn fault(&mut self, place: &Place, message: impl Into<String>) {
        self.report(place, self.places.value(place), message.into());
    }

    /// Warns of the value at `place`.
    pub(super) fn warn(&mut self, place: &Place, message: impl Into<String>) {
        let at = self.places.value(place);
        let message = message.into();
        self.warnings.push(Mistake { at, message });
    }

    /// Reports that the key at `place` should not be there.
    pub(super) fn fault_at_key(&mut self, place: &Place, message: impl Into<String>) {
        self.report(place, self.places.key(place), message.into());
    }

    fn report(&mut self, place: &Place, at: super::mistakes::Position, message: String) {
        if !self.guessed.iter().any(|guess| place.is_within(guess)) {
            self.mistakes.push(Mistake { at, message });
        }
    }

    /// Reports a name that nothing has, with the nearest one that something has.
    pub(super) fn dangling<'n>(
        &mut self,
        place: &Place,
        kind: &str,
        name: &str,
        names: impl Iterator<Item = &'n str>,
    ) {
        let hint = did_you_mean(name, names);
        let name = self.shown(place, name);
        self.fault(place, format!("there is no {kind} {name}{hint}"));
    }

    /// The text in quotes, unless it came from the environment and may be a secret.
    pub(super) fn shown(&self, place: &Place, text: &str) -> String {
        if self.places.is_from_environment(place) {
            "of that name".to_owned()
        } else {
            format!("\"{text}\"")
        }
    }

    /// A file's name, unless it came from the environment and may be a secret put in the wrong
    /// place.
    pub(super) fn named(&self, place: &Place, path: &str) -> String {
        if self.places.is_from_environment(place) {
            "the file".to_owned()
        } else {
            path.to_owned()
        }
    }

    /// A duration that may not be zero.
    pub(super) fn positive(&mut self, place: &Place, time: Time) -> std::time::Duration {
        if time.0.is_zero() {
            let name = place.last().unwrap_or_default();
            self.fault(place, format!("\"{name}\" must be longer than 0"));
        }
        time.0
    }

    /// A text that may not be empty.
    pub(super) fn filled(&mut self, place: &Place, text: &str) -> String {
        if text.is_empty() {
            let name = place.last().unwrap_or_default();
            self.fault(place, format!("\"{name}\" must not be empty"));
        }
        text.to_owned()
    }

    /// Where a file is that the configuration names.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Reads a file that the configuration names, and has it watched.
    pub(super) fn file(&mut self, place: &Place, path: &str) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.path(path);
        let read = read_bounded(&path);
        let shown = self.named(place, &path.display().to_string());
        if !self.watched.contains(&path) {
            self.watched.push(path);
        }
        match read {
            Ok(bytes) if bytes.is_empty() => {
                self.fault(place, format!("{shown} is empty"));
                None
            }
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.fault(place, format!("cannot read {shown}: {error}"));
                None
            }
        }
    }

    /// Reads a secret from the file itself or from the file that `<name>_file` names. One line end
    /// is taken off the latter. An empty secret is a mistake, and so are two.
    pub(super) fn secret(
        &mut self,
        section: &Place,
        name: &str,
        inline: Option<&Secret>,
        file: Option<&str>,
    ) -> Option<SecretString> {
        let place = section.key(name);
        let file_place = section.key(&format!("{name}_file"));
        match (inline, file) {
            (Some(_), Some(_)) => {
                let message = format!("give \"{name}\" or \"{name}_file\", not both");
                self.fault_at_key(&file_place, message);
                None
            }
            (Some(secret), None) => {
                if secret.0.is_empty() {
                    self.fault(&place, format!("\"{name}\" is empty"));
                    return None;
                }
                Some(secret.0.clone().into())
            }
            (None, Some(path)) => {
                let bytes = self.file(&file_place, path)?;
                let path = self.named(&file_place, path);
                let text = std::str::from_utf8(&bytes).map(|text| {
                    let line = text.strip_suffix('\n').unwrap_or(text);
                    line.strip_suffix('\r').unwrap_or(line)
                });
                match text {
                    Ok("") => self.fault(&file_place, format!("{path} is empty")),
                    Ok(text) => return Some(text.to_owned().into()),
                    Err(_) => self.fault(&file_place, format!("{path} is not UTF-8 text")),
                }
                None
            }
            (None, None) => None,
        }
    }
}

fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| plain(&error))?;
    let about = file.metadata().map_err(|error| plain(&error))?;
    if about.is_dir() {
        return Err("it is a directory".to_owned());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| plain(&error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("it is larger than 4 MiB".to_owned());
    }
    Ok(bytes)
}

/// The reason without the operating system's error number.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
