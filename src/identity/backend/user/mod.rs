//! Parses the user from a backend's login response.

use http::HeaderMap;
use serde_json::Value;

use crate::auth::token::{is_user_id, parse_string_list};
use crate::database::User;
use crate::identity::normalize;
use crate::json;
use crate::settings::backend::{BackendSettings, ResponseField};

/// Bytes of an email address.
const EMAIL_MAX: usize = 254;

/// A user as described by their backend.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BackendUser {
    pub(super) id: String,
    /// Empty if the backend did not send one.
    pub(super) email: String,
    pub(super) name: Option<String>,
    pub(super) roles: Vec<String>,
    pub(super) scopes: Vec<String>,
}

impl BackendUser {
    /// Parses a response. Only the ID is required; a member that is present but invalid rejects the
    /// whole response, because a misread role would grant rights.
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
            password_hash: None,
            roles: self.roles,
            scopes: self.scopes,
            disabled: false,
            created_at: 0,
            updated_at: 0,
        }
    }
}

/// `None` if absent or null.
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

/// Accepts a number as its digits, unless precision could have been lost.
fn parse_id(found: Option<Value>) -> Result<String, &'static str> {
    let id = match found {
        Some(Value::String(id)) => id,
        Some(Value::Number(id)) if id.is_u64() || id.is_i64() => id.to_string(),
        Some(_) => return Err("the user's id is neither a text nor a whole number"),
        None => return Err("the user's id is not there"),
    };
    if !is_user_id(&id) {
        return Err("the user ID does not consist of 1 to 255 visible characters");
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
mod tests;
