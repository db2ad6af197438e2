//! Claims with the attributes of a provider's users.

use std::collections::BTreeMap;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::provider as file;
use crate::settings::provider::{ProviderClaims, ProviderKind};

/// Resolves the claims.
pub(super) fn claims(
    raw: &file::Provider,
    kind: ProviderKind,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> ProviderClaims {
    let location = location.key("claims");
    let mut names = |key: &str, written: Option<&file::Names>, of_github: Option<&str>| {
        let at = location.key(key);
        if let (ProviderKind::GitHub, Some(name)) = (kind, of_github)
            && !context.source_map.contains(&at)
        {
            return vec![name.to_owned()];
        }
        written.map_or_else(Vec::new, |written| claim_names(written, &at, context))
    };
    let claims = &raw.claims;
    ProviderClaims {
        user: names("user", Some(&claims.user), Some("id")),
        email: names("email", claims.email.as_ref(), None),
        email_verified: names("email_verified", claims.email_verified.as_ref(), None),
        name: names("name", claims.name.as_ref(), None),
        roles: names("roles", claims.roles.as_ref(), Some("groups")),
        scopes: names("scopes", claims.scopes.as_ref(), None),
    }
}

fn claim_names(
    written: &file::Names,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<String> {
    let names = written.as_slice();
    if names.is_empty() {
        let message = "give at least one claim, or null if the attribute is not to be read";
        context.error(location, message);
    }
    for (index, name) in names.iter().enumerate() {
        let at = match written {
            file::Names::One(_) => location.clone(),
            file::Names::Several(_) => location.item(index),
        };
        if name.is_empty() {
            context.error(&at, "the name of a claim must not be empty");
        } else if name.starts_with('/') && !is_pointer(name) {
            let message = "not a JSON pointer; \"~\" is written \"~0\" there, and \"/\" in a name \
                           \"~1\"";
            context.error(&at, message);
        } else if names.iter().take(index).any(|other| other == name) {
            context.error(&at, "duplicate claim");
        }
    }
    names.to_vec()
}

/// Whether a text that starts with a slash is a JSON pointer (RFC 6901, section 3).
fn is_pointer(text: &str) -> bool {
    let mut escapes = text.split('~').skip(1);
    escapes.all(|rest| rest.starts_with(['0', '1']))
}

/// Resolves the map of roles.
pub(super) fn roles_map(
    raw: &file::Provider,
    claims: &ProviderClaims,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<BTreeMap<String, Vec<String>>> {
    let written = raw.roles_map.as_ref()?;
    let location = location.key("roles_map");
    if claims.roles.is_empty() {
        let message = "\"roles_map\" requires \"claims.roles\", which names the claim to map";
        context.error_at_key(&location, message);
    }
    let mut map = BTreeMap::new();
    for (theirs, ours) in written {
        let at = location.key(theirs);
        if theirs.is_empty() || ours.as_slice().iter().any(String::is_empty) {
            context.error(&at, "a role must not be empty");
        }
        map.insert(theirs.clone(), ours.as_slice().to_vec());
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_escaped() {
        for (text, expected) in [
            ("/realm_access/roles", true),
            ("/a~1b/c~0d", true),
            ("/https:~1~1example.com~1roles", true),
            ("/", true),
            ("/a~", false),
            ("/a~2b", false),
        ] {
            assert_eq!(is_pointer(text), expected, "{text}");
        }
    }
}
