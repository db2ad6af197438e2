//! Prefixes of user IDs: no two sources may produce the same user.

use super::users::prefix;
use crate::auth::reserved_prefixes::{ReservedPrefixes, SERVICE_PREFIX};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::provider as file;
use crate::config::file::storage::TrustedIssuer;
use crate::config::resolve::identity::has_passwords;

/// Maximum length of a prefix, in bytes.
const MAX_PREFIX: usize = 100;

/// A source of users with its prefix.
struct Source<'a> {
    /// `None` for a provider without issuer.
    issuer: Option<&'a str>,
    prefix: String,
    /// In messages.
    label: String,
}

/// Checks the prefixes of all providers against each other and against those of trusted issuers.
pub(super) fn check(
    file: &File,
    entries: &[(&String, &file::Provider)],
    context: &mut ResolveContext<'_>,
) {
    let all = ConfigPath::root().key("identity").key("providers");
    let mut others: Vec<Source<'_>> = file.tokens.trusted_issuers.iter().map(trusted).collect();
    let is_only_source = others.is_empty() && entries.len() == 1 && !has_passwords(file, context);
    others.extend(file.api_keys.is_some().then(services));
    for (name, raw) in entries {
        if raw.users == file::Users::Database {
            continue;
        }
        let location = all.key(name);
        let source = Source {
            issuer: raw.issuer.as_deref(),
            prefix: prefix(raw, name),
            label: format!("provider \"{name}\""),
        };
        let location = match raw.user_prefix {
            Some(_) => location.key("user_prefix"),
            None => location,
        };
        check_prefix(&source, is_only_source, &location, context);
        check_collisions(&source, &others, &location, context);
        others.push(source);
    }
}

/// Checks the prefixes of trusted issuers against that of the services that own API keys.
pub(in crate::config::resolve) fn check_services(file: &File, context: &mut ResolveContext<'_>) {
    let all = ConfigPath::root().key("tokens").key("trusted_issuers");
    for (index, raw) in file.tokens.trusted_issuers.iter().enumerate() {
        let location = all.item(index).key("user_prefix");
        check_collisions(&trusted(raw), &[services()], &location, context);
    }
}

/// Returns the prefixes that are reserved toward a source without prefix, except for those of sources
/// with the same issuer.
pub(in crate::config::resolve) fn reserved(file: &File, issuer: Option<&str>) -> ReservedPrefixes {
    let providers = file.identity.providers.iter();
    let providers = providers.filter(|(_, raw)| raw.users == file::Users::External);
    let providers = providers.map(|(name, raw)| (raw.issuer.as_deref(), prefix(raw, name)));
    let trusted = file.tokens.trusted_issuers.iter();
    let trusted = trusted.map(|raw| (Some(raw.issuer.as_str()), raw.user_prefix.clone()));
    let services = file
        .api_keys
        .iter()
        .map(|_| (None, SERVICE_PREFIX.to_owned()));
    let others = providers.chain(trusted).chain(services);
    let others = others.filter(|(other, _)| issuer.is_none() || *other != issuer);
    let prefixes: Vec<String> = others.map(|(_, prefix)| prefix).collect();
    ReservedPrefixes::new(prefixes.iter().map(String::as_str))
}

/// The services that own API keys.
fn services() -> Source<'static> {
    Source {
        issuer: None,
        prefix: SERVICE_PREFIX.to_owned(),
        label: "services that own API keys".to_owned(),
    }
}

fn trusted(raw: &TrustedIssuer) -> Source<'_> {
    Source {
        issuer: Some(&raw.issuer),
        prefix: raw.user_prefix.clone(),
        label: "a trusted issuer".to_owned(),
    }
}

fn check_prefix(
    source: &Source<'_>,
    is_only_source: bool,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let prefix = &source.prefix;
    if prefix.is_empty() && !is_only_source {
        let message = "\"user_prefix\" may be empty only if the provider is the only source of \
                       users, without passwords and trusted issuers";
        context.error(location, message);
    }
    let is_visible = prefix.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_visible || prefix.len() > MAX_PREFIX {
        let message = "\"user_prefix\" must be at most 100 characters of visible ASCII";
        context.error(location, message);
    }
}

fn check_collisions(
    source: &Source<'_>,
    others: &[Source<'_>],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    for other in others {
        let (one, two) = (source.prefix.as_str(), other.prefix.as_str());
        let is_same_issuer = source.issuer.is_some() && source.issuer == other.issuer;
        let collides = one.starts_with(two) || two.starts_with(one);
        if collides && !one.is_empty() && !two.is_empty() && !is_same_issuer {
            let message = format!(
                "the user prefix collides with that of {}; neither may be the beginning of the \
                 other, because upstreams could not distinguish their users",
                other.label
            );
            context.error(location, message);
        }
    }
}
