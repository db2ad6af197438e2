//! Who a backend's answer says somebody is.

use http::HeaderMap;
use serde_json::Value;

use crate::auth::token::{is_user_id, parse_string_list};
use crate::database::User;
use crate::identity::normalize;
use crate::json;
use crate::settings::backend::{BackendSettings, ResponseField};

/// Bytes of an email address.
const EMAIL_MAX: usize = 254;

/// Somebody, as their backend knows them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BackendUser {
    pub(super) id: String,
    /// Empty: the backend did not say.
    pub(super) email: String,
    pub(super) name: Option<String>,
    pub(super) roles: Vec<String>,
    pub(super) scopes: Vec<String>,
}

impl BackendUser {
    /// Reads an answer. What is not there but for the id is left out; what is there and makes no
    /// sense spoils the answer, for a role that is misread is a right that is.
    pub(super) fn parse(
        backend: &BackendSettings,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<BackendUser, &'static str> {
        let sources = [
            Some(&backend.user_id),
            backend.email.as_ref(),
            backend.name.as_ref(),
            backend.roles.as_ref(),
            backend.scopes.as_ref(),
        ];
        let reads_body = |source: &&ResponseField| matches!(source, ResponseField::Pointer(_));
        let body = if sources.iter().flatten().any(reads_body) {
            json::parse_value(body).map_err(|fault| fault.reason)?
        } else {
            Value::Null
        };
        let find = |source: Option<&ResponseField>| {
            source.map_or(Ok(None), |at| read_source(at, headers, &body))
        };
        let separators: &[char] = &[','];
        let roles = parse_string_list(find(backend.roles.as_ref())?.as_ref(), separators)?;
        let scopes = parse_string_list(find(backend.scopes.as_ref())?.as_ref(), &[])?;
        Ok(BackendUser {
            id: parse_id(find(Some(&backend.user_id))?)?,
            email: parse_email(find(backend.email.as_ref())?)?,
            name: parse_name(find(backend.name.as_ref())?)?,
            roles: normalize::roles(&roles).map_err(|_| "its roles are not names of roles")?,
            scopes: normalize::scopes(&scopes).map_err(|_| "its scopes are not names of scopes")?,
        })
    }

    /// The user that a session is opened for.
    pub(super) fn into_user(self) -> User {
        User {
            id: self.id,
            email: self.email,
            username: None,
            name: self.name,
            password_hash: String::new(),
            roles: self.roles,
            scopes: self.scopes,
            disabled: false,
            created_at: 0,
            updated_at: 0,
        }
    }
}

/// `None`: not there, or null.
fn read_source(
    source: &ResponseField,
    headers: &HeaderMap,
    body: &Value,
) -> Result<Option<Value>, &'static str> {
    match source {
        ResponseField::Pointer(pointer) => {
            let found = body.pointer(pointer).filter(|value| !value.is_null());
            Ok(found.cloned())
        }
        ResponseField::Header(name) => {
            let mut values = headers.get_all(name).iter();
            let (Some(value), None) = (values.next(), values.next()) else {
                return match headers.contains_key(name) {
                    true => Err("a header that was to be read is there more than once"),
                    false => Ok(None),
                };
            };
            let text = std::str::from_utf8(value.as_bytes()).map_err(|_| "a header is not text")?;
            Ok(Some(text.into()))
        }
    }
}

/// A number is as good as its digits, unless some of them could have been lost.
fn parse_id(found: Option<Value>) -> Result<String, &'static str> {
    let id = match found {
        Some(Value::String(id)) => id,
        Some(Value::Number(id)) if id.is_u64() || id.is_i64() => id.to_string(),
        Some(_) => return Err("the user's id is neither a text nor a whole number"),
        None => return Err("the user's id is not there"),
    };
    if !is_user_id(&id) {
        return Err("the user's id is not 1 to 255 visible characters");
    }
    Ok(id)
}

fn parse_email(found: Option<Value>) -> Result<String, &'static str> {
    match found {
        None => Ok(String::new()),
        Some(Value::String(email))
            if email.len() <= EMAIL_MAX && !email.chars().any(char::is_control) =>
        {
            Ok(email)
        }
        Some(_) => Err("the email is not a text of one line"),
    }
}

fn parse_name(found: Option<Value>) -> Result<Option<String>, &'static str> {
    match found {
        None => Ok(None),
        Some(Value::String(name)) => match normalize::display_name(&name) {
            Ok(name) => Ok(Some(name)),
            Err(_) => Err("the name is not a text of one line"),
        },
        Some(_) => Err("the name is not a text of one line"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use http::HeaderValue;

    use super::*;
    use crate::settings::UpstreamTls;
    use crate::settings::backend::SignInResponse;

    fn backend(user_id: &str) -> BackendSettings {
        let at = |text: &str| match text.strip_prefix("header:") {
            Some(name) => ResponseField::Header(name.parse().unwrap()),
            None => ResponseField::Pointer(text.to_owned()),
        };
        BackendSettings {
            method: http::Method::POST,
            login: "http://127.0.0.1/login".parse().unwrap(),
            tls: UpstreamTls::default(),
            user_id: at(user_id),
            email: Some(at("/user/email")),
            name: Some(at("/user/name")),
            roles: Some(at("/user/roles")),
            scopes: Some(at("/user/scopes")),
            account: vec!["email".to_owned()],
            response: SignInResponse::Replace,
            pass_set_cookie: false,
            timeout: Duration::from_secs(1),
            concurrency: 1,
        }
    }

    fn read(user_id: &str, body: &str) -> Result<BackendUser, &'static str> {
        BackendUser::parse(&backend(user_id), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn user_is_read_by_json_pointers() {
        let body = r#"{"user":{"id":7,"email":"Ann@Example.com","name":"Ann",
                       "roles":["admin","ops"],"scopes":"read write"}}"#;
        let person = read("/user/id", body).unwrap();
        assert_eq!(
            person,
            BackendUser {
                id: "7".to_owned(),
                email: "Ann@Example.com".to_owned(),
                name: Some("Ann".to_owned()),
                roles: vec!["admin".to_owned(), "ops".to_owned()],
                scopes: vec!["read".to_owned(), "write".to_owned()],
            }
        );
        let bare = read("/user/id", r#"{"user":{"id":"x","email":null}}"#).unwrap();
        assert_eq!((bare.email.as_str(), bare.roles.len()), ("", 0));
    }

    #[test]
    fn user_id_is_an_integer_or_visible_text() {
        let long = format!("\"{}\"", "x".repeat(256));
        let longest = format!("\"{}\"", "x".repeat(255));
        for (id, expected) in [
            ("0", Some("0")),
            ("-5", Some("-5")),
            ("18446744073709551615", Some("18446744073709551615")),
            // Digits would be lost, and two people be one.
            ("18446744073709551616", None),
            ("1.5", None),
            ("1e3", None),
            ("\"a|b@c\"", Some("a|b@c")),
            (longest.as_str(), Some(longest.trim_matches('"'))),
            (long.as_str(), None),
            ("\"\"", None),
            ("\"a b\"", None),
            ("\"a\\u0000\"", None),
            ("null", None),
            ("true", None),
            ("[1]", None),
            ("{}", None),
        ] {
            let person = read("/id", &format!("{{\"id\":{id}}}"));
            assert_eq!(person.ok().map(|p| p.id).as_deref(), expected, "{id}");
        }
        assert!(read("/id", "{}").is_err());
        assert!(read("/id", "not JSON").is_err());
        // Whom it means, two readers could tell differently.
        assert!(read("/id", r#"{"id":"ann","id":"admin"}"#).is_err());
        assert_eq!(read("/0/id", r#"[{"id":"a"}]"#).unwrap().id, "a");
    }

    #[test]
    fn repeated_header_is_rejected() {
        let mut backend = backend("header:x-user-id");
        (backend.email, backend.name, backend.scopes) = (None, None, None);
        backend.roles = Some(ResponseField::Header("x-roles".parse().unwrap()));
        let mut headers = HeaderMap::new();
        assert!(BackendUser::parse(&backend, &headers, b"not JSON").is_err());
        headers.insert("x-user-id", HeaderValue::from_static("7"));
        headers.insert("x-roles", HeaderValue::from_static("admin, ops"));
        let person = BackendUser::parse(&backend, &headers, b"not JSON").unwrap();
        assert_eq!(person.id, "7");
        assert_eq!(person.roles, ["admin", "ops"]);
        headers.append("x-user-id", HeaderValue::from_static("8"));
        assert!(BackendUser::parse(&backend, &headers, b"").is_err());
    }

    #[test]
    fn malformed_member_rejects_the_response() {
        for wrong in [
            r#""email":5"#,
            r#""email":"a\nb""#,
            r#""name":["x"]"#,
            r#""roles":5"#,
            r#""roles":[1]"#,
            r#""roles":["a,b"]"#,
            r#""scopes":["a b"]"#,
        ] {
            let body = format!(r#"{{"user":{{"id":"x",{wrong}}}}}"#);
            assert!(read("/user/id", &body).is_err(), "{wrong}");
        }
    }
}
