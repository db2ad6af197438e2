//! The destination after a sign-in: a path of the same origin, or a URL of a host in
//! `api.return_hosts`, so that a link cannot redirect the user to another site.

use std::borrow::Cow;

use url::{Host, Url, form_urlencoded};

use crate::pipeline::facts::Client;
use crate::pipeline::same_origin;
use crate::routing::HostPattern;
use crate::settings::Reloadable;

/// In bytes. A flow with a destination of this length fits into a cookie.
pub(super) const MAX_BYTES: usize = 2048;

/// The hosts to which a sign-in may return, beside the gateway's own.
pub(super) fn listed_hosts(settings: &Reloadable) -> &[HostPattern] {
    let api = settings.api.as_ref();
    api.map_or(&[], |api| &api.return_hosts)
}

/// Reads `return_to` from a query string.
pub(super) fn from_query(query: Option<&str>, hosts: &[HostPattern]) -> String {
    let query = query.unwrap_or_default().as_bytes();
    let mut pairs = form_urlencoded::parse(query);
    let found = pairs.find(|(name, _)| name == "return_to");
    resolve(&found.map(|(_, value)| value).unwrap_or_default(), hosts).into_owned()
}

/// Returns the text if it is a safe destination, else `/`.
pub(super) fn resolve<'t>(text: &'t str, hosts: &[HostPattern]) -> Cow<'t, str> {
    if is_safe_path(text) {
        return Cow::Borrowed(text);
    }
    // Written anew: browsers read a URL as this parser does, but not every spelling of it.
    let url = listed_url(text, hosts).map(String::from);
    let url = url.filter(|url| url.len() <= MAX_BYTES);
    url.map_or(Cow::Borrowed("/"), Cow::Owned)
}

/// As [`resolve`], for a link that third parties make: they name a page of the gateway by its URL.
pub(super) fn resolve_link<'t>(
    text: &'t str,
    client: &Client,
    hosts: &[HostPattern],
) -> Cow<'t, str> {
    let own = parse_url(text).filter(|url| {
        let origin = url.origin().ascii_serialization();
        same_origin::origin_matches_host(&origin, &client.host, client.https)
    });
    let path = own.map(|url| url[url::Position::BeforePath..].to_owned());
    match path.filter(|path| is_safe_path(path)) {
        Some(path) => Cow::Owned(path),
        None => resolve(text, hosts),
    }
}

/// A slash followed by anything that browsers do not parse as the start of a host. Browsers read a
/// backslash as a slash, and drop tabs and line breaks anywhere.
fn is_safe_path(text: &str) -> bool {
    has_safe_characters(text) && text.starts_with('/') && !text.starts_with("//")
}

fn has_safe_characters(text: &str) -> bool {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    text.len() <= MAX_BYTES && text.bytes().all(visible)
}

/// Parses a URL of a listed host, over https, or over http on loopback.
fn listed_url(text: &str, hosts: &[HostPattern]) -> Option<Url> {
    let url = parse_url(text)?;
    let host = url.host_str()?;
    hosts
        .iter()
        .any(|pattern| pattern.matches(host))
        .then_some(url)
}

/// Parses an absolute URL without user information, over https, or over http on loopback.
fn parse_url(text: &str) -> Option<Url> {
    if !has_safe_characters(text) {
        return None;
    }
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // A parser drops empty user information, and slashes before the host.
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_loopback = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let is_secure = url.scheme() == "https" || url.scheme() == "http" && is_loopback;
    is_secure.then_some(url)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use url::Url;

    use super::*;

    fn hosts() -> Vec<HostPattern> {
        let listed = [
            "shop.example.com",
            "*.apps.example",
            "localhost",
            "127.0.0.1",
        ];
        listed
            .map(|host| HostPattern::parse(host).unwrap())
            .to_vec()
    }

    #[test]
    fn only_paths_of_the_same_origin_are_accepted() {
        for path in [
            "/",
            "/a",
            "/a/b?c=d&e=%2F%2Fevil",
            "/a#b",
            "/%2f%2fevil.example",
            "/.//evil",
        ] {
            assert_eq!(resolve(path, &[]), path);
        }
        for trick in [
            "",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "\\/evil.example",
            "/a\\b",
            "https://evil.example",
            "https:evil.example",
            "https:/evil.example",
            "HTTPS://evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "evil.example",
            "@evil.example",
            ".evil.example",
            ":80/",
            "?a",
            "#a",
            " //evil.example",
            " /a",
            "/\t/evil.example",
            "/\n/evil.example",
            "/a\r\nSet-Cookie: x=y",
            "/a\0",
            "/\u{e4}",
            "/\u{2028}",
            "\u{feff}//evil.example",
            &format!("/{}", "a".repeat(MAX_BYTES)),
        ] {
            assert_eq!(resolve(trick, &hosts()), "/", "{trick:?}");
        }
    }

    #[test]
    fn only_urls_of_listed_hosts_are_accepted() {
        for url in [
            "https://shop.example.com/",
            "https://shop.example.com:8443/a?b=c#d",
            "https://a.apps.example/x",
            "https://a.b.apps.example/x",
            "http://localhost:3000/x",
            "http://127.0.0.1:3000/x",
            "https://localhost/",
        ] {
            assert_eq!(resolve(url, &hosts()), url);
            assert_eq!(resolve(url, &[]), "/", "{url}");
        }
        assert_eq!(
            resolve("HTTPS://Shop.Example.com/A/../b", &hosts()),
            "https://shop.example.com/b"
        );
        for trick in [
            "http://shop.example.com/",
            "https://apps.example/",
            "https://xapps.example/",
            "https://.apps.example/",
            "https://shop.example.com./",
            "https://shop.example.com.evil.example/",
            "https://evil.example/https://shop.example.com/",
            "https://evil.example#@shop.example.com/",
            "https://evil.example?.apps.example",
            "https://user@shop.example.com/",
            "https://@shop.example.com/",
            "https://:@shop.example.com/",
            "https://shop.example.com\\@evil.example/",
            "https:\\\\shop.example.com/",
            "https:shop.example.com/",
            "https:/shop.example.com/",
            "https:///shop.example.com/",
            "ftp://shop.example.com/",
            "javascript://shop.example.com/%0aalert(1)",
            "https://shop.example.com%2f@evil.example/",
            "https://shop\t.example.com/",
            "http://127.0.0.1.evil.example/",
            "http://2130706433.evil.example/",
            &format!("https://shop.example.com/{}", "a".repeat(MAX_BYTES)),
        ] {
            assert_eq!(resolve(trick, &hosts()), "/", "{trick:?}");
        }
    }

    #[test]
    fn query_is_decoded_once() {
        for (query, expected) in [
            (None, "/"),
            (Some(""), "/"),
            (Some("x=y"), "/"),
            (Some("return_to=%2Fa%3Fb%3Dc%26d"), "/a?b=c&d"),
            (Some("return_to=%2F%2Fevil"), "/"),
            (Some("return_to=%2F%5Cevil"), "/"),
            (Some("return_to=%2F%09%2Fevil"), "/"),
            (Some("return_to=%252F%252Fevil"), "/"),
            (Some("return_to=/%252Fevil"), "/%2Fevil"),
        ] {
            assert_eq!(from_query(query, &[]), expected, "{query:?}");
        }
    }

    #[test]
    fn third_parties_name_pages_of_the_gateway_by_their_url() {
        let client = Client {
            ip: "192.0.2.1".parse().unwrap(),
            https: true,
            host: "here.example".to_owned(),
        };
        for (link, expected) in [
            ("https://here.example/a?b=c", "/a?b=c"),
            ("https://here.example", "/"),
            ("https://here.example//evil.example", "/"),
            ("https://user@here.example/a", "/"),
            ("https://here.example:444/a", "/"),
            ("https://shop.example.com/a", "https://shop.example.com/a"),
            ("https://evil.example/a", "/"),
            ("/a", "/a"),
        ] {
            assert_eq!(resolve_link(link, &client, &hosts()), expected, "{link}");
        }
    }

    proptest! {
        #[test]
        fn browser_stays_on_its_origin(text in "[/\\\\:.@?#a-e\t\n %2fF5c-]{0,12}") {
            let here = Url::parse("https://here.example/api/v1/sign-in").unwrap();
            let there = here.join(&resolve(&text, &[])).unwrap();
            prop_assert_eq!(there.origin(), here.origin());
        }

        #[test]
        fn browser_stays_on_listed_hosts(
            text in "(https?:)?[/\\\\]{0,3}[@:.a-z/\\\\#?]{0,4}(shop\\.example\\.com)?[/\\\\:.@?#a-e\t %2fF5c-]{0,8}",
        ) {
            let here = Url::parse("https://here.example/api/v1/sign-in").unwrap();
            let there = here.join(&resolve(&text, &hosts())).unwrap();
            let host = there.host_str().unwrap();
            prop_assert!(["here.example", "shop.example.com"].contains(&host), "{}", there);
            prop_assert_eq!(there.scheme(), "https");
            prop_assert!(there.username().is_empty());
        }
    }
}
