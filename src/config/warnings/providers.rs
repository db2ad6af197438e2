//! Warnings about providers.

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::provider as file;
use crate::settings::Settings;
use crate::settings::provider::{
    Allow, AllowLists, Issuer, Provider, ProviderKind, RecheckOutage, UserStorage,
};

/// Issuers at which anyone can create an account.
const PUBLIC_ISSUERS: [&str; 5] = [
    "https://accounts.google.com",
    "https://appleid.apple.com",
    "https://gitlab.com",
    "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
    "https://www.facebook.com",
];

/// Checks the providers of a valid file for suspicious settings.
pub(super) fn check(file: &File, settings: &Settings, context: &mut ResolveContext<'_>) {
    let all = ConfigPath::root().key("identity").key("providers");
    let providers = &settings.reloadable.identity.providers;
    for (index, provider) in providers.iter().enumerate() {
        let Some(raw) = file.identity.providers.get(&*provider.name) else {
            continue;
        };
        let location = all.key(&provider.name);
        let mut earlier = providers.iter().take(index);
        if earlier.any(|other| other.title == provider.title) {
            let message = "another provider has the same title, so the sign-in page has two equal \
                           buttons";
            context.warn(&location.key("title"), message);
        }
        check_requests(raw, provider, &location, context);
        check_allow(raw, provider, &location, context);
        check_emails(provider, &location, context);
        check_lifetimes(provider, settings, &location, context);
    }
    let mut listeners = settings.reloadable.listeners.iter();
    let is_key_used = providers.iter().any(|provider| provider.tokens.keep)
        || listeners.any(|listener| listener.acme.is_some());
    if settings.reloadable.encryption.is_some() && !is_key_used {
        let message =
            "no effect, because no provider has \"tokens.keep\", and no listener \"acme\"";
        context.warn(&ConfigPath::root().key("encryption"), message);
    }
}

fn check_requests(
    raw: &file::Provider,
    provider: &Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let has_scope = |name: &str| provider.scopes.iter().any(|scope| scope == name);
    if has_scope("offline_access") && !provider.tokens.keep {
        let message = "\"offline_access\" requests a refresh token, which is dropped without \
                       \"tokens.keep\"";
        context.warn(&location.key("scopes"), message);
    }
    let has_param = |name: &str, value: &str| {
        let mut params = provider.authorization_params.iter();
        params.any(|(key, text)| key == name && text == value)
    };
    let params = location.key("authorization_params");
    if has_param("prompt", "none") {
        let message = "with \"none\", only users who are signed in at the provider already can \
                       sign in";
        context.warn(&params.key("prompt"), message);
    }
    if raw.issuer.as_deref() == Some("https://accounts.google.com")
        && provider.tokens.recheck.is_some()
        && !has_param("access_type", "offline")
    {
        let message = "Google issues the refresh token that this needs only with \"access_type: \
                       offline\" in \"authorization_params\"";
        context.warn(&location.key("tokens").key("recheck"), message);
    }
    if provider.kind == ProviderKind::GitHub
        && !provider.claims.roles.is_empty()
        && !["read:org", "write:org", "admin:org"]
            .into_iter()
            .any(has_scope)
    {
        let message = "GitHub gives organizations and teams only with the scope \"read:org\"; \
                       without it, set \"claims.roles\" to null";
        context.warn(&location.key("scopes"), message);
    }
    if let Some(Issuer::Tenants { tenants, .. }) = &provider.issuer
        && tenants.len() > 1
        && provider.endpoints.discovery.is_none()
    {
        let message = "without \"endpoints.discovery\", the document of the first tenant is used, \
                       whose endpoints may not serve the others";
        context.warn(&location.key("tenants"), message);
    }
}

fn check_allow(
    raw: &file::Provider,
    provider: &Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let at = location.key("allow");
    let lists = match &provider.allow {
        Allow::Anyone => {
            let is_github =
                provider.kind == ProviderKind::GitHub && raw.endpoints.authorization.is_none();
            let issuer = provider.exact_issuer().unwrap_or_default();
            if is_github || PUBLIC_ISSUERS.contains(&issuer.trim_end_matches('/')) {
                let message = "anyone can create an account at this provider, and then sign in \
                               here";
                context.warn(&at, message);
            }
            return;
        }
        Allow::Listed(lists) => lists,
    };
    if !needs_email(lists) || provider.kind != ProviderKind::Oidc {
        return;
    }
    let reads_email = provider.claims.email.iter().any(|name| name == "email");
    if reads_email && !provider.scopes.iter().any(|scope| scope == "email") {
        let message = "providers give the claim \"email\" only with the scope \"email\"";
        context.warn(&location.key("scopes"), message);
    }
    let is_entra = raw
        .issuer
        .as_deref()
        .is_some_and(|issuer| issuer.starts_with("https://login.microsoftonline.com/"));
    let is_default = provider.claims.email_verified == ["email_verified"];
    if is_entra && is_default && !provider.trust_email {
        let message = "Entra ID does not say whether an email is verified, so no user satisfies \
                       \"emails\" and \"domains\"; allow \"groups\" or \"users\", or set \
                       \"claims.email_verified\" to an optional claim such as xms_edov";
        context.warn(&at, message);
    }
}

fn needs_email(lists: &AllowLists) -> bool {
    !lists.emails.is_empty() || !lists.domains.is_empty()
}

fn check_emails(provider: &Provider, location: &ConfigPath, context: &mut ResolveContext<'_>) {
    let joins = matches!(
        provider.users,
        UserStorage::Database {
            link_by_email: true,
            ..
        }
    );
    if provider.trust_email && joins {
        let message = "with \"link_by_email\", anyone who can enter any email at the provider can \
                       join the account that has it";
        context.warn(&location.key("trust_email"), message);
    }
}

fn check_lifetimes(
    provider: &Provider,
    settings: &Settings,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let ttl = settings.reloadable.sessions.ttl;
    if provider.session_ttl.is_some_and(|own| own > ttl) {
        let message = "no effect, because \"sessions.ttl\" is shorter and ends every session first";
        context.warn(&location.key("session_ttl"), message);
    }
    let tokens = &provider.tokens;
    if matches!(tokens.on_outage, RecheckOutage::For(_)) && tokens.recheck.is_none() {
        let message = "no effect without \"recheck\"";
        context.warn(&location.key("tokens").key("on_outage"), message);
    }
}
