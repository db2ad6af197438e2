//! What a token says, read strictly (RFC 7519, section 4). A claim that is there with the wrong type
//! refuses the token; it is never taken for absent.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::CertificateHash;
use crate::auth::session::{Millis, SessionId};
use crate::json;

/// Seconds: the end of the year 9999, the last date that can be written.
const MAX_DATE: u64 = 253_402_300_799;
/// The greatest whole number that a double represents exactly.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;
/// Characters of a user's id and of a `jti`.
const MAX_ID_CHARS: usize = 255;

/// The members of a token's payload.
pub(super) struct Payload(Map<String, Value>);

impl Payload {
    pub(super) fn parse(bytes: &[u8]) -> Result<Payload, &'static str> {
        json::parse(bytes)
            .map(Payload)
            .map_err(|fault| fault.reason)
    }

    /// The issuer: exactly one string.
    pub(super) fn issuer(&self) -> Result<&str, &'static str> {
        self.0
            .get("iss")
            .and_then(Value::as_str)
            .ok_or("`iss` is not a string")
    }

    /// Tells whether the token is for `audience`: `aud` is it, or a list with it.
    pub(super) fn is_for(&self, audience: &str) -> Result<bool, &'static str> {
        let wrong = "`aud` is neither a string nor a list of strings";
        match self.0.get("aud") {
            Some(Value::String(one)) => Ok(one == audience),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                Ok(list.iter().any(|one| one == audience))
            }
            _ => Err(wrong),
        }
    }

    /// A date in seconds, maybe with a fraction.
    pub(super) fn date(&self, name: &str) -> Result<Option<Millis>, &'static str> {
        let wrong = "a date is not a number of seconds before the year 10000";
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        if let Some(seconds) = value.as_u64() {
            return (seconds <= MAX_DATE)
                .then_some(Some(seconds * 1000))
                .ok_or(wrong);
        }
        let seconds = value.as_f64().ok_or(wrong)?;
        if !(0.0..=MAX_DATE as f64).contains(&seconds) {
            return Err(wrong);
        }
        Ok(Some((seconds * 1000.0) as Millis))
    }

    /// The user's ID: visible characters only, since it is written to headers, logs and keys. `sub`
    /// is a string (RFC 7519, section 4.1.2); another claim may be a whole number.
    pub(super) fn user(&self, claim: &str) -> Result<Cow<'_, str>, &'static str> {
        let found = self.find_claim(claim);
        let (number, wrong) = match claim {
            "sub" | "/sub" => (None, "the user's id is not a string"),
            _ => (
                found.and_then(integer_digits).map(Cow::Owned),
                "the user's id is neither a string nor a whole number",
            ),
        };
        let user = found
            .and_then(Value::as_str)
            .map(Cow::Borrowed)
            .or(number)
            .ok_or(wrong)?;
        if !is_user_id(&user) {
            return Err("the user's id is not 1 to 255 visible characters");
        }
        Ok(user)
    }

    /// The session that the token belongs to.
    pub(super) fn session(&self) -> Result<SessionId, &'static str> {
        self.0
            .get("sid")
            .and_then(Value::as_str)
            .and_then(SessionId::parse)
            .ok_or("`sid` is not a session id")
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
            Some(_) => Err("`jti` is not 1 to 255 characters"),
        }
    }

    /// The client certificate that the token is bound to (RFC 8705, section 3.1). `None`: it is not
    /// bound. A binding that the gateway cannot check spoils the token.
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
            .ok_or("`cnf` is not the hash of a client certificate alone")
    }

    pub(super) fn email(&self, claim: &str) -> Result<Option<String>, &'static str> {
        match self.find_claim(claim) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(email)) if !email.chars().any(char::is_control) => {
                Ok(Some(email.clone()))
            }
            Some(_) => Err("the email is not a string of one line"),
        }
    }

    /// Roles or scopes: see [`words`].
    pub(super) fn string_list(
        &self,
        claim: &str,
        separators: &[char],
    ) -> Result<Vec<String>, &'static str> {
        parse_string_list(self.find_claim(claim), separators)
    }

    /// Finds a claim by its configured name: a JSON pointer (RFC 6901) when it begins with a slash;
    /// else the member of exactly that name (`https://example.com/roles`); else, when there is no
    /// such member, a path of members with dots between them (`realm_access.roles`).
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

    pub(super) fn into_json(self) -> Value {
        self.0.into()
    }
}

/// Reads roles or scopes: a list of strings, or one string in which spaces or one of `separators`
/// stand between them.
///
/// # Errors
/// Says what is wrong with them.
pub(crate) fn parse_string_list(
    found: Option<&Value>,
    separators: &[char],
) -> Result<Vec<String>, &'static str> {
    let wrong = "roles or scopes are neither a string nor a list of strings";
    let words: Vec<String> = match found {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text
            .split(|c| c == ' ' || separators.contains(&c))
            .map(str::to_owned)
            .collect(),
        Some(Value::Array(list)) => list
            .iter()
            .map(|word| word.as_str().map(str::to_owned).ok_or(wrong))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong),
    };
    if words.iter().any(|word| word.chars().any(char::is_control)) {
        return Err("a role or scope holds a control character");
    }
    Ok(words.into_iter().filter(|word| !word.is_empty()).collect())
}

/// Tells whether a text can be a user's id: 1 to 255 visible characters.
pub(crate) fn is_user_id(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_ID_CHARS && text.chars().all(is_visible)
}

/// The digits of a whole number, if every reader of JSON has the same ones (RFC 8259, section 6).
fn integer_digits(value: &Value) -> Option<String> {
    let number = value.as_i64()?;
    (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER)
        .contains(&number)
        .then(|| number.to_string())
}

fn unescape_pointer(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// Neither a control character, nor white space, nor invisible.
fn is_visible(c: char) -> bool {
    !(is_invisible(c) || c.is_control() || c.is_whitespace())
}

/// Tells whether a character is drawn as nothing or turns the reading direction, so that one name can
/// be made to look like another: what Unicode lets a renderer ignore, fillers, and separators of lines.
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
