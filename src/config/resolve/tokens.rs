use std::sync::Arc;

use super::providers::addresses::{check_issuer, parse_secure};
use super::{introspection, user_prefixes};
use crate::auth::reserved_prefixes::ReservedPrefixes;
use crate::auth::token::{Algorithm, ClaimNames, Key, KeySource, Tokens, TrustedIssuer};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::{File, storage as file};
use crate::config::keys::{self, WrittenKey};

/// What the gateway signs tokens for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signing {
    /// Sessions of users who sign in at providers, maybe among others.
    Providers,
    /// Sessions of its own endpoints.
    Endpoints,
    Nothing,
}

/// Resolves keys and issuers.
pub(super) fn tokens(
    file: &File,
    signs: Signing,
    context: &mut ResolveContext<'_>,
) -> Option<Arc<Tokens>> {
    let raw = &file.tokens;
    let location = ConfigPath::root().key("tokens");
    let signing = match &raw.signing {
        Some(key) => signing_key(key, &location.key("signing"), context).map(Some),
        None => check_unsigned(raw, signs, &location, context),
    };
    let mut others = Some(Vec::new());
    for (index, previous) in raw.verify_also.iter().enumerate() {
        let key = key(previous, &location.key("verify_also").item(index), context);
        others = others.zip(key).map(|(mut others, key)| {
            others.push(key);
            others
        });
    }
    let trusted = trusted_issuers(file, &location.key("trusted_issuers"), context);
    let key = |name| location.key(name);
    let issuer = context.require_non_empty(&key("issuer"), &raw.issuer);
    let audience = context.require_non_empty(&key("audience"), &raw.audience);
    let access_ttl = context.require_positive(&key("access_ttl"), raw.access_ttl);
    let refresh_ttl = context.require_positive(&key("refresh_ttl"), raw.refresh_ttl);
    let signing = signing?;
    let verifying = signing.iter().cloned().chain(others?).collect();
    Some(Arc::new(Tokens {
        issuer,
        audience,
        access_ttl,
        refresh_ttl,
        refresh_grace: raw.refresh_grace.0,
        leeway: raw.leeway.0,
        signing,
        verifying,
        trusted: trusted?,
    }))
}

/// Accepts a missing signing key only if nothing is ever signed.
#[expect(clippy::option_option, reason = "an error, or validly no key")]
fn check_unsigned(
    raw: &file::Tokens,
    signs: Signing,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Option<Key>> {
    let has_no_other = raw.trusted_issuers.is_empty() && raw.introspection.is_empty();
    let message = match (signs, has_no_other) {
        (Signing::Providers, _) => {
            "\"signing\" is missing; it is the key that signs the tokens of users who sign in at \
             providers"
        }
        (Signing::Endpoints, true) => {
            "\"signing\" is missing; it is the key that signs the gateway's own tokens"
        }
        (Signing::Endpoints, false) => {
            "\"signing\" is missing; the gateway's own endpoints need it to sign users in; set it, \
             or set \"api\" to null"
        }
        (Signing::Nothing, true) => {
            "\"signing\", \"trusted_issuers\" or \"introspection\" is missing; no token would be \
             accepted"
        }
        (Signing::Nothing, false) => return Some(None),
    };
    context.error(location, message);
    None
}

fn signing_key(
    raw: &file::SigningKey,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Key> {
    let key = key(raw, location, context)?;
    if !key.can_sign() {
        context.error(
            location,
            "signing requires a private key, but this is a public key",
        );
        return None;
    }
    Some(key)
}

fn key(
    raw: &file::SigningKey,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Key> {
    let takes_secret = raw.algorithm == file::Algorithm::HS256;
    let (expected, unexpected) = if takes_secret {
        ("secret", "key")
    } else {
        ("key", "secret")
    };
    let given = |name: &str| match name {
        "secret" => (raw.secret.as_ref(), raw.secret_file.as_deref()),
        _ => (raw.key.as_ref(), raw.key_file.as_deref()),
    };
    let name = algorithm(raw.algorithm);
    if given(unexpected) != (None, None) {
        let present = written_key(unexpected, given(unexpected).0.is_none());
        context.error_at_key(
            &location.key(&present),
            format!("{name} takes a {expected}, not a {unexpected}"),
        );
        return None;
    }
    let (inline, file) = given(expected);
    if inline.is_none() && file.is_none() {
        context.error(
            location,
            format!("{name} needs \"{expected}\" or \"{expected}_file\""),
        );
        return None;
    }
    let written = WrittenKey {
        name: expected,
        inline,
        file,
    };
    let read = keys::read_key(written, raw.id.clone(), name, location, context);
    read.map(|(key, _)| key)
}

/// The key under which a secret is written, itself or as the name of a file.
fn written_key(name: &str, is_file: bool) -> String {
    let suffix = if is_file { "_file" } else { "" };
    format!("{name}{suffix}")
}

fn algorithm(raw: file::Algorithm) -> Algorithm {
    match raw {
        file::Algorithm::HS256 => Algorithm::HS256,
        file::Algorithm::RS256 => Algorithm::RS256,
        file::Algorithm::ES256 => Algorithm::ES256,
        file::Algorithm::EdDSA => Algorithm::EdDSA,
    }
}

fn trusted_issuers(
    file: &File,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<Arc<TrustedIssuer>>> {
    let mut complete = Some(Vec::new());
    let raw = &file.tokens;
    let mut names: Vec<(&str, ConfigPath)> = Vec::new();
    for (index, one) in raw.trusted_issuers.iter().enumerate() {
        let location = location.item(index);
        let at = location.key("issuer");
        if one.issuer == raw.issuer {
            context.error(&at, "\"tokens.issuer\" already has this name");
        } else if let Some((_, first)) = names.iter().find(|(name, _)| *name == one.issuer) {
            let first = context.first_position(first, &at);
            let message = format!("another issuer already has this name, at {first}");
            context.error(&at, message);
        }
        names.push((&one.issuer, at));
        let issuer = trusted_issuer(one, file, &location, context);
        complete = complete.zip(issuer).map(|(mut all, issuer)| {
            all.push(Arc::new(issuer));
            all
        });
    }
    complete
}

fn trusted_issuer(
    raw: &file::TrustedIssuer,
    file: &File,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<TrustedIssuer> {
    let issuer = context.require_non_empty(&location.key("issuer"), &raw.issuer);
    let audience = context.require_non_empty(&location.key("audience"), &raw.audience);
    let user = context.require_non_empty(&location.key("claims").key("user"), &raw.claims.user);
    let algorithms: Vec<Algorithm> = raw.algorithms.iter().copied().map(algorithm).collect();
    let entry = raw.introspection.as_ref().and_then(|name| {
        let location = location.key("introspection");
        introspection::index_of(name, file, &location, context)
    });
    let keys = key_source(raw, &algorithms, location, context)?;
    Some(TrustedIssuer {
        issuer,
        keys,
        audience,
        algorithms,
        claims: ClaimNames {
            user,
            email: raw.claims.email.clone(),
            roles: raw.claims.roles.clone(),
            scopes: raw.claims.scopes.clone(),
        },
        user_prefix: raw.user_prefix.clone(),
        reserved_prefixes: match raw.user_prefix.is_empty() {
            true => user_prefixes::reserved(file, Some(&raw.issuer)),
            false => ReservedPrefixes::default(),
        },
        require_session: raw.require_session,
        introspection: entry,
    })
}

fn key_source(
    raw: &file::TrustedIssuer,
    algorithms: &[Algorithm],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<KeySource> {
    match (&raw.jwks_url, &raw.jwks_file) {
        (Some(url), None) => {
            check_fetched(algorithms, location, context);
            let url = parse_secure(url);
            if let Err(message) = url {
                context.error(&location.key("jwks_url"), message);
            }
            url.ok().map(KeySource::Url)
        }
        (None, Some(path)) => {
            let location = location.key("jwks_file");
            let bytes = context.read_file(&location, path)?;
            match crate::auth::token::parse_jwks(&bytes, algorithms) {
                Ok(keys) => Some(KeySource::File(keys)),
                Err(error) => {
                    let path = context.display_path(&location, path);
                    context.error(
                        &location,
                        format!("{path}: {}", keys::describe_error(&error)),
                    );
                    None
                }
            }
        }
        (None, None) => {
            check_fetched(algorithms, location, context);
            if let Err(message) = check_issuer(&raw.issuer) {
                let message = format!(
                    "without \"jwks_url\" and \"jwks_file\", the keys are discovered by the \
                     issuer: {message}"
                );
                context.error(&location.key("issuer"), message);
                return None;
            }
            Some(KeySource::Discovered)
        }
        (Some(_), Some(_)) => {
            let message = "give \"jwks_url\" or \"jwks_file\", not both";
            context.error_at_key(&location.key("jwks_file"), message);
            None
        }
    }
}

fn check_fetched(
    algorithms: &[Algorithm],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if algorithms.contains(&Algorithm::HS256) {
        let message = "a fetched key set is public, but an HS256 key must be secret";
        context.error(&location.key("algorithms"), message);
    }
}
