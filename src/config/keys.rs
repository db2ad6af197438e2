//! Keys from the text of the configuration or of a file.

use std::error::Error;

use crate::auth::token::{Algorithm, Key, KeyError};

/// Parses a secret or a PEM key, depending on the algorithm.
pub(super) fn parse_key(
    id: Option<String>,
    algorithm: Algorithm,
    material: &str,
) -> Result<Key, KeyError> {
    match algorithm {
        Algorithm::HS256 => Key::hmac(id, material.as_bytes()),
        _ => Key::from_pem(id, algorithm, material.as_bytes()),
    }
}

/// Describes an error with its cause in one line. Neither contains any of the key.
pub(super) fn describe_error(error: &KeyError) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
