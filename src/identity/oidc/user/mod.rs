//! The user that a provider's claims describe.

use serde_json::{Map, Value};

use crate::auth::token::{is_user_id, parse_string_list};
use crate::identity::normalize;
use crate::rejection::CallbackFault;
use crate::settings::provider::{Provider, ProviderClaims};

/// The largest integer that a double represents exactly.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;
/// Maximum length of an email, in bytes (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL: usize = 254;
/// Maximum number of roles, groups or scopes: a session keeps them.
const MAX_NAMES: usize = 500;
/// Maximum length of a role, group or scope, in bytes.
const MAX_NAME: usize = 255;
/// Maximum number of bytes of all roles, or of all scopes, of a user. The store, whose encoding triples
/// some characters, holds at most 65,535 bytes of each.
const MAX_NAMES_BYTES: usize = 20 * 1024;
/// The member that names claims which are elsewhere (OpenID Connect Core 1.0, section 5.6.2).
const CLAIM_NAMES: &str = "_claim_names";

/// A user as a provider describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderUser {
    /// Without the prefix of the provider.
    pub user_id: String,
    /// Only one that is verified: a user may not own an unverified email.
    pub email: Option<String>,
    pub name: Option<String>,
    /// Roles as the provider names them.
    pub groups: Vec<String>,
    /// Roles after the map.
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
}

/// The claims of one user, from the ID token and from userinfo, in the order in which they count.
pub(super) struct UserClaims<'a> {
    sources: Vec<&'a Map<String, Value>>,
}

impl<'a> UserClaims<'a> {
    pub(super) fn new(sources: impl IntoIterator<Item = &'a Map<String, Value>>) -> UserClaims<'a> {
        UserClaims {
            sources: sources.into_iter().collect(),
        }
    }

    /// Whether every attribute that is read has a claim.
    pub(super) fn are_complete(&self, settings: &Provider) -> bool {
        let ProviderClaims {
            user,
            email,
            email_verified,
            name,
            roles,
            scopes,
        } = &settings.claims;
        let has = |names: &&Vec<String>| names.is_empty() || self.first(names).is_some();
        [user, email, name, roles, scopes].iter().all(has)
            && (settings.trust_email || email.is_empty() || has(&email_verified))
    }

    /// Reads the user.
    ///
    /// # Errors
    ///
    /// There is no usable user ID, or a claim is of a wrong type or only referenced. Nothing is read as
    /// absent that the provider has stated: a misread role could grant rights.
    pub(super) fn read(&self, settings: &Provider) -> Result<ProviderUser, CallbackFault> {
        let claims = &settings.claims;
        let user_id = self.user_id(settings)?;
        let groups = self.names(&claims.roles, &[','])?;
        let name = match self.find(&claims.name)? {
            Some((_, Value::String(name))) => normalize::display_name(name).ok(),
            Some(_) => return Err(CallbackFault::ClaimMalformed),
            None => None,
        };
        let user = ProviderUser {
            user_id,
            email: self.verified_email(settings)?,
            name: name.filter(|name| !name.is_empty()),
            roles: mapped_roles(settings, &groups),
            groups,
            scopes: self.names(&claims.scopes, &[])?,
        };
        let is_kept = |names: &[String]| {
            let bytes = names.iter().map(|name| name.len() + 1);
            names.len() <= MAX_NAMES && bytes.sum::<usize>() <= MAX_NAMES_BYTES
        };
        if !is_kept(&user.roles) || !is_kept(&user.scopes) {
            return Err(CallbackFault::ClaimTooLarge);
        }
        Ok(user)
    }

    /// Returns the first claim of a list that is present, and the index of its source.
    fn first(&self, names: &[String]) -> Option<(usize, &'a Value)> {
        let mut found = names.iter().flat_map(|name| {
            let sources = self.sources.iter().enumerate();
            sources.filter_map(move |(index, source)| Some((index, claim(source, name)?)))
        });
        found.next()
    }

    /// As [`UserClaims::first`], for a claim that must not be elsewhere.
    fn find(&self, names: &[String]) -> Result<Option<(usize, &'a Value)>, CallbackFault> {
        for name in names {
            if let Some(found) = self.first(std::slice::from_ref(name)) {
                return Ok(Some(found));
            }
            if self
                .sources
                .iter()
                .any(|source| is_referenced(source, name))
            {
                return Err(CallbackFault::ClaimReferenced);
            }
        }
        Ok(None)
    }

    /// Returns the user's ID. `sub` of an ID token is a string; other claims may be whole numbers.
    fn user_id(&self, settings: &Provider) -> Result<String, CallbackFault> {
        let unusable = CallbackFault::UserIdUnusable;
        let user_id = match self.find(&settings.claims.user)?.ok_or(unusable)?.1 {
            Value::String(text) => text.clone(),
            Value::Number(number) => {
                let number = number
                    .as_i64()
                    .filter(|number| (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(number));
                number.ok_or(unusable)?.to_string()
            }
            _ => return Err(unusable),
        };
        is_user_id(&user_id).then_some(user_id).ok_or(unusable)
    }

    /// Returns the email if it is verified.
    fn verified_email(&self, settings: &Provider) -> Result<Option<String>, CallbackFault> {
        let claims = &settings.claims;
        let email = self.find(&claims.email)?;
        let verified = self.find(&claims.email_verified)?;
        let (index, email) = match email {
            Some((_, Value::String(email))) if email.is_empty() => return Ok(None),
            Some((index, Value::String(email)))
                if email.len() <= MAX_EMAIL && !email.chars().any(char::is_control) =>
            {
                (index, email)
            }
            Some(_) => return Err(CallbackFault::ClaimMalformed),
            None => return Ok(None),
        };
        let is_verified =
            settings.trust_email || verified.is_some() && self.is_verified(claims, index, email);
        Ok(is_verified.then(|| email.clone()))
    }

    /// Whether the source of an email says that it is verified, or, if it says nothing about it, another
    /// source says so of the same email.
    fn is_verified(&self, claims: &ProviderClaims, index: usize, email: &str) -> bool {
        let own = self.sources.get(index).copied();
        if let Some(own) = own.and_then(|own| verifies(own, claims, email)) {
            return own;
        }
        self.sources.iter().any(|source| {
            let mut names = claims.email.iter();
            let other = names.find_map(|name| claim(source, name));
            other.is_some_and(|other| other == email)
                && verifies(source, claims, email) == Some(true)
        })
    }

    /// Returns roles or scopes: a list of strings, or one string that is separated.
    fn names(&self, names: &[String], separators: &[char]) -> Result<Vec<String>, CallbackFault> {
        let found = self.find(names)?.map(|(_, value)| value);
        let list = parse_string_list(found, separators);
        let list = list.map_err(|_| CallbackFault::ClaimMalformed)?;
        if list.len() > MAX_NAMES || list.iter().any(|name| name.len() > MAX_NAME) {
            return Err(CallbackFault::ClaimMalformed);
        }
        Ok(list)
    }
}

/// Whether a source says that an email is verified; `None`: it says nothing about emails. What it says
/// is about its claim `email`, where it has one: another claim may be an address that users choose.
fn verifies(source: &Map<String, Value>, claims: &ProviderClaims, email: &str) -> Option<bool> {
    let mut names = claims.email_verified.iter();
    let (name, verified) = names.find_map(|name| Some((name, claim(source, name)?)))?;
    let is_about = |described: &str| described.eq_ignore_ascii_case(email);
    let described = source.get("email").and_then(Value::as_str);
    let is_about_it = name.starts_with('/') || described.is_none_or(is_about);
    Some(is_about_it && *verified == Value::Bool(true))
}

/// Returns a claim by a name or a JSON pointer (RFC 6901); `null` counts as absent.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let found = match name.strip_prefix('/') {
        None => claims.get(name),
        Some(pointer) => match pointer.find('/') {
            None => claims.get(&unescape(pointer)),
            Some(end) => {
                let (first, rest) = pointer.split_at_checked(end)?;
                claims.get(&unescape(first))?.pointer(rest)
            }
        },
    };
    found.filter(|value| !value.is_null())
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// Whether a claim is only referenced: an aggregated or distributed claim.
fn is_referenced(claims: &Map<String, Value>, name: &str) -> bool {
    let first = match name.strip_prefix('/') {
        None => name.to_owned(),
        Some(pointer) => unescape(pointer.split('/').next().unwrap_or_default()),
    };
    let names = claims.get(CLAIM_NAMES).and_then(Value::as_object);
    names.is_some_and(|names| names.contains_key(&first))
}

/// Maps roles; a role that the map lacks is dropped.
fn mapped_roles(settings: &Provider, groups: &[String]) -> Vec<String> {
    let Some(map) = &settings.roles_map else {
        return without_duplicates(groups.iter());
    };
    without_duplicates(groups.iter().filter_map(|group| map.get(group)).flatten())
}

fn without_duplicates<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !unique.contains(name) {
            unique.push(name.clone());
        }
    }
    unique
}

#[cfg(test)]
mod tests;
