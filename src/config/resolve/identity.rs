use std::net::IpAddr;
use std::sync::Arc;

use super::{backend, origins};
use crate::auth::credential::FORM_COOKIES;
use crate::auth::session::{ClientBinding, CookieRules, OnSessionLimit, SameSite, SessionRules};
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::identity as file;
use crate::config::units::Size;
use crate::routing::{PathPattern, host_of};
use crate::settings::{Api, HashCost, Identity, PasswordRules, Rate};

/// The rules of sessions and their cookie.
pub(super) fn sessions(
    written: &file::Sessions,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<SessionRules> {
    let ttl = review.require_positive(&place.key("ttl"), written.ttl);
    let idle = place.key("idle_timeout");
    let idle_timeout = written
        .idle_timeout
        .map(|time| review.require_positive(&idle, time));
    Some(SessionRules {
        ttl,
        idle_timeout,
        max_per_user: written.max_per_user,
        on_limit: match written.on_limit {
            file::OnLimit::EvictOldest => OnSessionLimit::EvictOldest,
            file::OnLimit::Reject => OnSessionLimit::Reject,
        },
        durable: written.durable,
        cookie: cookie_rules(&written.cookie, &place.key("cookie"), review),
        bind_user_agent: binding(written.bind.user_agent),
        bind_ip: binding(written.bind.ip),
    })
}

fn binding(written: file::Binding) -> ClientBinding {
    match written {
        file::Binding::Off => ClientBinding::Off,
        file::Binding::Warn => ClientBinding::Warn,
        file::Binding::Deny => ClientBinding::Deny,
    }
}

/// The cookie, by the rules of RFC 6265bis.
fn cookie_rules(
    written: &file::Cookie,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> CookieRules {
    let host_only = written.secure && written.domain.is_none() && written.path == "/";
    let name = match &written.name {
        Some(name) => {
            check_cookie_name(name, written.secure, host_only, &place.key("name"), review);
            name.clone()
        }
        None if host_only => "__Host-portcullis".to_owned(),
        None => "portcullis".to_owned(),
    };
    if written.same_site == file::SameSite::None && !written.secure {
        let message = "\"same_site: none\" needs \"secure: true\"; browsers drop such a cookie";
        review.error(&place.key("same_site"), message);
    }
    let path = &written.path;
    let sound = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    if !sound {
        let message = "\"path\" must begin with a slash, and be visible ASCII without \";\"";
        review.error(&place.key("path"), message);
    }
    CookieRules {
        name,
        secure: written.secure,
        same_site: match written.same_site {
            file::SameSite::Strict => SameSite::Strict,
            file::SameSite::Lax => SameSite::Lax,
            file::SameSite::None => SameSite::None,
        },
        domain: cookie_domain(written.domain.as_deref(), &place.key("domain"), review),
        path: path.clone(),
    }
}

fn check_cookie_name(
    name: &str,
    secure: bool,
    host_only: bool,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        let message = "a cookie's name has letters, digits and !#$%&'*+-.^_`|~ only";
        review.error(place, message);
    }
    if FORM_COOKIES
        .iter()
        .any(|form| name.eq_ignore_ascii_case(form))
    {
        let message = "the gateway's own forms have a cookie of that name";
        review.error(place, message);
    }
    // Browsers compare the prefixes without case.
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("__host-") && !host_only {
        let message = "a \"__Host-\" cookie needs \"secure: true\", no domain and the path \"/\"";
        review.error(place, message);
    }
    if lower.starts_with("__secure-") && !secure {
        review.error(place, "a \"__Secure-\" cookie needs \"secure: true\"");
    }
}

fn cookie_domain(
    written: Option<&str>,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<String> {
    let written = written?;
    let name = written.strip_prefix('.').unwrap_or(written);
    let is_name = |host: &str| host.parse::<IpAddr>().is_err() && !host.starts_with('[');
    match host_of(name) {
        Ok(host) if is_name(&host) && !name.contains(':') => Some(host.into_owned()),
        _ => {
            review.error(
                place,
                "a cookie's domain is a name like example.com, without port",
            );
            None
        }
    }
}

/// How people sign in.
pub(super) fn identity(
    written: &file::Identity,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Identity> {
    let builtin = place.key("builtin");
    let upstream = place.key("upstream");
    let hash = builtin.key("password_hash");
    let (limits, at) = match &written.upstream {
        Some(backend) => (&backend.sign_in_limits, &upstream),
        None => (&written.builtin.sign_in_limits, &builtin),
    };
    if written.upstream.is_some() && review.source_map.contains(&builtin) {
        let message = "give \"builtin\" or \"upstream\", not both: there is one place for users";
        review.error_at_key(&upstream, message);
    }
    let at = at.key("sign_in_limits");
    let mut rate = |rate: &file::Rate, name: &str| {
        let place = at.key(name);
        let window = review.require_positive(&place.key("window"), rate.window);
        super::limits::check_exact(rate.limit, window, &place.key("limit"), review);
        Rate {
            limit: rate.limit,
            window,
        }
    };
    let attempts_per_address = rate(&limits.attempts_per_address, "attempts_per_address");
    let failures_per_account = rate(&limits.failures_per_account, "failures_per_account");
    let backend = match &written.upstream {
        Some(written) => Some(Arc::new(backend::backend(written, &upstream, review)?)),
        None => None,
    };
    Some(Identity {
        registration_open: written.builtin.registration == file::Registration::Open,
        passwords: PasswordRules {
            min_length: usize::try_from(written.builtin.password_min_length).unwrap_or(128),
            cost: hash_cost(&written.builtin.password_hash, &hash, review)?,
        },
        attempts_per_address,
        failures_per_account,
        backend,
    })
}

/// The least that a hash may cost, by OWASP's list: with so many iterations at least so many KiB.
/// Each is as strong as the others.
const MIN_HASH_COSTS: [(u32, u64); 5] = [
    (5, 7 << 10),
    (4, 9 << 10),
    (3, 12 << 10),
    (2, 19 << 10),
    (1, 46 << 10),
];
/// KiB.
const MAX_HASH_MEMORY: u64 = 1 << 20;

/// What a password's hash costs.
fn hash_cost(
    written: &file::PasswordHash,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<HashCost> {
    let (bytes, iterations) = (written.memory.0, written.iterations);
    let at = place.key("memory");
    let memory = bytes >> 10;
    if !bytes.is_multiple_of(1 << 10) || memory > MAX_HASH_MEMORY {
        review.error(&at, "\"memory\" must be whole KiB, and at most 1GiB");
        return None;
    }
    let least = MIN_HASH_COSTS
        .iter()
        .find(|(passes, _)| iterations >= *passes)?;
    if memory < least.1 {
        let least = Size(least.1 << 10);
        let message = format!(
            "a hash with {} and \"iterations: {iterations}\" is guessed too cheaply; with so many \
             iterations it needs at least {least}",
            written.memory
        );
        review.error(&at, message);
        return None;
    }
    Some(HashCost {
        memory: u32::try_from(memory).ok()?,
        iterations,
        parallelism: written.parallelism,
    })
}

/// The gateway's own endpoints; validly none for null.
#[expect(clippy::option_option, reason = "a mistake, or validly no endpoints")]
pub(super) fn api(
    written: Option<&file::Api>,
    users: bool,
    place: &ConfigPath,
    review: &mut ResolveContext<'_>,
) -> Option<Option<Api>> {
    let Some(written) = written else {
        return Some(None);
    };
    let prefix = written.prefix.trim_end_matches('/');
    let at = place.key("prefix");
    if prefix.is_empty() {
        let message =
            "\"prefix\" must begin with a slash and have at least one segment, like /api/v1";
        review.error(&at, message);
    } else if let Err(fault) = PathPattern::prefix(prefix) {
        review.error(&at, fault.to_string());
    } else if prefix.contains('%') {
        review.error(&at, "\"prefix\" must be written without percent signs");
    }
    let place = place.key("allowed_origins");
    let mut allowed_origins = Vec::new();
    for (index, text) in written.allowed_origins.iter().enumerate() {
        allowed_origins.extend(origins::parse_origin(text, &place.item(index), review));
    }
    Some(Some(Api {
        prefix: prefix.to_owned(),
        allowed_origins,
        users,
    }))
}
