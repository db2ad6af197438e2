//! What people call themselves: one canonical form for each email and username, so that no two
//! spellings of one account are two accounts, or two counters of failed sign-ins.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::common_passwords::is_common;
use crate::auth::token::is_invisible;

/// Bytes; RFC 5321, section 4.5.3.1.3, without the angle brackets.
const EMAIL_MAX: usize = 254;
const USERNAME_MAX: usize = 64;
/// Characters of a display name.
const NAME_MAX: usize = 200;
/// Characters. More than this is refused before it is hashed.
const PASSWORD_MAX: usize = 1024;
const LABELS_MAX: usize = 64;

/// Brings an email to its canonical form: the whole address in lower case. Only visible ASCII is
/// accepted, so that letters that look alike cannot name two users.
///
/// # Errors
/// Says what is wrong with it.
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

/// Accepts a username as it is written; it is compared without regard to case.
///
/// # Errors
/// Says what is wrong with it.
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
/// Says what is wrong with it.
pub fn display_name(text: &str) -> Result<String, &'static str> {
    if text.chars().count() > NAME_MAX {
        return Err("must be at most 200 characters");
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters");
    }
    Ok(text.to_owned())
}

/// Accepts the names of roles. They travel in a header, separated by commas; what a header cannot
/// carry is encoded there.
///
/// # Errors
/// Says what is wrong with them.
pub fn roles(list: &[String]) -> Result<Vec<String>, &'static str> {
    let allowed = |role: &String| {
        let printable = |c: char| !c.is_control() && c != ',';
        role.trim() == role && (1..=128).contains(&role.len()) && role.chars().all(printable)
    };
    unique_labels(list, allowed).ok_or(
        "must be at most 64 names of 1 to 128 bytes, without control characters, commas or spaces around",
    )
}

/// Accepts the names of scopes: `scope-token` of RFC 6749, section 3.3.
///
/// # Errors
/// Says what is wrong with them.
pub fn scopes(list: &[String]) -> Result<Vec<String>, &'static str> {
    let allowed = |scope: &String| {
        let visible = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b'"' | b'\\');
        (1..=128).contains(&scope.len()) && scope.bytes().all(visible)
    };
    unique_labels(list, allowed)
        .ok_or("must be at most 64 names of 1 to 128 visible ASCII characters without , \" \\")
}

/// Each name once.
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

/// Checks a password that somebody signs in with: one that could not have been set is not hashed.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_sign_in_password(text: &str) -> Result<(), String> {
    if text.chars().count() > PASSWORD_MAX {
        return Err(format!("must be at most {PASSWORD_MAX} characters"));
    }
    Ok(())
}

/// Checks a new password. There are no rules of composition; it is verified exactly as typed.
///
/// # Errors
/// Says what is wrong with it.
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

/// The name that somebody signs in with. An email has an `@`, a username cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginName {
    Email(String),
    Username(String),
}

impl LoginName {
    /// Reads what was typed. Surrounding space and case make no other account; what no account can
    /// be called is kept, and simply found to be unknown.
    pub fn parse(text: &str) -> LoginName {
        let canonical = text.trim().to_ascii_lowercase();
        if canonical.contains('@') {
            LoginName::Email(canonical)
        } else {
            LoginName::Username(canonical)
        }
    }

    /// What failures are counted under, when the account is not known.
    pub fn canonical(&self) -> &str {
        match self {
            LoginName::Email(name) | LoginName::Username(name) => name,
        }
    }
}

/// The name of an account at a backend, as failures are counted by it. A backend may compare names
/// without case, width or accents: spellings that it could take for one account are one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountName(String);

impl AccountName {
    /// Reads what was typed.
    ///
    /// # Errors
    /// Says what is wrong with it.
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

/// A text by NFKD without marks, case-folded, without white space around.
pub fn fold(text: &str) -> String {
    // Lower case first: the capital sharp s has no other upper case than itself.
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
