//! Form submissions.

use axum::body::Body;
use http::HeaderMap;
use url::form_urlencoded;

use super::super::body;
use crate::rejection::{Refusal, Rejection};

/// The fields of both forms. An absent field is empty.
#[derive(Default)]
pub(super) struct FormFields {
    pub(super) login: String,
    pub(super) password: String,
    pub(super) return_to: String,
    pub(super) token: String,
}

impl FormFields {
    /// Reads a form body.
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<FormFields, Rejection> {
        if !body::is_form(headers) {
            return Err(Refusal::UnsupportedMediaType.into());
        }
        FormFields::parse(&body::read_bytes(body).await?)
    }

    fn parse(bytes: &[u8]) -> Result<FormFields, Rejection> {
        let mut sent = FormFields::default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(bytes) {
            let field = match &*name {
                "login" => &mut sent.login,
                "password" => &mut sent.password,
                "return_to" => &mut sent.return_to,
                "token" => &mut sent.token,
                _ => continue,
            };
            if seen.contains(&name) {
                return Err(Rejection::invalid_field("form", "has a field twice"));
            }
            if value.chars().any(char::is_control) {
                return Err(Rejection::invalid_field(
                    &name,
                    "must not hold control characters",
                ));
            }
            *field = value.into_owned();
            seen.push(name);
        }
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn form_is_parsed_strictly() {
        let sent = FormFields::parse(b"login=ann%40example.com&password=a+b%26%C3%A4&x=y").unwrap();
        assert_eq!(sent.login, "ann@example.com");
        assert_eq!(sent.password, "a b&\u{e4}");
        assert_eq!(sent.return_to, "");
        for bad in ["login=a&login=b", "password=a%00b", "return_to=%2F%0Aa"] {
            assert!(FormFields::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
