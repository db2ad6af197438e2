//! Canonical forms of names and limits of input: two spellings of one account must not become two
//! accounts, or two counters of failed sign-ins.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::common_passwords::is_common;
use crate::auth::token::is_invisible;

/// In bytes; RFC 5321, section 4.5.3.1.3, without the angle brackets.
const EMAIL_MAX: usize = 254;
const USERNAME_MAX: usize = 64;
/// Maximum length of a display name, in characters.
const NAME_MAX: usize = 200;
/// In characters. Longer passwords are rejected before hashing.
const PASSWORD_MAX: usize = 1024;
const LABELS_MAX: usize = 64;

/// Converts an email address to its canonical form, lower case throughout. Only visible ASCII is
/// accepted, so that look-alike characters cannot name two users.
///
/// # Errors
/// The problem with the address.
pub fn email(text: &str) -> Result<String, &'static str> {
    if text.len() > EMAIL_MAX {
        return Err("must be at most 254 characters");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must be visible ASCII characters without spaces");
    }
    match text.split_once('@') {
        Some((local, domain)) if !local.is_empty() && is_domain(domain) => {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err("must be an address with exactly one @ between a name and a domain"),
    }
}

fn is_domain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !text.is_empty() && text.bytes().all(allowed) && text.split('.').all(|label| !label.is_empty())
}

/// Accepts a username as written; usernames are compared case-insensitively.
///
/// # Errors
/// The problem with the username.
pub fn username(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > USERNAME_MAX || !text.bytes().all(allowed) {
        return Err("must be 1 to 64 of A-Z a-z 0-9 . _ -");
    }
    Ok(text.to_owned())
}

/// Accepts a display name.
///
/// # Errors
/// The problem with the name.
pub fn display_name(text: &str) -> Result<String, &'static str> {
    if text.chars().count() > NAME_MAX {
        return Err("must be at most 200 characters");
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters");
    }
    Ok(text.to_owned())
}

/// Accepts role names. They travel in a comma-separated header, where unsupported characters are
/// encoded.
///
/// # Errors
/// The problem with the roles.
pub fn roles(list: &[String]) -> Result<Vec<String>, &'static str> {
    let allowed = |role: &String| {
        let printable = |c: char| !c.is_control() && c != ',';
        role.trim() == role && (1..=128).contains(&role.len()) && role.chars().all(printable)
    };
    unique_labels(list, allowed).ok_or(
        "must be at most 64 names of 1 to 128 bytes, without control characters, commas or spaces around",
    )
}

/// Accepts scope names: `scope-token` of RFC 6749, section 3.3.
///
/// # Errors
/// The problem with the scopes.
pub fn scopes(list: &[String]) -> Result<Vec<String>, &'static str> {
    let allowed = |scope: &String| {
        let visible = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'"' | b'\\');
        (1..=128).contains(&scope.len()) && scope.bytes().all(visible)
    };
    unique_labels(list, allowed)
        .ok_or("must be at most 64 names of 1 to 128 visible ASCII characters without , \" \\")
}

/// Removes duplicates.
fn unique_labels(list: &[String], allowed: impl Fn(&String) -> bool) -> Option<Vec<String>> {
    if list.len() > LABELS_MAX || !list.iter().all(allowed) {
        return None;
    }
    let mut labels = Vec::with_capacity(list.len());
    for label in list {
        if !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    Some(labels)
}

/// Checks the password of a sign-in: one that could not have been set is not hashed.
///
/// # Errors
/// The problem with the password.
pub fn check_sign_in_password(text: &str) -> Result<(), String> {
    if text.chars().count() > PASSWORD_MAX {
        return Err(format!("must be at most {PASSWORD_MAX} characters"));
    }
    Ok(())
}

/// Checks a new password. There are no composition rules; it is verified exactly as typed.
///
/// # Errors
/// The problem with the password.
pub fn check_new_password(
    text: &str,
    min_length: usize,
    email: &str,
    username: Option<&str>,
) -> Result<(), String> {
    check_sign_in_password(text)?;
    if text.chars().count() < min_length {
        return Err(format!("must be at least {min_length} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters".to_owned());
    }
    let same = |name: &str| text.eq_ignore_ascii_case(name);
    if same(email) || username.is_some_and(same) {
        return Err("must not be the email or the username".to_owned());
    }
    if is_common(text) {
        return Err("is one of the passwords that are tried first".to_owned());
    }
    Ok(())
}

/// The name of a sign-in. An email contains an `@`, a username cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginName {
    Email(String),
    Username(String),
}

impl LoginName {
    /// Parses a typed name. Surrounding white space and case are ignored; a name that no account
    /// can have is kept and turns out to be unknown.
    pub fn parse(text: &str) -> LoginName {
        let canonical = text.trim().to_ascii_lowercase();
        if canonical.contains('@') {
            LoginName::Email(canonical)
        } else {
            LoginName::Username(canonical)
        }
    }

    /// The key under which failures are counted when the account is unknown.
    pub fn canonical(&self) -> &str {
        match self {
            LoginName::Email(name) | LoginName::Username(name) => name,
        }
    }
}

/// An account name of a backend, as the key of its failure counters. A backend may ignore case,
/// width or accents when comparing names, so such spellings share one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountName(String);

impl AccountName {
    /// Parses a typed name.
    ///
    /// # Errors
    /// The problem with the name.
    pub fn parse(typed: &str) -> Result<AccountName, &'static str> {
        if typed.chars().any(|c| c.is_control() || is_invisible(c)) {
            return Err("must not hold control or invisible characters");
        }
        Ok(AccountName(fold(typed)))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Folds a text: NFKD without marks, case-folded, trimmed.
pub fn fold(text: &str) -> String {
    // Lower case first: the upper case of capital sharp s is itself.
    let lower = |c: char| c.to_lowercase();
    let folded: String = text
        .nfkd()
        .filter(|c| !is_combining_mark(*c))
        .flat_map(lower)
        .flat_map(char::to_uppercase)
        .flat_map(lower)
        .collect();
    folded.trim().to_owned()
}

#[cfg(test)]
mod tests;
