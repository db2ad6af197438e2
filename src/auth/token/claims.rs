//! Strict parser of token claims (RFC 7519, section 4). A claim of the wrong type makes the token
//! invalid; it is never treated as absent.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::CertificateHash;
use crate::auth::session::{Millis, SessionId};
use crate::json;

/// The fault of a payload without a usable `iss`.
pub(super) const NO_ISSUER: &str = "`iss` is not a string";
/// The fault of a payload without a usable `aud`.
pub(super) const NO_AUDIENCE: &str = "`aud` is neither a string nor a list of strings";
/// End of the year 9999, the last date that can be formatted, in seconds.
const MAX_DATE: u64 = 253_402_300_799;
/// The largest integer that a double represents exactly.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;
/// Maximum length of a user's ID and of a `jti`, in characters.
const MAX_ID_CHARS: usize = 255;

/// The members of a token's payload.
pub(super) struct Payload(Map<String, Value>);

impl Payload {
    pub(super) fn parse(bytes: &[u8]) -> Result<Payload, &'static str> {
        json::parse(bytes)
            .map(Payload)
            .map_err(|error| error.reason)
    }

    /// Returns the issuer, which must be a string.
    pub(super) fn issuer(&self) -> Result<&str, &'static str> {
        self.0.get("iss").and_then(Value::as_str).ok_or(NO_ISSUER)
    }

    /// Whether `aud` is the audience or a list that contains it.
    pub(super) fn is_for(&self, audience: &str) -> Result<bool, &'static str> {
        Ok(self.audiences()?.iter().any(|one| one == audience))
    }

    /// Returns the values of `aud`, all of which are strings.
    pub(super) fn audiences(&self) -> Result<&[Value], &'static str> {
        match self.0.get("aud") {
            Some(one @ Value::String(_)) => Ok(std::slice::from_ref(one)),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => Ok(list),
            _ => Err(NO_AUDIENCE),
        }
    }

    /// Returns a member of the payload itself.
    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns a date, which is in seconds with an optional fraction.
    pub(super) fn date(&self, name: &str) -> Result<Option<Millis>, &'static str> {
        let error = "a date is not a number of seconds before the year 10000";
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        if let Some(seconds) = value.as_u64() {
            return (seconds <= MAX_DATE)
                .then_some(Some(seconds * 1000))
                .ok_or(error);
        }
        let seconds = value.as_f64().ok_or(error)?;
        if !(0.0..=MAX_DATE as f64).contains(&seconds) {
            return Err(error);
        }
        Ok(Some((seconds * 1000.0) as Millis))
    }

    /// Returns the user's ID, which has only visible characters because it is written to headers,
    /// logs and keys. `sub` is a string (RFC 7519, section 4.1.2); another claim may be an integer.
    pub(super) fn user(&self, claim: &str) -> Result<Cow<'_, str>, &'static str> {
        let value = self.find_claim(claim);
        let (number, error) = match claim {
            "sub" | "/sub" => (None, "the user ID is not a string"),
            _ => (
                value.and_then(integer_digits).map(Cow::Owned),
                "the user ID is neither a string nor an integer",
            ),
        };
        let user = value
            .and_then(Value::as_str)
            .map(Cow::Borrowed)
            .or(number)
            .ok_or(error)?;
        if !is_user_id(&user) {
            return Err("the user ID does not consist of 1 to 255 visible characters");
        }
        Ok(user)
    }

    /// Returns the session that the token belongs to.
    pub(super) fn session(&self) -> Result<SessionId, &'static str> {
        self.0
            .get("sid")
            .and_then(Value::as_str)
            .and_then(SessionId::parse)
            .ok_or("`sid` is not a session ID")
    }

    pub(super) fn token_id(&self) -> Result<Option<&str>, &'static str> {
        match self.0.get("jti") {
            None => Ok(None),
            Some(Value::String(id))
                if (1..=MAX_ID_CHARS).contains(&id.chars().count())
                    && !id.chars().any(char::is_control) =>
            {
                Ok(Some(id))
            }
            Some(_) => Err("`jti` does not have 1 to 255 characters"),
        }
    }

    /// Returns the client certificate that the token is bound to (RFC 8705, section 3.1), if any.
    ///
    /// A binding that the gateway cannot check makes the token invalid.
    pub(super) fn certificate(&self) -> Result<Option<CertificateHash>, &'static str> {
        let Some(confirmation) = self.0.get("cnf") else {
            return Ok(None);
        };
        confirmation
            .as_object()
            .filter(|members| members.len() == 1)
            .and_then(|members| members.get("x5t#S256")?.as_str())
            .and_then(CertificateHash::parse)
            .map(Some)
            .ok_or("`cnf` is not only the hash of a client certificate")
    }

    pub(super) fn email(&self, claim: &str) -> Result<Option<String>, &'static str> {
        match self.find_claim(claim) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(email)) if !email.chars().any(char::is_control) => {
                Ok(Some(email.clone()))
            }
            Some(_) => Err("the email address is not a string of one line"),
        }
    }

    /// Returns roles or scopes; see [`parse_string_list`].
    pub(super) fn string_list(
        &self,
        claim: &str,
        separators: &[char],
    ) -> Result<Vec<String>, &'static str> {
        parse_string_list(self.find_claim(claim), separators)
    }

    /// Finds a claim by its configured name.
    ///
    /// A name that starts with a slash is a JSON pointer (RFC 6901). Otherwise it is the exact name
    /// of a member (`https://example.com/roles`), or, if there is none, a path with dots
    /// (`realm_access.roles`).
    fn find_claim(&self, claim: &str) -> Option<&Value> {
        if claim.starts_with('/') {
            let mut steps = claim.split('/').skip(1).map(unescape_pointer);
            let first = self.0.get(&steps.next()?)?;
            return steps.try_fold(first, |value, step| match value {
                Value::Array(list) => list.get(step.parse::<usize>().ok()?),
                _ => value.get(&step),
            });
        }
        self.0.get(claim).or_else(|| {
            let mut steps = claim.split('.');
            let first = self.0.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.get(step))
        })
    }

    /// Returns all members.
    pub(super) fn into_members(self) -> Map<String, Value> {
        self.0
    }
}

/// Parses roles or scopes: a list of strings, or one string separated by spaces or `separators`.
///
/// # Errors
///
/// The value has another type or contains control characters.
pub(crate) fn parse_string_list(
    value: Option<&Value>,
    separators: &[char],
) -> Result<Vec<String>, &'static str> {
    let error = "roles or scopes are neither a string nor a list of strings";
    let names: Vec<String> = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text
            .split(|c| c == ' ' || separators.contains(&c))
            .map(str::to_owned)
            .collect(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|name| name.as_str().map(str::to_owned).ok_or(error))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(error),
    };
    if names.iter().any(|name| name.chars().any(char::is_control)) {
        return Err("a role or scope contains a control character");
    }
    Ok(names.into_iter().filter(|name| !name.is_empty()).collect())
}

/// Whether a text is a valid user ID: 1 to 255 visible characters.
pub(crate) fn is_user_id(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_ID_CHARS && text.chars().all(is_visible)
}

/// Formats an integer that all JSON parsers read alike (RFC 8259, section 6).
fn integer_digits(value: &Value) -> Option<String> {
    let number = value.as_i64()?;
    (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER)
        .contains(&number)
        .then(|| number.to_string())
}

fn unescape_pointer(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// Whether a character is not a control character, white space or invisible.
fn is_visible(c: char) -> bool {
    !(is_invisible(c) || c.is_control() || c.is_whitespace())
}

/// Whether a character is invisible or changes the text direction, so that two names can look
/// alike: default-ignorable characters of Unicode, fillers and line separators.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}
