//! Choices of `init`. `config` checks the resulting file in full.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};
use zeroize::Zeroizing;

/// All choices.
#[derive(Debug)]
pub(super) struct Choices {
    pub(super) upstream: String,
    pub(super) sign_in: SignIn,
    pub(super) store: StoreChoice,
    pub(super) public_url: PublicUrl,
    pub(super) tls: TlsChoice,
}

#[derive(Debug)]
pub(super) enum SignIn {
    Passwords,
    Provider {
        issuer: String,
        client_id: String,
        domain: String,
    },
}

#[derive(Debug, PartialEq)]
pub(super) struct StoreChoice {
    /// Without the password.
    pub(super) url: String,
    pub(super) password: Option<Zeroizing<String>>,
}

/// The origin of the gateway as browsers see it.
#[derive(Debug)]
pub(super) struct PublicUrl {
    pub(super) origin: String,
    pub(super) is_https: bool,
    /// Whether it is reached from this machine only.
    pub(super) is_local: bool,
    pub(super) port: u16,
}

#[derive(Debug, PartialEq)]
pub(super) enum TlsChoice {
    None,
    Proxy,
    Certificate { cert: String, key: String },
}

/// Parses the address of the backend.
pub(super) fn upstream(text: &str) -> Result<String, &'static str> {
    let is_socket = text.starts_with("unix:/");
    let is_server = origin(text).is_some();
    match is_socket || is_server {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("give http://HOST:PORT, https://HOST:PORT or unix:/PATH"),
    }
}

/// Parses the issuer of a provider; `None` for passwords.
pub(super) fn sign_in(text: &str) -> Result<Option<String>, &'static str> {
    if text == "passwords" {
        return Ok(None);
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(Some(text.to_owned()))
        }
        _ => {
            Err("give `passwords`, or the issuer URL of a provider, such as https://id.example.com")
        }
    }
}

/// Parses any text that is not empty.
pub(super) fn text(text: &str) -> Result<String, &'static str> {
    match text.is_empty() {
        true => Err("there is no default"),
        false => Ok(text.to_owned()),
    }
}

/// Parses the store, and separates the password.
pub(super) fn store(text: &str) -> Result<StoreChoice, &'static str> {
    let whole = || StoreChoice {
        url: text.to_owned(),
        password: None,
    };
    if text == "memory" {
        return Ok(whole());
    }
    let Some((scheme, rest)) = text
        .split_once("://")
        .filter(|(scheme, _)| scheme.starts_with("redis"))
    else {
        return Err("give `memory`, or the URL of a Redis, such as redis://127.0.0.1:6379");
    };
    let Some((credentials, hosts)) = rest.rsplit_once('@') else {
        return Ok(whole());
    };
    let Some((user, password)) = credentials.split_once(':') else {
        return Ok(whole());
    };
    let password = percent_decode_str(password).decode_utf8();
    let password = password.map_err(|_| "the password in the URL is not UTF-8")?;
    let user = match user {
        "" => String::new(),
        user => format!("{user}@"),
    };
    Ok(StoreChoice {
        url: format!("{scheme}://{user}{hosts}"),
        password: Some(Zeroizing::new(password.into_owned())),
    })
}

/// Parses the address of the gateway as browsers see it.
pub(super) fn public_url(text: &str) -> Result<PublicUrl, &'static str> {
    let url =
        origin(text).ok_or("give http://HOST[:PORT] or https://HOST[:PORT], without a path")?;
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    Ok(PublicUrl {
        origin: url.origin().ascii_serialization(),
        is_https: url.scheme() == "https",
        is_local,
        port: url.port_or_known_default().unwrap_or(443),
    })
}

/// Parses where TLS ends.
pub(super) fn tls(text: &str) -> Result<TlsChoice, &'static str> {
    match (text, text.split_once(',')) {
        ("none", _) => Ok(TlsChoice::None),
        ("proxy", _) => Ok(TlsChoice::Proxy),
        (_, Some((cert, key))) if !cert.is_empty() && !key.is_empty() => {
            Ok(TlsChoice::Certificate {
                cert: cert.trim().to_owned(),
                key: key.trim().to_owned(),
            })
        }
        _ => Err("give `none`, `proxy`, or two PEM files, such as site.pem,site.key"),
    }
}

/// Checks that TLS ends somewhere if browsers use it, and only then.
pub(super) fn check_tls(public_url: &PublicUrl, tls: &TlsChoice) -> Result<(), &'static str> {
    match (public_url.is_https, tls) {
        (true, TlsChoice::None) => {
            Err("browsers use https, so TLS must end at a proxy or at the gateway")
        }
        (false, TlsChoice::Certificate { .. }) => {
            Err("browsers use http, so the gateway needs no certificate")
        }
        _ => Ok(()),
    }
}

/// Parses the URL of an HTTP server without a path.
fn origin(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_origin = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    is_origin.then_some(url)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn password_is_separated_from_the_url_of_the_store() {
        for (given, url, password) in [
            ("memory", "memory", None),
            ("redis://a:1/2", "redis://a:1/2", None),
            ("redis://ann@a", "redis://ann@a", None),
            ("redis://:p%40ss@a", "redis://a", Some("p@ss")),
            (
                "rediss+cluster://ann:b@a,b:7",
                "rediss+cluster://ann@a,b:7",
                Some("b"),
            ),
        ] {
            let expected = StoreChoice {
                url: url.to_owned(),
                password: password.map(|password| Zeroizing::new(password.to_owned())),
            };
            assert_eq!(store(given).unwrap(), expected, "{given}");
        }
        assert!(store("postgres://a").is_err() && store("").is_err());
    }

    #[test]
    fn addresses_are_checked() {
        for (text, valid) in [
            ("http://127.0.0.1:3000", true),
            ("https://backend/", true),
            ("unix:/run/app.sock", true),
            ("127.0.0.1:3000", false),
            ("http://a/path", false),
            ("http://u:p@a", false),
            ("", false),
        ] {
            assert_eq!(upstream(text).is_ok(), valid, "{text}");
        }
        for (text, is_https, is_local, port) in [
            ("http://localhost:8080", false, true, 8080),
            ("http://app.example.com", false, false, 80),
            ("https://app.example.com", true, false, 443),
            ("https://[::1]:8443", true, true, 8443),
        ] {
            let url = public_url(text).unwrap();
            let found = (url.is_https, url.is_local, url.port);
            assert_eq!(found, (is_https, is_local, port), "{text}");
        }
    }
}
