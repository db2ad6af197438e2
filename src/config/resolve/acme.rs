use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::providers::addresses::parse_secure;
use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;
use crate::config::file::acme as file;
use crate::config::file::encryption::Encryption;
use crate::settings::acme::{AcmeSettings, ChallengeKind, ExternalAccount};
use crate::tls;

/// Maximum number of domains of a listener.
const MAX_DOMAINS: usize = 100;
/// Maximum length of a domain (RFC 1035, section 3.1).
const MAX_DOMAIN: usize = 253;
/// Maximum length of a label (RFC 1035, section 3.1).
const MAX_LABEL: usize = 63;

/// Resolves the certificates by ACME of a listener.
pub(super) fn acme(
    raw: &file::Acme,
    encryption: &Encryption,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Arc<AcmeSettings>> {
    if encryption.key.is_none() && encryption.key_file.is_none() {
        let message = "\"acme\" requires \"encryption.key\", with which the keys of certificates \
                       are sealed; `portcullis keys generate --algorithm A256GCM` creates one";
        context.error_at_key(location, message);
    }
    let directory = parse_secure(&raw.directory);
    if let Err(message) = directory {
        context.error(&location.key("directory"), message);
    }
    if let Some(email) = &raw.email
        && !is_email(email)
    {
        let message = "not an email address such as ops@example.com";
        context.error(&location.key("email"), message);
    }
    if !raw.accept_terms {
        let message = "\"accept_terms: true\" is missing: certificates are issued only to those \
                       who accept the authority's terms of service";
        context.error_at_key(location, message);
    }
    let external_account = raw.external_account.as_ref();
    let external_account = external_account
        .map(|raw| self::external_account(raw, &location.key("external_account"), context));
    let settings = AcmeSettings {
        domains: domains(&raw.domains, &location.key("domains"), context),
        ca: match &raw.ca {
            Some(path) => Some(authorities(path, &location.key("ca"), context)?),
            None => None,
        },
        challenge: match raw.challenge {
            file::Challenge::TlsAlpn => ChallengeKind::TlsAlpn,
            file::Challenge::Http => ChallengeKind::Http,
        },
        directory: directory.ok()?,
        email: raw.email.clone(),
        external_account: match external_account {
            Some(account) => Some(account?),
            None => None,
        },
    };
    Some(Arc::new(settings))
}

fn authorities(
    path: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<Vec<u8>> {
    let pem = context.read_file(location, path)?;
    if let Err(error) = tls::parse_authorities(&pem) {
        let path = context.display_path(location, path);
        context.error(location, format!("{path}: {error}"));
    }
    Some(pem.to_vec())
}

fn external_account(
    raw: &file::ExternalAccount,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<ExternalAccount> {
    let key_id = context.require_non_empty(&location.key("key_id"), &raw.key_id);
    let file = raw.key_file.as_deref();
    if raw.key.is_none() && file.is_none() {
        let message = "\"key\" or \"key_file\" is missing";
        context.error_at_key(location, message);
    }
    let text = context.read_secret(location, "key", raw.key.as_ref(), file)?;
    let text = text.expose_secret().trim().trim_end_matches('=');
    // Some authorities show the key in ordinary base64.
    let text = Zeroizing::new(text.replace('+', "-").replace('/', "_"));
    let Ok(key) = URL_SAFE_NO_PAD.decode(text.as_bytes()) else {
        let at = location.key(if file.is_some() { "key_file" } else { "key" });
        context.error(&at, "not a key in base64url");
        return None;
    };
    let key = Zeroizing::new(key);
    Some(ExternalAccount { key_id, key })
}

fn domains(raw: &[String], location: &ConfigPath, context: &mut ResolveContext<'_>) -> Vec<String> {
    if raw.len() > MAX_DOMAINS {
        let message = format!("\"domains\" must have at most {MAX_DOMAINS} items");
        context.error(location, message);
    }
    let mut all = Vec::new();
    for (index, text) in raw.iter().enumerate() {
        let domain = text.to_ascii_lowercase();
        if let Err(message) = check_domain(&domain) {
            context.error(&location.item(index), message);
        } else if all.contains(&domain) {
            context.error(&location.item(index), "duplicate domain");
        }
        all.push(domain);
    }
    all
}

/// Checks a domain in lower case (RFC 1123, section 2.1).
fn check_domain(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "not a domain such as www.example.com";
    if text.contains('*') {
        return Err(
            "a wildcard requires the challenge dns-01, which the gateway does not have; list the \
             domains, or use \"certificates\"",
        );
    }
    if !text.is_ascii() {
        return Err("a domain must be in ASCII (xn--…)");
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return Err("certificates are ordered for domains, not for addresses");
    }
    let is_valid = text.len() <= MAX_DOMAIN && text.split('.').all(is_label);
    is_valid.then_some(()).ok_or(FORM)
}

fn is_label(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_inside = !text.starts_with('-') && !text.ends_with('-');
    (1..=MAX_LABEL).contains(&text.len()) && is_inside && text.bytes().all(is_allowed)
}

/// Whether a text is an address that `mailto:` can carry without escapes (RFC 6068, section 2).
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$*+-/=_~'".contains(&byte);
    let is_local = !local.is_empty() && local.len() <= 64 && local.bytes().all(is_allowed);
    is_local && check_domain(&domain.to_ascii_lowercase()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_host_names() {
        let (long, longer) = ("a".repeat(63), "a".repeat(64));
        for (text, expected) in [
            ("example.com", true),
            ("a.b.c.example.com", true),
            ("xn--bcher-kva.example", true),
            ("intranet", true),
            ("1.example", true),
            (&format!("{long}.example"), true),
            (&format!("{longer}.example"), false),
            (&"a.".repeat(127), false),
            ("*.example.com", false),
            ("www.*.example", false),
            ("example.com.", false),
            (".example.com", false),
            ("a..example", false),
            ("-a.example", false),
            ("a-.example", false),
            ("a_b.example", false),
            ("bücher.example", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
            ("[2001:db8::1]", false),
            ("example.com:443", false),
            ("https://example.com", false),
            ("", false),
        ] {
            assert_eq!(check_domain(text).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn email_addresses_need_no_escapes() {
        for (text, expected) in [
            ("ops@example.com", true),
            ("ops+tls@mail.example.com", true),
            ("first.last@EXAMPLE.com", true),
            ("ops", false),
            ("@example.com", false),
            ("ops@", false),
            ("ops@*.example.com", false),
            ("ops@example.com,other@example.com", false),
            ("a b@example.com", false),
            ("mailto:ops@example.com", false),
            ("a?subject=b@example.com", false),
            ("a@b@example.com", false),
        ] {
            assert_eq!(is_email(text), expected, "{text}");
        }
    }
}
