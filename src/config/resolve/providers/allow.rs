//! Who may sign in at a provider.

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::provider as file;
use crate::routing::host_of;
use crate::settings::provider::{Allow, AllowLists, EmailDomain, ProviderClaims};

/// Resolves the conditions for users.
pub(super) fn allow(
    raw: &file::Provider,
    claims: &ProviderClaims,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Allow {
    let location = location.key("allow");
    let lists = match &raw.allow {
        file::Allow::Everyone(file::Anyone::Anyone) => return Allow::Anyone,
        file::Allow::Listed(lists) => lists,
    };
    let conditions = [
        ("emails", &lists.emails, !claims.email.is_empty()),
        ("domains", &lists.domains, !claims.email.is_empty()),
        ("groups", &lists.groups, !claims.roles.is_empty()),
        ("users", &lists.users, true),
    ];
    if conditions.iter().all(|(_, list, _)| list.is_empty()) {
        let message = "\"allow\" must have a condition; \"allow: anyone\" admits every user of \
                       the provider";
        context.error(&location, message);
    }
    for (key, list, has_claim) in conditions {
        check_list(list, &location.key(key), context);
        if !list.is_empty() && !has_claim {
            let claim = if key == "groups" { "roles" } else { "email" };
            let message = format!(
                "\"{key}\" requires \"claims.{claim}\", without which no user satisfies it"
            );
            context.error_at_key(&location.key(key), message);
        }
    }
    Allow::Listed(AllowLists {
        emails: emails(&lists.emails, &location.key("emails"), context),
        domains: domains(&lists.domains, &location.key("domains"), context),
        groups: lists.groups.clone(),
        users: lists.users.clone(),
    })
}

fn check_list(list: &[String], location: &ConfigPath, context: &mut ResolveContext<'_>) {
    for (index, text) in list.iter().enumerate() {
        if text.is_empty() {
            let message = "must not be empty; an empty text matches nothing";
            context.error(&location.item(index), message);
        } else if list.iter().take(index).any(|other| other == text) {
            context.error(&location.item(index), "is listed twice");
        }
    }
}

fn emails(list: &[String], location: &ConfigPath, context: &mut ResolveContext<'_>) -> Vec<String> {
    for (index, text) in list.iter().enumerate() {
        let is_email = text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && !domain.contains('@')
        }) && !text.contains(char::is_whitespace);
        if !is_email && !text.is_empty() {
            let message = "not an email address such as ada@example.com";
            context.error(&location.item(index), message);
        }
    }
    list.iter().map(|text| text.to_lowercase()).collect()
}

fn domains(
    list: &[String],
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Vec<EmailDomain> {
    let mut all = Vec::new();
    for (index, text) in list.iter().enumerate() {
        match parse_domain(text) {
            Some(domain) => all.push(domain),
            None if text.is_empty() => {}
            None => {
                let message = "not a domain such as example.com, or *.example.com for its \
                               subdomains";
                context.error(&location.item(index), message);
            }
        }
    }
    all
}

fn parse_domain(text: &str) -> Option<EmailDomain> {
    let (name, is_wildcard) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let is_plain = !name.contains(['*', '@', ':', '/', '[']) && !name.ends_with('.');
    let host = host_of(name).ok().filter(|_| is_plain)?.into_owned();
    Some(if is_wildcard {
        EmailDomain::Subdomains(host)
    } else {
        EmailDomain::Exact(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_names_or_wildcards() {
        let exact = |name: &str| Some(EmailDomain::Exact(name.to_owned()));
        let below = |name: &str| Some(EmailDomain::Subdomains(name.to_owned()));
        for (text, expected) in [
            ("example.com", exact("example.com")),
            ("Example.COM", exact("example.com")),
            ("*.example.com", below("example.com")),
            ("*", None),
            ("*.", None),
            ("*.*.example.com", None),
            ("a@example.com", None),
            ("@example.com", None),
            ("example.com.", None),
            ("example.com:25", None),
            ("https://example.com", None),
            ("ex ample.com", None),
            ("", None),
        ] {
            assert_eq!(parse_domain(text), expected, "{text}");
        }
    }
}
