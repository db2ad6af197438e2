//! Prefixes of user IDs: no two sources may produce the same user.

use super::identity::has_passwords;
use super::providers::users::prefix;
use crate::auth::reserved_prefixes::{ReservedPrefixes, SERVICE_PREFIX};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::introspection::Introspection;
use crate::config::file::provider::{Provider, Users};
use crate::config::file::storage::TrustedIssuer;

/// Maximum length of a prefix, in bytes.
const MAX_PREFIX: usize = 100;

/// A source of users with its prefix.
#[derive(Debug)]
struct Source<'a> {
    /// `None` for a source without issuer.
    issuer: Option<&'a str>,
    prefix: String,
    /// In messages.
    label: String,
    /// Where the prefix is written, or else the source; `None` where it is not checked.
    location: Option<ConfigPath>,
}

/// Checks the prefixes of all providers and introspection entries against each other and against those
/// of trusted issuers. `has_endpoints`: users can sign in at the gateway itself.
pub(super) fn check(file: &File, has_endpoints: bool, context: &mut ResolveContext<'_>) {
    let sources = sources(file, context);
    let has_passwords = has_endpoints && has_passwords(file, context);
    for (index, source) in sources.iter().enumerate() {
        let Some(location) = &source.location else {
            continue;
        };
        let of_others = |other: &Source<'_>| !is_same_issuer(source, other);
        let others = sources.iter().enumerate();
        let mut others = others.filter(|(other, _)| *other != index);
        let is_only_source = !has_passwords && !others.any(|(_, other)| of_others(other));
        check_prefix(source, is_only_source, location, context);
        let services = file.api_keys.as_ref().map(|_| services());
        let earlier = sources.iter().take(index).chain(&services);
        check_collisions(source, earlier, location, context);
    }
}

/// Checks the prefixes of trusted issuers against that of the services that own API keys.
pub(super) fn check_services(file: &File, context: &mut ResolveContext<'_>) {
    let all = ConfigPath::root().key("tokens").key("trusted_issuers");
    for (index, raw) in file.tokens.trusted_issuers.iter().enumerate() {
        let location = all.item(index).key("user_prefix");
        check_collisions(&trusted(raw), [&services()], &location, context);
    }
}

/// Returns the prefixes that are reserved toward a source without prefix, except for those of sources
/// with the same issuer.
pub(super) fn reserved(file: &File, issuer: Option<&str>) -> ReservedPrefixes {
    let providers = file.identity.providers.iter();
    let providers = providers.filter(|(_, raw)| raw.users == Users::External);
    let providers = providers.map(|(name, raw)| (raw.issuer.as_deref(), prefix(raw, name)));
    let trusted = file.tokens.trusted_issuers.iter();
    let trusted = trusted.map(|raw| (Some(raw.issuer.as_str()), raw.user_prefix.clone()));
    let introspection = file.tokens.introspection.iter();
    let introspection = introspection.map(|raw| (Some(user_issuer(raw)), of_introspection(raw)));
    let services = file
        .api_keys
        .iter()
        .map(|_| (None, SERVICE_PREFIX.to_owned()));
    let others = providers.chain(trusted).chain(introspection);
    let others = others.chain(services);
    let others = others.filter(|(other, _)| issuer.is_none() || *other != issuer);
    let prefixes: Vec<String> = others.map(|(_, prefix)| prefix).collect();
    ReservedPrefixes::new(prefixes.iter().map(String::as_str))
}

/// Returns the prefix of the users of an introspection entry.
pub(super) fn of_introspection(raw: &Introspection) -> String {
    raw.user_prefix
        .clone()
        .unwrap_or_else(|| format!("{}:", raw.name))
}

/// The issuer of the users of an introspection entry: its name, where it has none.
fn user_issuer(raw: &Introspection) -> &str {
    raw.issuer.as_deref().unwrap_or(&raw.name)
}

/// The sources with prefixes: trusted issuers, introspection entries, and providers, in the order of the
/// file.
fn sources<'a>(file: &'a File, context: &ResolveContext<'_>) -> Vec<Source<'a>> {
    let written = |location: ConfigPath, has_prefix: bool| match has_prefix {
        true => location.key("user_prefix"),
        false => location,
    };
    let trusted = file.tokens.trusted_issuers.iter().map(trusted);
    let at = ConfigPath::root().key("tokens").key("introspection");
    let introspection = file.tokens.introspection.iter().enumerate();
    let introspection = introspection.map(|(index, raw)| Source {
        issuer: Some(user_issuer(raw)),
        prefix: of_introspection(raw),
        label: format!("introspection entry \"{}\"", raw.name),
        location: Some(written(at.item(index), raw.user_prefix.is_some())),
    });
    let at = ConfigPath::root().key("identity").key("providers");
    let mut providers: Vec<(&String, &Provider)> = file.identity.providers.iter().collect();
    providers.sort_by_key(|(name, _)| context.source_map.key_position(&at.key(name)));
    let providers = providers
        .into_iter()
        .filter(|(_, raw)| raw.users == Users::External)
        .map(|(name, raw)| Source {
            issuer: raw.issuer.as_deref(),
            prefix: prefix(raw, name),
            label: format!("provider \"{name}\""),
            location: Some(written(at.key(name), raw.user_prefix.is_some())),
        });
    trusted.chain(introspection).chain(providers).collect()
}

fn trusted(raw: &TrustedIssuer) -> Source<'_> {
    Source {
        issuer: Some(&raw.issuer),
        prefix: raw.user_prefix.clone(),
        label: "a trusted issuer".to_owned(),
        location: None,
    }
}

/// The services that own API keys.
fn services() -> Source<'static> {
    Source {
        issuer: None,
        prefix: SERVICE_PREFIX.to_owned(),
        label: "services that own API keys".to_owned(),
        location: None,
    }
}

fn is_same_issuer(one: &Source<'_>, other: &Source<'_>) -> bool {
    one.issuer.is_some() && one.issuer == other.issuer
}

fn check_prefix(
    source: &Source<'_>,
    is_only_source: bool,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let prefix = &source.prefix;
    if prefix.is_empty() && !is_only_source {
        let message = "\"user_prefix\" may be empty only if there is no other source of users, \
                       without passwords and other issuers";
        context.error(location, message);
    }
    let is_visible = prefix.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_visible || prefix.len() > MAX_PREFIX {
        let message = "\"user_prefix\" must be at most 100 characters of visible ASCII";
        context.error(location, message);
    }
}

fn check_collisions<'a>(
    source: &Source<'_>,
    others: impl IntoIterator<Item = &'a Source<'a>>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    for other in others {
        let (one, two) = (source.prefix.as_str(), other.prefix.as_str());
        let collides = one.starts_with(two) || two.starts_with(one);
        if collides && !one.is_empty() && !two.is_empty() && !is_same_issuer(source, other) {
            let message = format!(
                "the user prefix collides with that of {}; neither may be the beginning of the \
                 other, because upstreams could not distinguish their users",
                other.label
            );
            context.error(location, message);
        }
    }
}
