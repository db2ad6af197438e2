//! Issuer and addresses of a provider.

use url::{Host, Url};

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::provider as file;
use crate::settings::provider::{Endpoints, Issuer, ProviderKind, TENANT_ID};

const GITHUB_AUTHORIZATION: &str = "https://github.com/login/oauth/authorize";
const GITHUB_TOKEN: &str = "https://github.com/login/oauth/access_token";
const GITHUB_USER: &str = "https://api.github.com/user";

/// Resolves the issuer; `Some(None)` without one, `None` on an error.
#[expect(clippy::option_option, reason = "an error, or validly no issuer")]
pub(super) fn issuer(
    raw: &file::Provider,
    kind: ProviderKind,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Option<Issuer>> {
    let at = location.key("issuer");
    let tenants = location.key("tenants");
    let Some(text) = &raw.issuer else {
        if kind == ProviderKind::Oidc {
            let message = "\"issuer\" is missing; it is the provider's address as its discovery \
                           document gives it in \"issuer\"";
            context.error(location, message);
            return None;
        }
        check_no_tenants(raw, &tenants, context);
        return Some(None);
    };
    if let Err(message) = check_issuer(text) {
        context.error(&at, message);
        return None;
    }
    match text.matches(TENANT_ID).count() {
        0 => {
            check_no_tenants(raw, &tenants, context);
            Some(Some(Issuer::Exact(text.clone())))
        }
        1 => {
            let tenants = tenant_ids(raw, location, context)?;
            Some(Some(Issuer::Tenants {
                template: text.clone(),
                tenants,
            }))
        }
        _ => {
            context.error(&at, "\"{tenantid}\" may be in the issuer only once");
            None
        }
    }
}

/// Checks an issuer, which is compared byte for byte (OpenID Connect Core, section 2).
pub(in crate::config::resolve) fn check_issuer(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "not an issuer such as https://id.example.com: an https URL without user, \
                        query and fragment";
    let url = parse_secure(text)?;
    if url.query().is_some() || url.fragment().is_some() || text.contains(char::is_whitespace) {
        return Err(FORM);
    }
    if text.ends_with("/.well-known/openid-configuration") {
        return Err(
            "this is the address of the discovery document; the issuer is the value of its member \
             \"issuer\"",
        );
    }
    Ok(())
}

fn check_no_tenants(raw: &file::Provider, location: &ConfigPath, context: &mut ResolveContext<'_>) {
    if !raw.tenants.is_empty() {
        let message = "\"tenants\" requires an issuer with \"{tenantid}\" in it";
        context.error_at_key(location, message);
    }
}

fn tenant_ids(
    raw: &file::Provider,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<String>> {
    if raw.tenants.is_empty() {
        let message = "an issuer with \"{tenantid}\" requires \"tenants\", the IDs of the accepted \
                       tenants";
        context.error(&location.key("issuer"), message);
        return None;
    }
    let location = location.key("tenants");
    let mut all: Vec<String> = Vec::new();
    for (index, text) in raw.tenants.iter().enumerate() {
        let tenant = text.to_ascii_lowercase();
        if !is_guid(&tenant) {
            let message = "not the ID of a tenant such as 72f988bf-86f1-41af-91ab-2d7cd011db47";
            context.error(&location.item(index), message);
        } else if all.contains(&tenant) {
            context.error(&location.item(index), "duplicate tenant");
        }
        all.push(tenant);
    }
    Some(all)
}

fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths = groups.iter().map(|group| group.len());
    lengths.eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Resolves the addresses that replace those of the discovery document.
pub(super) fn endpoints(
    raw: &file::Provider,
    kind: ProviderKind,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Endpoints> {
    let at = location.key("endpoints");
    let written = &raw.endpoints;
    let is_issuer_remote = raw
        .issuer
        .as_deref()
        .is_some_and(|issuer| Url::parse(issuer).is_ok_and(|url| !is_loopback(&url)));
    let mut is_valid = true;
    let mut address = |name: &str, text: Option<&str>| {
        let result = parse_endpoint(text?, is_issuer_remote);
        if let Err(message) = result {
            context.error(&at.key(name), message);
            is_valid = false;
        }
        result.ok()
    };
    let by_default = |text: &Option<String>, github: &'static str| match (text, kind) {
        (None, ProviderKind::GitHub) => Some(github.to_owned()),
        _ => text.clone(),
    };
    let authorization = by_default(&written.authorization, GITHUB_AUTHORIZATION);
    let token = by_default(&written.token, GITHUB_TOKEN);
    let userinfo = by_default(&written.userinfo, GITHUB_USER);
    let endpoints = Endpoints {
        discovery: address("discovery", written.discovery.as_deref()),
        authorization: address("authorization", authorization.as_deref()),
        token: address("token", token.as_deref()),
        userinfo: address("userinfo", userinfo.as_deref()),
        jwks: address("jwks", written.jwks.as_deref()),
        end_session: address("end_session", written.end_session.as_deref()),
        par: address("par", written.par.as_deref()),
        revocation: address("revocation", written.revocation.as_deref()),
    };
    if kind != ProviderKind::Oidc {
        check_without_discovery(written, kind, &at, location, context);
    }
    is_valid.then_some(endpoints)
}

/// Checks the addresses of a provider that has no discovery document.
fn check_without_discovery(
    written: &file::Endpoints,
    kind: ProviderKind,
    at: &ConfigPath,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) {
    if written.discovery.is_some() {
        let message = "only kind \"oidc\" has a discovery document";
        context.error_at_key(&at.key("discovery"), message);
    }
    if kind != ProviderKind::OAuth2 {
        return;
    }
    for (name, text) in [
        ("authorization", &written.authorization),
        ("token", &written.token),
        ("userinfo", &written.userinfo),
    ] {
        if text.is_none() {
            let at = if context.source_map.contains(at) {
                at
            } else {
                location
            };
            let message = format!(
                "\"endpoints.{name}\" is missing; kind \"oauth2\" has no discovery document"
            );
            context.error_at_key(at, message);
        }
    }
}

fn parse_endpoint(text: &str, is_issuer_remote: bool) -> Result<Url, &'static str> {
    let url = parse_secure(text)?;
    if url.fragment().is_some() {
        return Err("an address must not have a fragment");
    }
    if url.scheme() == "http" && is_issuer_remote {
        return Err("must be an https:// URL, because the issuer is not on loopback");
    }
    Ok(url)
}

/// Parses an https URL, or an http URL on loopback, without user and password. It may contain a
/// password by mistake, so it is not shown.
pub(crate) fn parse_secure(text: &str) -> Result<Url, &'static str> {
    const MESSAGE: &str = "must be an https:// URL, or http:// with a loopback address";
    let url = Url::parse(text).map_err(|_| MESSAGE)?;
    if !url.has_host() || url.port() == Some(0) {
        return Err(MESSAGE);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user or a password");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(MESSAGE),
    }
}

/// Whether a URL is on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_secure_urls() {
        for (text, expected) in [
            ("https://id.example.com", true),
            ("https://id.example.com/", true),
            ("https://id.example.com/realms/a", true),
            ("https://login.microsoftonline.com/{tenantid}/v2.0", true),
            ("http://127.0.0.1:9000", true),
            ("http://localhost:9000/realms/a", true),
            ("http://[::1]:9000", true),
            ("http://id.example.com", false),
            ("http://localhost.example.com", false),
            ("https://id.example.com?a=b", false),
            ("https://id.example.com#a", false),
            ("https://user@id.example.com", false),
            ("https://id.example.com/ ", false),
            (
                "https://id.example.com/.well-known/openid-configuration",
                false,
            ),
            ("id.example.com", false),
            ("ftp://id.example.com", false),
            ("", false),
        ] {
            assert_eq!(check_issuer(text).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn endpoints_are_as_secure_as_the_issuer() {
        for (text, of_remote, of_loopback) in [
            ("https://id.example.com/token?a=b", true, true),
            ("http://127.0.0.1:9000/token", false, true),
            ("http://id.example.com/token", false, false),
            ("https://id.example.com/token#a", false, false),
        ] {
            assert_eq!(parse_endpoint(text, true).is_ok(), of_remote, "{text}");
            assert_eq!(parse_endpoint(text, false).is_ok(), of_loopback, "{text}");
        }
    }

    #[test]
    fn tenants_are_guids() {
        for (text, expected) in [
            ("72f988bf-86f1-41af-91ab-2d7cd011db47", true),
            ("72f988bf-86f1-41af-91ab-2d7cd011db4", false),
            ("72f988bf86f141af91ab2d7cd011db47", false),
            ("72f988bg-86f1-41af-91ab-2d7cd011db47", false),
            ("contoso.com", false),
            ("common", false),
        ] {
            assert_eq!(is_guid(text), expected, "{text}");
        }
    }
}
