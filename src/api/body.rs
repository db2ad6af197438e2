//! Request bodies: JSON, read strictly. A member given twice is refused, since two readers could
//! take different ones; unknown members are ignored, and never assigned to anything.

use axum::body::Body;
use http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::response::ApiRejection;
use crate::identity::{FieldErrors, normalize};
use crate::json;
use crate::rejection::Refusal;
use crate::routing::endpoints::MAX_BODY;

/// The members of a body, and what was found wrong with them so far.
pub(super) struct BodyFields {
    members: Map<String, Value>,
    errors: FieldErrors,
}

impl BodyFields {
    /// Reads a body that has to be there.
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<BodyFields, ApiRejection> {
        if !is_json(headers) {
            return Err(Refusal::UnsupportedMediaType.into());
        }
        BodyFields::parse(&read_bytes(body).await?)
    }

    /// Reads a body that may be left out, or null.
    pub(super) async fn read_optional(
        headers: &HeaderMap,
        body: Body,
    ) -> Result<BodyFields, ApiRejection> {
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
    pub(super) fn parse(bytes: &[u8]) -> Result<BodyFields, ApiRejection> {
        let members = json::parse(bytes)
            .map_err(|fault| ApiRejection::invalid_field("body", format!("is {fault}")))?;
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
    pub(super) fn check(self) -> Result<(), ApiRejection> {
        self.errors
            .into_result(())
            .map_err(ApiRejection::invalid_fields)
    }

    /// The same, with what was found wrong with the fields' meaning.
    pub(super) fn check_with<T>(
        mut self,
        judged: Result<T, Vec<(String, String)>>,
    ) -> Result<T, ApiRejection> {
        match judged {
            Ok(made) => self
                .errors
                .into_result(made)
                .map_err(ApiRejection::invalid_fields),
            Err(more) => {
                self.errors.extend(more);
                Err(ApiRejection::invalid_fields(
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
pub(super) async fn read_bytes(body: Body) -> Result<bytes::Bytes, ApiRejection> {
    axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Refusal::BodyTooLarge.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn ambiguous_json_is_rejected() {
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000));
        let bad: [&[u8]; 15] = [
            b"",
            b" ",
            b"null",
            b"[]",
            b"\"text\"",
            b"{",
            br#"{"a":1,"a":1}"#,
            br#"{"a":{"b":1,"b":2}}"#,
            br#"{"a":[{"b":1,"\u0062":2}]}"#,
            br#"{"a":1e999}"#,
            br#"{"a":"\ud800"}"#,
            b"{\"a\":\"\xff\"}",
            br#"{"a":1} x"#,
            br#"{"a":NaN}"#,
            deep.as_bytes(),
        ];
        for bad in bad {
            let refused = BodyFields::parse(bad).err().unwrap();
            assert_eq!(refused.refusal, Refusal::ValidationFailed);
            assert_eq!(refused.fields.first().unwrap().0, "body");
        }
        assert!(BodyFields::parse(br#"{"a":{"b":[1,-2,3.5,null,true,"x"]}}"#).is_ok());
    }

    #[test]
    fn syntax_error_never_quotes_the_body() {
        let refused = BodyFields::parse(br#"{"password": "hunter2" hunter3}"#)
            .err()
            .unwrap();
        assert!(!format!("{:?}", refused.fields).contains("hunter"));
    }

    #[test]
    fn every_member_of_wrong_type_is_reported() {
        let mut fields =
            BodyFields::parse(br#"{"a":1,"b":"x\u0000","c":"yes","d":[1],"e":-1,"f":null}"#)
                .unwrap();
        fields.text("a");
        fields.text("b");
        fields.text("missing");
        fields.optional_flag("c");
        fields.optional_texts("d");
        fields.optional_number("e");
        assert_eq!(fields.optional_text("f"), None);
        let problems = fields.check().err().unwrap().fields;
        let names: Vec<&str> = problems.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "missing", "c", "d", "e"]);
    }

    #[test]
    fn content_type_must_be_json() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            is_json(&headers)
        };
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=utf-8"));
        for other in [
            "text/plain",
            "application/jsonx",
            "text/plain;application/json",
            "",
        ] {
            assert!(!check(other), "{other}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn only_uncompressed_utf8_is_accepted() {
        let check = |charset: &str, encoding: &[&str]| {
            let mut headers = HeaderMap::new();
            let content_type = format!("application/json{charset}");
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            for coding in encoding {
                headers.append(header::CONTENT_ENCODING, coding.parse().unwrap());
            }
            is_json(&headers)
        };
        for charset in [
            "",
            ";charset=utf-8",
            "; Charset=\"UTF-8\"",
            "; charset=us-ascii",
            "; profile=x",
        ] {
            assert!(check(charset, &[]), "{charset}");
        }
        for charset in [
            "; charset=iso-8859-1",
            "; charset=utf-16",
            "; charset=",
            "; charset=utf-8; charset=utf-7",
        ] {
            assert!(!check(charset, &[]), "{charset}");
        }
        assert!(check("", &["identity"]));
        assert!(check("", &[""]));
        for coding in [
            &["gzip"][..],
            &["br"],
            &["identity, gzip"],
            &["identity", "deflate"],
        ] {
            assert!(!check("", coding), "{coding:?}");
        }
    }
}
