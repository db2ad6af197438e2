//! Where a configuration is read from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::diagnostics::{Diagnostic, Diagnostics, Position};
use super::files::{self, MAX_BYTES};

/// Name of standard input in messages.
const STANDARD_INPUT: &str = "<stdin>";

/// A configuration file, or standard input, which can be read only once and is kept for reloads.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    File(PathBuf),
    StandardInput(Arc<Input>),
}

/// What was read from standard input. It may contain secrets.
pub struct Input(Result<Zeroizing<Vec<u8>>, String>);

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Input(…)")
    }
}

impl ConfigSource {
    /// Reads standard input for the argument `-`; any other argument is the path of a file.
    pub fn open(argument: &Path) -> ConfigSource {
        if argument != Path::new("-") {
            return ConfigSource::File(argument.to_owned());
        }
        let input = files::read_bounded(std::io::stdin().lock(), MAX_BYTES);
        ConfigSource::StandardInput(Arc::new(Input(input)))
    }

    /// The name in messages. The folder of relative paths is its parent.
    pub fn path(&self) -> &Path {
        match self {
            ConfigSource::File(path) => path,
            ConfigSource::StandardInput(_) => Path::new(STANDARD_INPUT),
        }
    }

    /// Reads the content.
    pub(super) fn read(&self) -> Result<Zeroizing<Vec<u8>>, Diagnostics> {
        let content = match self {
            ConfigSource::File(path) => files::read(path, MAX_BYTES),
            ConfigSource::StandardInput(input) => input.0.clone(),
        };
        let message = match content {
            Ok(bytes) if std::str::from_utf8(&bytes).is_ok() => return Ok(bytes),
            Ok(_) => "the file is not UTF-8 text".to_owned(),
            Err(error) => format!("cannot read the file: {error}"),
        };
        let position = Position::START;
        let files = vec![self.path().to_owned()];
        Err(Diagnostics::new(
            files,
            vec![Diagnostic { position, message }],
        ))
    }
}
