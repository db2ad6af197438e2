//! Who a backend's answer says somebody is.

use http::HeaderMap;
use serde_json::Value;

use crate::accounts::names;
use crate::auth::token::{is_user_id, words};
use crate::directory::User;
use crate::json;
use crate::settings::backend::{Backend, Source};

/// Bytes of an email address.
const EMAIL_MAX: usize = 254;

/// Somebody, as their backend knows them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) id: String,
    /// Empty: the backend did not say.
    pub(super) email: String,
    pub(super) name: Option<String>,
    pub(super) roles: Vec<String>,
    pub(super) scopes: Vec<String>,
}

impl Person {
    /// Reads an answer. What is not there but for the id is left out; what is there and makes no
    /// sense spoils the answer, for a role that is misread is a right that is.
    pub(super) fn read(
        backend: &Backend,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Person, &'static str> {
        let sources = [
            Some(&backend.user_id),
            backend.email.as_ref(),
            backend.name.as_ref(),
            backend.roles.as_ref(),
            backend.scopes.as_ref(),
        ];
        let reads_body = |source: &&Source| matches!(source, Source::Pointer(_));
        let body = if sources.iter().flatten().any(reads_body) {
            json::value(body).map_err(|fault| fault.what)?
        } else {
            Value::Null
        };
        let find = |source: Option<&Source>| source.map_or(Ok(None), |at| find(at, headers, &body));
        let separators: &[char] = &[','];
        let roles = words(find(backend.roles.as_ref())?.as_ref(), separators)?;
        let scopes = words(find(backend.scopes.as_ref())?.as_ref(), &[])?;
        Ok(Person {
            id: id(find(Some(&backend.user_id))?)?,
            email: email(find(backend.email.as_ref())?)?,
            name: name(find(backend.name.as_ref())?)?,
            roles: names::roles(&roles).map_err(|_| "its roles are not names of roles")?,
            scopes: names::scopes(&scopes).map_err(|_| "its scopes are not names of scopes")?,
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
fn find(source: &Source, headers: &HeaderMap, body: &Value) -> Result<Option<Value>, &'static str> {
    match source {
        Source::Pointer(pointer) => {
            let found = body.pointer(pointer).filter(|value| !value.is_null());
            Ok(found.cloned())
        }
        Source::Header(name) => {
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
fn id(found: Option<Value>) -> Result<String, &'static str> {
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

fn email(found: Option<Value>) -> Result<String, &'static str> {
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

fn name(found: Option<Value>) -> Result<Option<String>, &'static str> {
    match found {
        None => Ok(None),
        Some(Value::String(name)) => match names::display_name(&name) {
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
    use crate::settings::backend::Answer;

    fn backend(user_id: &str) -> Backend {
        let at = |text: &str| match text.strip_prefix("header:") {
            Some(name) => Source::Header(name.parse().unwrap()),
            None => Source::Pointer(text.to_owned()),
        };
        Backend {
            method: http::Method::POST,
            login: "http://127.0.0.1/login".parse().unwrap(),
            tls: UpstreamTls::default(),
            user_id: at(user_id),
            email: Some(at("/user/email")),
            name: Some(at("/user/name")),
            roles: Some(at("/user/roles")),
            scopes: Some(at("/user/scopes")),
            account: vec!["email".to_owned()],
            answer: Answer::Replace,
            pass_set_cookie: false,
            timeout: Duration::from_secs(1),
            concurrency: 1,
        }
    }

    fn read(user_id: &str, body: &str) -> Result<Person, &'static str> {
        Person::read(&backend(user_id), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn a_person_is_read_by_pointers() {
        let body = r#"{"user":{"id":7,"email":"Ann@Example.com","name":"Ann",
                       "roles":["admin","ops"],"scopes":"read write"}}"#;
        let person = read("/user/id", body).unwrap();
        assert_eq!(
            person,
            Person {
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
    fn an_id_is_a_whole_number_or_a_visible_text() {
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
    fn a_header_is_read_once_or_not_at_all() {
        let mut backend = backend("header:x-user-id");
        (backend.email, backend.name, backend.scopes) = (None, None, None);
        backend.roles = Some(Source::Header("x-roles".parse().unwrap()));
        let mut headers = HeaderMap::new();
        assert!(Person::read(&backend, &headers, b"not JSON").is_err());
        headers.insert("x-user-id", HeaderValue::from_static("7"));
        headers.insert("x-roles", HeaderValue::from_static("admin, ops"));
        let person = Person::read(&backend, &headers, b"not JSON").unwrap();
        assert_eq!(person.id, "7");
        assert_eq!(person.roles, ["admin", "ops"]);
        headers.append("x-user-id", HeaderValue::from_static("8"));
        assert!(Person::read(&backend, &headers, b"").is_err());
    }

    #[test]
    fn what_makes_no_sense_spoils_the_answer() {
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
