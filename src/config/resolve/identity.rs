use std::net::IpAddr;
use std::sync::Arc;

use super::{backend, user_prefixes};
use crate::auth::credential::FORM_COOKIES;
use crate::auth::session::{ClientBinding, CookieRules, OnSessionLimit, SameSite, SessionRules};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::File;
use crate::config::file::identity as file;
use crate::config::units::Size;
use crate::routing::host_of;
use crate::settings::provider::Provider;
use crate::settings::{HashCost, Identity, IdentitySource, PasswordRules, Rate};

/// Resolves the rules of sessions and their cookie.
pub(super) fn sessions(
    raw: &file::Sessions,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<SessionRules> {
    let ttl = context.require_positive(&location.key("ttl"), raw.ttl);
    let idle = location.key("idle_timeout");
    let idle_timeout = raw
        .idle_timeout
        .map(|time| context.require_positive(&idle, time));
    Some(SessionRules {
        ttl,
        idle_timeout,
        max_per_user: raw.max_per_user,
        on_limit: match raw.on_limit {
            file::OnLimit::EvictOldest => OnSessionLimit::EvictOldest,
            file::OnLimit::Reject => OnSessionLimit::Reject,
        },
        durable: raw.durable,
        cookie: cookie_rules(&raw.cookie, &location.key("cookie"), context),
        bind_user_agent: binding(raw.bind.user_agent),
        bind_ip: binding(raw.bind.ip),
    })
}

fn binding(raw: file::Binding) -> ClientBinding {
    match raw {
        file::Binding::Off => ClientBinding::Off,
        file::Binding::Warn => ClientBinding::Warn,
        file::Binding::Deny => ClientBinding::Deny,
    }
}

/// Resolves the cookie by the rules of RFC 6265bis.
fn cookie_rules(
    raw: &file::Cookie,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> CookieRules {
    let host_only = raw.secure && raw.domain.is_none() && raw.path == "/";
    let name = match &raw.name {
        Some(name) => {
            check_cookie_name(name, raw.secure, host_only, &location.key("name"), context);
            name.clone()
        }
        None if host_only => "__Host-portcullis".to_owned(),
        None => "portcullis".to_owned(),
    };
    if raw.same_site == file::SameSite::None && !raw.secure {
        let message = "\"same_site: none\" requires \"secure: true\"; browsers reject such a \
                       cookie otherwise";
        context.error(&location.key("same_site"), message);
    }
    let path = &raw.path;
    let is_valid = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    if !is_valid {
        let message = "\"path\" must start with a slash and be visible ASCII without \";\"";
        context.error(&location.key("path"), message);
    }
    CookieRules {
        name,
        secure: raw.secure,
        same_site: match raw.same_site {
            file::SameSite::Strict => SameSite::Strict,
            file::SameSite::Lax => SameSite::Lax,
            file::SameSite::None => SameSite::None,
        },
        domain: cookie_domain(raw.domain.as_deref(), &location.key("domain"), context),
        path: path.clone(),
    }
}

fn check_cookie_name(
    name: &str,
    secure: bool,
    host_only: bool,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        let message = "a cookie's name must consist of letters, digits and !#$%&'*+-.^_`|~";
        context.error(location, message);
    }
    if FORM_COOKIES
        .iter()
        .any(|form| name.eq_ignore_ascii_case(form))
    {
        let message = "a cookie of the gateway's own forms has this name";
        context.error(location, message);
    }
    // Browsers compare the prefixes case-insensitively.
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("__host-") && !host_only {
        let message = "a \"__Host-\" cookie requires \"secure: true\", no domain and the path \
                       \"/\"";
        context.error(location, message);
    }
    if lower.starts_with("__secure-") && !secure {
        context.error(location, "a \"__Secure-\" cookie requires \"secure: true\"");
    }
}

fn cookie_domain(
    raw: Option<&str>,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<String> {
    let raw = raw?;
    let name = raw.strip_prefix('.').unwrap_or(raw);
    let is_name = |host: &str| host.parse::<IpAddr>().is_err() && !host.starts_with('[');
    match host_of(name) {
        Ok(host) if is_name(&host) && !name.contains(':') => Some(host.into_owned()),
        _ => {
            context.error(
                location,
                "a cookie's domain must be a name such as example.com, without a port",
            );
            None
        }
    }
}

/// Whether users can sign in with a password. Beside providers, a source of them must be written.
pub(super) fn has_passwords(file: &File, context: &ResolveContext<'_>) -> bool {
    let builtin = ConfigPath::root().key("identity").key("builtin");
    file.identity.providers.is_empty()
        || file.identity.upstream.is_some()
        || context.source_map.contains(&builtin)
}

/// Resolves users and sign-in.
pub(super) fn identity(
    file: &File,
    providers: Option<Vec<Arc<Provider>>>,
    context: &mut ResolveContext<'_>,
) -> Option<Identity> {
    let location = ConfigPath::root().key("identity");
    let raw = &file.identity;
    let builtin = location.key("builtin");
    let upstream = location.key("upstream");
    let hash = builtin.key("password_hash");
    if raw.upstream.is_some() && context.source_map.contains(&builtin) {
        let message = "give \"builtin\" or \"upstream\", not both; users come from one source";
        context.error_at_key(&upstream, message);
    }
    let (attempts_per_address, failures_per_account) = sign_in_limits(raw, &location, context);
    let source = match &raw.upstream {
        Some(raw) => {
            let backend = backend::backend(raw, &upstream, context)?;
            IdentitySource::Backend(Arc::new(backend))
        }
        None if has_passwords(file, context) => IdentitySource::Builtin,
        None => IdentitySource::NoPasswords,
    };
    Some(Identity {
        registration_open: raw.builtin.registration == file::Registration::Open,
        passwords: PasswordRules {
            min_length: usize::try_from(raw.builtin.password_min_length).unwrap_or(128),
            cost: hash_cost(&raw.builtin.password_hash, &hash, context)?,
        },
        attempts_per_address,
        failures_per_account,
        source,
        providers: providers?,
        reserved_prefixes: user_prefixes::reserved(file, None),
    })
}

/// Resolves the limits on attempts by address and on failures by account.
fn sign_in_limits(
    raw: &file::Identity,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> (Rate, Rate) {
    let (of_source, source) = match &raw.upstream {
        Some(backend) => (&backend.sign_in_limits, location.key("upstream")),
        None => (&raw.builtin.sign_in_limits, location.key("builtin")),
    };
    let in_source = source.key("sign_in_limits");
    let (limits, at) = match &raw.sign_in_limits {
        Some(limits) => {
            if context.source_map.contains(&in_source) {
                let message = "\"identity.sign_in_limits\" is set as well; give them once";
                context.error_at_key(&in_source, message);
            }
            (limits, location.key("sign_in_limits"))
        }
        None => (of_source, in_source),
    };
    let mut rate = |rate: &file::Rate, name: &str| {
        let location = at.key(name);
        let window = context.require_positive(&location.key("window"), rate.window);
        super::limits::check_exact(rate.limit, window, &location.key("limit"), context);
        Rate {
            limit: rate.limit,
            window,
        }
    };
    (
        rate(&limits.attempts_per_address, "attempts_per_address"),
        rate(&limits.failures_per_account, "failures_per_account"),
    )
}

/// Minimum cost of a hash by OWASP's recommendation, as iterations and KiB of memory. All entries
/// are of equal strength.
const MIN_HASH_COSTS: [(u32, u64); 5] = [
    (5, 7 << 10),
    (4, 9 << 10),
    (3, 12 << 10),
    (2, 19 << 10),
    (1, 46 << 10),
];
/// Maximum memory of a hash, in KiB.
const MAX_HASH_MEMORY: u64 = 1 << 20;

/// Resolves the cost of password hashes.
fn hash_cost(
    raw: &file::PasswordHash,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<HashCost> {
    let (bytes, iterations) = (raw.memory.0, raw.iterations);
    let memory_location = location.key("memory");
    let memory = bytes >> 10;
    if !bytes.is_multiple_of(1 << 10) || memory > MAX_HASH_MEMORY {
        context.error(
            &memory_location,
            "\"memory\" must be a multiple of 1KiB and at most 1GiB",
        );
        return None;
    }
    let minimum = MIN_HASH_COSTS
        .iter()
        .find(|(passes, _)| iterations >= *passes)?;
    if memory < minimum.1 {
        let minimum = Size(minimum.1 << 10);
        let message = format!(
            "a hash with {} and \"iterations: {iterations}\" is too weak; with this number of \
             iterations, it needs at least {minimum}",
            raw.memory
        );
        context.error(&memory_location, message);
        return None;
    }
    Some(HashCost {
        memory: u32::try_from(memory).ok()?,
        iterations,
        parallelism: raw.parallelism,
    })
}
