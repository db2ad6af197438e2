//! Request bodies: JSON, read strictly. A member given twice is refused, since two readers could
//! take different ones; unknown members are ignored, and never assigned to anything.

use axum::body::Body;
use http::{HeaderMap, header};
use serde_json::{Map, Value};

use crate::identity::{FieldErrors, normalize};
use crate::json;
use crate::rejection::{Refusal, Rejection};
use crate::routing::endpoints::MAX_BODY;

/// The members of a body, and what was found wrong with them so far.
pub(super) struct BodyFields {
    members: Map<String, Value>,
    errors: FieldErrors,
}

impl BodyFields {
    /// Reads a body that has to be there.
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<BodyFields, Rejection> {
        if !is_json(headers) {
            return Err(Refusal::UnsupportedMediaType.into());
        }
        BodyFields::parse(&read_bytes(body).await?)
    }

    /// Reads a body that may be left out, or null.
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

    /// Reads the bytes of a body.
    pub(super) fn parse(bytes: &[u8]) -> Result<BodyFields, Rejection> {
        let members = json::parse(bytes)
            .map_err(|fault| Rejection::invalid_field("body", format!("is {fault}")))?;
        Ok(BodyFields {
            members,
            errors: FieldErrors::default(),
        })
    }

    /// Whether the member is there, and is not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether the member was given, be it null.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// All members of a name, in every spelling that a backend could read as this one.
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

    /// A string that has to be there.
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

    /// A string that may be left out or null.
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

    /// A boolean that may be left out.
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

    /// A whole number that may be left out.
    pub(super) fn optional_number(&mut self, name: &str) -> Option<u64> {
        let number = self.members.remove(name)?.as_u64();
        if number.is_none() {
            self.add_error(name, "must be a whole number");
        }
        number
    }

    /// A list of strings that may be left out.
    pub(super) fn optional_texts(&mut self, name: &str) -> Option<Vec<String>> {
        let texts = serde_json::from_value(self.members.remove(name)?).ok();
        if texts.is_none() {
            self.add_error(name, "must be a list of strings");
        }
        texts
    }

    /// An object that may be left out or null.
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

    /// Notes a problem.
    pub(super) fn add_error(&mut self, name: &str, problem: impl Into<String>) {
        self.errors.add(name, problem);
    }

    /// Refuses the body if anything was wrong with it.
    pub(super) fn check(self) -> Result<(), Rejection> {
        self.errors
            .into_result(())
            .map_err(Rejection::invalid_fields)
    }

    /// The same, with what was found wrong with the fields' meaning.
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

/// Whether a body is JSON in UTF-8, as it came.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    has_media_type(headers, "application/json")
}

/// Whether a body has this media type, is in UTF-8, and has no coding that would have to be undone.
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

/// Whether a parameter of a media type is no `charset`, or one that UTF-8 covers.
fn is_utf8(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let value = value.trim().trim_matches('"');
    !name.trim().eq_ignore_ascii_case("charset")
        || ["utf-8", "utf8", "us-ascii"]
            .iter()
            .any(|charset| value.eq_ignore_ascii_case(charset))
}

/// Whether a body has a content coding (RFC 9110, section 8.4); `identity` is none.
pub(super) fn has_content_coding(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// Reads a body, within its bound.
pub(super) async fn read_bytes(body: Body) -> Result<bytes::Bytes, Rejection> {
    axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Refusal::BodyTooLarge.into())
}

#[cfg(test)]
mod tests;
