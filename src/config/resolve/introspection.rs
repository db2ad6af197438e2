//! Introspection endpoints.

use std::sync::Arc;

use super::client_authentication::{self, ClientFields, ClientMethod};
use super::providers::addresses::{check_issuer, parse_secure};
use super::user_prefixes;
use crate::auth::reserved_prefixes::ReservedPrefixes;
use crate::auth::token::{ClaimNames, IntrospectionRules};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::introspection as file;
use crate::settings::introspection::{
    IntrospectionEndpoint, IntrospectionEntry, IntrospectionOutage,
};

/// Resolves the entries, in the order of the file, and checks the prefixes of all sources of users.
/// `has_endpoints`: users can sign in at the gateway itself.
pub(super) fn introspection(
    file: &File,
    has_endpoints: bool,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<Arc<IntrospectionEntry>>> {
    user_prefixes::check(file, has_endpoints, context);
    let all = ConfigPath::root().key("tokens").key("introspection");
    let mut complete = Some(Vec::new());
    let raw = &file.tokens.introspection;
    for (index, one) in raw.iter().enumerate() {
        let location = all.item(index);
        check_name(raw, index, &all, context);
        check_prefix(raw, index, &all, context);
        check_api_keys(one, file, &location, context);
        let entry = entry(one, file, &location, context);
        complete = complete.zip(entry).map(|(mut all, entry)| {
            all.push(Arc::new(entry));
            all
        });
    }
    complete
}

/// Returns the index of an entry by its name.
pub(super) fn index_of(
    name: &str,
    file: &File,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<usize> {
    let entries = &file.tokens.introspection;
    let index = entries.iter().position(|entry| entry.name == name);
    if index.is_none() {
        let names = entries.iter().map(|entry| entry.name.as_str());
        context.unknown_reference(location, "introspection entry", name, names);
    }
    index
}

fn check_name(
    all: &[file::Introspection],
    index: usize,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let Some((entry, before)) = all.get(index).zip(all.get(..index)) else {
        return;
    };
    let at = location.item(index).key("name");
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if !entry.name.bytes().all(is_allowed) {
        let message = "an entry's name must consist of 1 to 32 characters of a-z, 0-9 and \"-\"";
        context.error(&at, message);
    }
    if let Some(first) = before.iter().position(|other| other.name == entry.name) {
        let first = context.first_position(&location.item(first).key("name"), &at);
        let message = format!("another entry already has this name, at {first}");
        context.error(&at, message);
    }
}

/// Rejects two entries for the same tokens.
fn check_prefix(
    all: &[file::Introspection],
    index: usize,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let Some((entry, before)) = all.get(index).zip(all.get(..index)) else {
        return;
    };
    let at = location.item(index);
    let collides = |other: &&file::Introspection| match (&entry.prefix, &other.prefix) {
        (None, None) => true,
        (Some(one), Some(two)) => one.starts_with(two) || two.starts_with(one),
        _ => false,
    };
    if let Some(other) = before.iter().find(collides) {
        let other = &other.name;
        match &entry.prefix {
            None => {
                let message = format!(
                    "the entry \"{other}\" has no \"prefix\" either, so both are for the same \
                     tokens"
                );
                context.error_at_key(&at, message);
            }
            Some(_) => {
                let message = format!(
                    "the prefix collides with that of \"{other}\"; neither may be the beginning \
                     of the other, because both would be for the same tokens"
                );
                context.error(&at.key("prefix"), message);
            }
        }
    }
    if let Some(prefix) = &entry.prefix
        && !prefix.bytes().all(|byte| byte.is_ascii_graphic())
    {
        context.error(&at.key("prefix"), "\"prefix\" must be visible ASCII");
    }
}

/// Rejects an entry whose tokens would be taken for API keys.
fn check_api_keys(
    raw: &file::Introspection,
    file: &File,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let (Some(prefix), Some(keys)) = (&raw.prefix, &file.api_keys) else {
        return;
    };
    let rest = prefix.strip_prefix(keys.prefix.as_str());
    if rest.is_some_and(|rest| rest.starts_with('_')) {
        let message = "tokens that begin with this are API keys, by \"api_keys.prefix\"";
        context.error(&location.key("prefix"), message);
    }
}

/// Resolves one entry. Every part is checked before the first that is missing ends it.
fn entry(
    raw: &file::Introspection,
    file: &File,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<IntrospectionEntry> {
    let endpoint = endpoint(raw, location, context);
    let client_id = client_authentication::client_id(&raw.client_id, location, context);
    let client_auth = client_authentication::authentication(client(raw), location, context);
    let claims = location.key("claims");
    let user = context.require_non_empty(&claims.key("user"), &raw.claims.user);
    let audience = raw
        .audience
        .as_ref()
        .map(|audience| context.require_non_empty(&location.key("audience"), audience));
    let cached_for = context.require_positive(&location.key("cached_for"), raw.cached_for);
    let timeout = context.require_positive(&location.key("timeout"), raw.timeout);
    let tls = super::backend::tls(&raw.tls, &location.key("tls"), context);
    let user_prefix = user_prefixes::of_introspection(raw);
    let reserved_prefixes = match user_prefix.is_empty() {
        true => user_prefixes::reserved(file, raw.issuer.as_deref().or(Some(&raw.name))),
        false => ReservedPrefixes::default(),
    };
    Some(IntrospectionEntry {
        rules: IntrospectionRules {
            name: raw.name.as_str().into(),
            issuer: raw.issuer.clone(),
            audience,
            claims: ClaimNames {
                user,
                email: raw.claims.email.clone(),
                roles: raw.claims.roles.clone(),
                scopes: raw.claims.scopes.clone(),
            },
            user_prefix,
            reserved_prefixes,
        },
        endpoint: endpoint?,
        client_id,
        client_auth: client_auth?,
        prefix: raw.prefix.clone(),
        cached_for,
        timeout,
        concurrency: usize::try_from(raw.concurrency).unwrap_or(usize::MAX),
        on_outage: match raw.on_outage {
            file::IntrospectionOutage::Deny => IntrospectionOutage::Deny,
            file::IntrospectionOutage::Cached => IntrospectionOutage::Cached,
        },
        tls: tls?,
    })
}

fn endpoint(
    raw: &file::Introspection,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<IntrospectionEndpoint> {
    let mut is_valid = true;
    // Without discovery, the issuer is only a name.
    if let (Some(issuer), None) = (&raw.issuer, &raw.url)
        && let Err(message) = check_issuer(issuer)
    {
        context.error(&location.key("issuer"), message);
        is_valid = false;
    }
    match (&raw.url, &raw.issuer) {
        (Some(url), _) => {
            let url = parse_secure(url);
            if let Err(message) = url {
                context.error(&location.key("url"), message);
            }
            url.ok().map(IntrospectionEndpoint::Url)
        }
        (None, Some(_)) => is_valid.then_some(IntrospectionEndpoint::Discovered),
        (None, None) => {
            let message = "\"url\" or \"issuer\" is missing; the metadata of an issuer names the \
                           endpoint";
            context.error(location, message);
            None
        }
    }
}

fn client(raw: &file::Introspection) -> ClientFields<'_> {
    ClientFields {
        method: match raw.client_auth {
            file::IntrospectionAuth::ClientSecretBasic => ClientMethod::SecretBasic,
            file::IntrospectionAuth::ClientSecretPost => ClientMethod::SecretPost,
            file::IntrospectionAuth::PrivateKeyJwt => ClientMethod::PrivateKey,
        },
        secret: raw.client_secret.as_ref(),
        secret_file: raw.client_secret_file.as_deref(),
        key: raw.client_key.as_ref(),
    }
}
