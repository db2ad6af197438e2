//! Keys from the text of the configuration or of a file.

use std::error::Error;

use secrecy::ExposeSecret;

use super::context::ResolveContext;
use super::document::ConfigPath;
use super::secrets;
use super::units::Secret;
use crate::auth::token::{Algorithm, Key, KeyError};

/// A key as written, in a value or as the path of a file.
#[derive(Clone, Copy)]
pub(super) struct WrittenKey<'a> {
    /// Name of the value.
    pub(super) name: &'static str,
    pub(super) inline: Option<&'a Secret>,
    pub(super) file: Option<&'a str>,
}

/// Reads a secret or a PEM key, depending on the algorithm. Returns its location, too. A key that is
/// neither available nor needed is replaced by a random one.
pub(super) fn read_key(
    written: WrittenKey<'_>,
    id: Option<String>,
    algorithm: Algorithm,
    section: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<(Key, ConfigPath)> {
    let WrittenKey { name, inline, file } = written;
    let location = match file {
        Some(_) => section.key(&format!("{name}_file")),
        None => section.key(name),
    };
    let is_missing = context.lacks_secret(&location, file.is_some());
    let material = context.read_secret(section, name, inline, file)?;
    let material = material.expose_secret().as_bytes();
    let parsed = match algorithm {
        Algorithm::HS256 => Key::hmac(id, material),
        _ if is_missing => Key::hmac(id, secrets::stand_in().expose_secret().as_bytes()),
        _ => Key::from_pem(id, algorithm, material),
    };
    match parsed {
        Ok(key) => Some((key, location)),
        Err(error) => {
            context.error(&location, describe_error(&error));
            None
        }
    }
}

/// Describes an error with its cause in one line. Neither contains any of the key.
pub(super) fn describe_error(error: &KeyError) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
