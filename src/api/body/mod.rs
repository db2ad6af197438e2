//! Request bodies: JSON, parsed strictly. Duplicate members are rejected, because two parsers could
//! pick different ones; unknown members are ignored.

use axum::body::Body;
use http::{HeaderMap, header};
use serde_json::{Map, Value};

use crate::identity::{FieldErrors, normalize};
use crate::json;
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::MAX_BODY;

/// The members of a body, and the problems found in them.
pub(super) struct BodyFields {
    members: Map<String, Value>,
    errors: FieldErrors,
}

impl BodyFields {
    /// Reads a required body.
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<BodyFields, Rejection> {
        if !is_json(headers) {
            return Err(Refusal::UnsupportedMediaType.into());
        }
        BodyFields::parse(&read_bytes(body).await?)
    }

    /// Reads an optional body; null counts as absent.
    pub(super) async fn read_optional(
        headers: &HeaderMap,
        body: Body,
    ) -> Result<BodyFields, Rejection> {
        let bytes = read_bytes(body).await?;
        if bytes.is_empty() {
            return BodyFields::parse(b"{}");
        }
        if !is_json(headers) {
            return Err(Refusal::UnsupportedMediaType.into());
        }
        match bytes.trim_ascii() {
            b"null" => BodyFields::parse(b"{}"),
            _ => BodyFields::parse(&bytes),
        }
    }

    /// Parses the bytes of a body.
    pub(super) fn parse(bytes: &[u8]) -> Result<BodyFields, Rejection> {
        let members = json::parse(bytes)
            .map_err(|fault| Rejection::invalid_field("body", format!("is {fault}")))?;
        Ok(BodyFields {
            members,
            errors: FieldErrors::default(),
        })
    }

    /// Whether the member is present and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether the member is present, even if null.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Returns all members whose name a backend could read as this one.
    pub(super) fn spellings_of(&self, name: &str) -> impl Iterator<Item = (&str, &Value)> {
        let folded = normalize::fold(name);
        let members = self.members.iter();
        members
            .filter(move |(other, _)| match other.is_ascii() {
                true => other.trim().eq_ignore_ascii_case(&folded),
                false => normalize::fold(other) == folded,
            })
            .map(|(other, value)| (other.as_str(), value))
    }

    /// Reads a required string.
    pub(super) fn text(&mut self, name: &str) -> String {
        if !self.has(name) {
            self.add_error(name, "is missing");
            return String::new();
        }
        match self.members.remove(name) {
            Some(Value::String(text)) => self.printable(name, text).unwrap_or_default(),
            _ => {
                self.add_error(name, "must be a string");
                String::new()
            }
        }
    }

    /// Reads an optional string; null counts as absent.
    pub(super) fn optional_text(&mut self, name: &str) -> Option<String> {
        match self.members.remove(name)? {
            Value::Null => None,
            Value::String(text) => self.printable(name, text),
            _ => {
                self.add_error(name, "must be a string or null");
                None
            }
        }
    }

    /// Reads an optional boolean.
    pub(super) fn optional_flag(&mut self, name: &str) -> Option<bool> {
        match self.members.remove(name)? {
            Value::Null => None,
            Value::Bool(flag) => Some(flag),
            _ => {
                self.add_error(name, "must be true or false");
                None
            }
        }
    }

    /// Reads an optional non-negative integer.
    pub(super) fn optional_number(&mut self, name: &str) -> Option<u64> {
        let number = self.members.remove(name)?.as_u64();
        if number.is_none() {
            self.add_error(name, "must be a whole number");
        }
        number
    }

    /// Reads an optional list of strings.
    pub(super) fn optional_texts(&mut self, name: &str) -> Option<Vec<String>> {
        let texts = serde_json::from_value(self.members.remove(name)?).ok();
        if texts.is_none() {
            self.add_error(name, "must be a list of strings");
        }
        texts
    }

    /// Reads an optional object; null counts as absent.
    pub(super) fn optional_object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.members.remove(name)? {
            Value::Null => None,
            Value::Object(members) => Some(members),
            _ => {
                self.add_error(name, "must be an object or null");
                None
            }
        }
    }

    /// Records a problem with a field.
    pub(super) fn add_error(&mut self, name: &str, problem: impl Into<String>) {
        self.errors.add(name, problem);
    }

    /// Rejects the body if any problem was recorded.
    pub(super) fn check(self) -> Result<(), Rejection> {
        self.errors
            .into_result(())
            .map_err(Rejection::invalid_fields)
    }

    /// Like [`BodyFields::check`], adding the field errors of domain validation.
    pub(super) fn check_with<T>(
        mut self,
        judged: Result<T, Vec<(String, String)>>,
    ) -> Result<T, Rejection> {
        match judged {
            Ok(made) => self
                .errors
                .into_result(made)
                .map_err(Rejection::invalid_fields),
            Err(more) => {
                self.errors.extend(more);
                Err(Rejection::invalid_fields(
                    self.errors.into_result(()).err().unwrap_or_default(),
                ))
            }
        }
    }

    fn printable(&mut self, name: &str, text: String) -> Option<String> {
        if text.chars().any(char::is_control) {
            self.add_error(name, "must not hold control characters");
            return None;
        }
        Some(text)
    }
}

/// Whether the body is JSON in UTF-8 without content coding.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    has_media_type(headers, "application/json")
}

/// Whether the body is a URL-encoded form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    has_media_type(headers, "application/x-www-form-urlencoded")
}

/// Whether the body has this media type, is UTF-8 and has no content coding.
pub(super) fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else {
        return false;
    };
    let mut parts = value.to_str().unwrap_or_default().split(';');
    let essence = parts.next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(media_type)
        && parts.all(is_utf8)
        && !has_content_coding(headers)
}

/// Whether a media type parameter is compatible with UTF-8.
fn is_utf8(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let value = value.trim().trim_matches('"');
    !name.trim().eq_ignore_ascii_case("charset")
        || ["utf-8", "utf8", "us-ascii"]
            .iter()
            .any(|charset| value.eq_ignore_ascii_case(charset))
}

/// Whether the body has a content coding other than `identity` (RFC 9110, section 8.4).
pub(super) fn has_content_coding(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// Reads a body up to its size limit.
pub(super) async fn read_bytes(body: Body) -> Result<bytes::Bytes, Rejection> {
    axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Refusal::BodyTooLarge.into())
}

#[cfg(test)]
mod tests;
