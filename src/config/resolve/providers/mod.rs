//! Providers at which users sign in.

pub(super) mod addresses;
mod allow;
mod claims;
mod client;
mod requests;
pub(super) mod users;

use std::sync::Arc;

use super::client_authentication;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::provider as file;
use crate::settings::UpstreamTls;
use crate::settings::provider::{LogoutRules, Provider, ProviderKind, UserinfoUse};
use crate::telemetry::metrics::SignInMethod;

/// Maximum length of a provider's name.
const MAX_NAME: usize = 32;

/// What a provider refers to.
#[derive(Debug, Clone, Copy)]
struct References<'a> {
    file: &'a File,
    name: &'a str,
    kind: ProviderKind,
}

/// Resolves the providers, in the order of the file.
pub(super) fn providers(
    file: &File,
    has_api: bool,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<Arc<Provider>>> {
    let all = ConfigPath::root().key("identity").key("providers");
    if !file.identity.providers.is_empty() && !has_api {
        let message = "users sign in at a provider by the gateway's own endpoints, but \"api\" is \
                       null";
        context.error_at_key(&all, message);
    }
    let mut entries: Vec<_> = file.identity.providers.iter().collect();
    entries.sort_by_key(|(name, _)| context.source_map.key_position(&all.key(name)));
    let mut complete = Some(Vec::new());
    for (name, raw) in &entries {
        let location = all.key(name);
        check_name(name, &location, context);
        let references = References {
            file,
            name,
            kind: kind(raw.kind),
        };
        let provider = provider(raw, references, &location, context);
        complete = complete.zip(provider).map(|(mut all, provider)| {
            all.push(Arc::new(provider));
            all
        });
    }
    complete
}

fn check_name(name: &str, location: &ConfigPath, context: &mut ResolveContext<'_>) {
    let is_valid = (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !is_valid {
        let message = "a provider's name must consist of 1 to 32 characters of a-z, 0-9 and \"-\"";
        context.error_at_key(location, message);
    }
    if SignInMethod::is_label(name) {
        let message = format!(
            "a provider cannot be named \"{name}\", which sign-ins by password are counted as"
        );
        context.error_at_key(location, message);
    }
}

fn kind(raw: file::ProviderKind) -> ProviderKind {
    match raw {
        file::ProviderKind::Oidc => ProviderKind::Oidc,
        file::ProviderKind::OAuth2 => ProviderKind::OAuth2,
        file::ProviderKind::GitHub => ProviderKind::GitHub,
    }
}

/// Resolves one provider. Every part is checked before the first that is missing ends it.
fn provider(
    raw: &file::Provider,
    references: References<'_>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Provider> {
    let kind = references.kind;
    let title = title(raw, references.name, location, context);
    let issuer = addresses::issuer(raw, kind, location, context);
    let endpoints = addresses::endpoints(raw, kind, location, context);
    let client_id = client_authentication::client_id(&raw.client_id, location, context);
    let client_auth = client::authentication(raw, location, context);
    let scopes = requests::scopes(raw, kind, location, context);
    let authorization_params = requests::parameters(raw, location, context);
    requests::check_mode(raw, references, location, context);
    let extra_audiences = requests::audiences(raw, location, context);
    let algorithms = requests::algorithms(raw, location, context);
    let claims = claims::claims(raw, kind, location, context);
    let roles_map = claims::roles_map(raw, &claims, location, context);
    let userinfo = userinfo(raw, kind, location, context);
    let allow = allow::allow(raw, &claims, location, context);
    let users = users::storage(raw, references, location, context);
    let tokens = users::token_keeping(raw, references, location, context);
    let session_ttl = raw
        .session_ttl
        .map(|ttl| context.require_positive(&location.key("session_ttl"), ttl));
    let timeout = context.require_positive(&location.key("timeout"), raw.timeout);
    let tls = tls(raw, location, context);
    Some(Provider {
        name: references.name.into(),
        title,
        kind,
        issuer: issuer?,
        endpoints: endpoints?,
        client_id,
        client_auth: client_auth?,
        scopes,
        authorization_params,
        response_mode: requests::response_mode(raw.response_mode),
        par: requests::par(raw.par),
        extra_audiences,
        algorithms,
        claims,
        roles_map,
        userinfo,
        trust_email: raw.trust_email,
        allow,
        users,
        session_ttl,
        tokens,
        logout: LogoutRules {
            at_provider: raw.logout.at_provider,
            back_channel: raw.logout.back_channel,
        },
        timeout,
        tls: tls?,
    })
}

fn title(
    raw: &file::Provider,
    name: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> String {
    let Some(title) = &raw.title else {
        return name.to_owned();
    };
    if title.trim().is_empty() || title.chars().any(char::is_control) {
        let message = "\"title\" must be visible text in one line";
        context.error(&location.key("title"), message);
    }
    title.clone()
}

fn userinfo(
    raw: &file::Provider,
    kind: ProviderKind,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> UserinfoUse {
    match raw.userinfo {
        file::Userinfo::Auto => UserinfoUse::Auto,
        file::Userinfo::Always => UserinfoUse::Always,
        file::Userinfo::Never => {
            if kind != ProviderKind::Oidc {
                let message = "without ID tokens, only the userinfo endpoint identifies the user";
                context.error(&location.key("userinfo"), message);
            }
            UserinfoUse::Never
        }
    }
}

fn tls(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<UpstreamTls> {
    let location = location.key("tls");
    let tls = super::backend::tls(&raw.tls, &location, context)?;
    let is_plain = raw
        .issuer
        .as_ref()
        .is_some_and(|issuer| issuer.starts_with("http://"));
    if is_plain && tls != UpstreamTls::default() {
        let message = "\"tls\" is set, but the issuer is not https";
        context.error_at_key(&location, message);
    }
    Some(tls)
}
