//! Same-origin check: whether a browser's request comes from the gateway's own pages or from
//! allowed origins. The browser sends the origin in `Origin`, which no page can forge.

use super::facts::Client;
use super::fields::{FieldKind, Fields, text_of};

/// Whether the host and port of `Origin` are those of the request, or the origin is allowed;
/// without `Origin`, whether `Sec-Fetch-Site` is `same-origin`. `allowed` holds
/// `scheme://host[:port]` in lower case.
pub fn is_same_origin(fields: Fields<'_>, client: &Client, allowed: &[String]) -> bool {
    let mut origins = fields.all(FieldKind::Origin);
    match (origins.next(), origins.next()) {
        (None, _) => {
            let mut sites = fields.all(FieldKind::SecFetchSite);
            sites.next() == Some(b"same-origin") && sites.next().is_none()
        }
        (Some(origin), None) => text_of(origin).is_some_and(|origin| {
            let origin = origin.to_ascii_lowercase();
            allowed.contains(&origin) || origin_matches_host(&origin, &client.host, client.https)
        }),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a browser reports that the request comes from another site. A client that sends neither
/// header is no browser, and holds no other user's cookies.
pub(crate) fn is_cross_site(fields: Fields<'_>, client: &Client, allowed: &[String]) -> bool {
    states_origin(fields) && !is_same_origin(fields, client, allowed)
}

/// Whether a request has a header by which a browser states the origin of its page.
pub(crate) fn states_origin(fields: Fields<'_>) -> bool {
    fields.has(FieldKind::Origin) || fields.has(FieldKind::SecFetchSite)
}

/// Whether a page of this origin (in lower case) was loaded from `host[:port]`.
pub(crate) fn origin_matches_host(origin: &str, host: &str, https: bool) -> bool {
    let (default_port, authority) = match origin.split_once("://") {
        Some(("http", authority)) => (80, authority),
        Some(("https", authority)) => (443, authority),
        _ => return false,
    };
    let own = host.to_ascii_lowercase();
    let (Some((origin_host, origin_port)), Some((own_host, own_port))) =
        (host_and_port(authority), host_and_port(&own))
    else {
        return false;
    };
    let origin_port = origin_port.unwrap_or(default_port);
    let same_port = match own_port {
        Some(port) => origin_port == port,
        None if https => origin_port == 443,
        // A proxy in front may terminate TLS without reporting it: either scheme's default port
        // matches.
        None => origin_port == default_port,
    };
    origin_host == own_host && same_port
}

/// Splits `host[:port]`, `[v6][:port]`. Any other form is invalid.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(end)?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'@' | b'\\' | b',');
    if host.is_empty() || !host.bytes().all(plain) {
        return None;
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::pipeline::fields::tests::list;

    fn client(host: &str, https: bool) -> Client {
        Client {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            https,
            host: host.to_owned(),
        }
    }

    #[test]
    fn origin_is_compared_by_host_and_port() {
        let cases = [
            ("http://a.example", "a.example", false, true),
            ("http://A.Example", "a.eXample", false, true),
            ("http://a.example:80", "a.example", false, true),
            ("http://a.example", "a.example:80", false, true),
            ("http://a.example:8080", "a.example:8080", false, true),
            ("https://a.example", "a.example", true, true),
            ("https://a.example", "a.example:443", true, true),
            ("https://a.example:443", "a.example", true, true),
            // A proxy in front terminated TLS.
            ("https://a.example", "a.example", false, true),
            ("http://[::1]:8080", "[::1]:8080", false, true),
            ("http://[::1]", "[::1]", false, true),
            ("http://a.example", "a.example", true, false),
            ("http://a.example:8081", "a.example:8080", false, false),
            ("http://a.example:8080", "a.example", false, false),
            ("http://a.example", "a.example:8080", false, false),
            ("http://evil.example", "a.example", false, false),
            ("http://a.example.evil", "a.example", false, false),
            ("http://evila.example", "a.example", false, false),
            ("http://sub.a.example", "a.example", false, false),
            ("null", "a.example", false, false),
            ("", "a.example", false, false),
            ("http://", "", false, false),
            ("a.example", "a.example", false, false),
            ("ftp://a.example", "a.example", false, false),
            ("file://a.example", "a.example", false, false),
            ("http://a.example/", "a.example", false, false),
            ("http://user@a.example", "a.example", false, false),
            ("http://a.example:8080:80", "a.example", false, false),
            ("http://a.example:", "a.example", false, false),
            ("http://a.example:+80", "a.example", false, false),
            ("http://a.example, http://evil", "a.example", false, false),
        ];
        for (origin, host, https, expected) in cases {
            let list = list(&[("origin", origin)]);
            let found = is_same_origin(Fields::new(&list), &client(host, https), &[]);
            assert_eq!(found, expected, "{origin} for {host}, TLS {https}");
        }
    }

    #[test]
    fn allowed_origins_are_compared_whole() {
        let allowed = ["https://app.example".to_owned()];
        let cases = [
            ("https://app.example", true),
            ("https://APP.example", true),
            ("http://app.example", false),
            ("https://app.example:444", false),
            ("https://app.example.evil", false),
        ];
        for (origin, expected) in cases {
            let list = list(&[("origin", origin)]);
            let found = is_same_origin(Fields::new(&list), &client("gw.example", true), &allowed);
            assert_eq!(found, expected, "{origin}");
        }
    }

    #[test]
    fn sec_fetch_site_decides_without_origin() {
        let client = client("a.example", false);
        type Case<'a> = (&'a [(&'static str, &'a str)], bool, bool);
        let cases: [Case<'_>; 8] = [
            (&[], false, false),
            (&[("sec-fetch-site", "same-origin")], true, false),
            (&[("sec-fetch-site", "same-site")], false, true),
            (&[("sec-fetch-site", "cross-site")], false, true),
            (&[("sec-fetch-site", "none")], false, true),
            (
                &[("origin", "http://evil"), ("sec-fetch-site", "same-origin")],
                false,
                true,
            ),
            (
                &[
                    ("origin", "http://a.example"),
                    ("origin", "http://a.example"),
                ],
                false,
                true,
            ),
            (
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
                true,
            ),
        ];
        for (sent, same, foreign) in cases {
            let list = list(sent);
            let fields = Fields::new(&list);
            assert_eq!(is_same_origin(fields, &client, &[]), same, "{sent:?}");
            assert_eq!(is_cross_site(fields, &client, &[]), foreign, "{sent:?}");
        }
    }
}
