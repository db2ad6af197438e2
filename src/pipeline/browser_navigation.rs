//! Whether a browser sends a request to open a page. Only such a request is redirected to a sign-in:
//! a program or a script would take the sign-in page for its data.

use http::Method;

use super::facts::RequestHead;
use super::fields::{FieldKind, Fields};
use super::local_response::prefers_html;

/// Values of `Sec-Fetch-Dest` for a page; images, scripts and other parts of a page have others.
const PAGES: [&[u8]; 3] = [b"document", b"iframe", b"frame"];
/// Fields by which browsers and proxies announce a prefetch, or a page that may never be shown.
const PREFETCH_FIELDS: [&str; 4] = ["sec-purpose", "purpose", "x-moz", "x-purpose"];
/// What they begin with then.
const PREFETCHES: [&[u8]; 3] = [b"prefetch", b"prerender", b"preview"];

/// Whether a request is a browser navigation: it prefers HTML, has no `Authorization`, and is a
/// navigation by its `Sec-Fetch-*` fields, where it has them. A prefetch is none.
pub fn is_browser_navigation(head: &RequestHead<'_>) -> bool {
    let fields = head.fields;
    matches!(*head.method, Method::GET | Method::HEAD)
        && prefers_html(fields)
        && !fields.has(FieldKind::Authorization)
        && !head.is_upgrade()
        && navigates(fields)
        && !is_prefetch(fields)
}

fn navigates(fields: Fields<'_>) -> bool {
    let mut modes = fields.all(FieldKind::SecFetchMode);
    let mut destinations = fields.named("sec-fetch-dest");
    modes.all(|mode| mode == b"navigate")
        && destinations.all(|destination| PAGES.contains(&destination))
}

fn is_prefetch(fields: Fields<'_>) -> bool {
    PREFETCH_FIELDS.iter().any(|name| {
        fields.named(name).any(|value| {
            PREFETCHES.iter().any(|purpose| {
                let start = value.get(..purpose.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(purpose))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::pipeline::fields::tests::list;

    /// The fields of a browser that opens a page.
    const BROWSER: [(&str, &str); 5] = [
        (
            "Accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        ),
        ("Sec-Fetch-Site", "none"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-User", "?1"),
        ("Sec-Fetch-Dest", "document"),
    ];

    fn navigates(method: &Method, fields: &[(&str, &str)]) -> bool {
        let list = list(fields);
        is_browser_navigation(&RequestHead {
            method,
            version: Version::HTTP_11,
            path: "/",
            query: None,
            fields: Fields::new(&list),
        })
    }

    #[test]
    fn page_is_opened_by_get_or_head() {
        for (method, expected) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::POST, false),
            (Method::OPTIONS, false),
        ] {
            assert_eq!(navigates(&method, &BROWSER), expected, "{method}");
        }
    }

    #[test]
    fn html_is_preferred_to_json() {
        for (accept, expected) in [
            ("text/html", true),
            ("text/html, application/json;q=0.9", true),
            ("application/json, text/html;q=0.9", false),
            ("application/json", false),
            ("*/*", false),
        ] {
            assert_eq!(
                navigates(&Method::GET, &[("Accept", accept)]),
                expected,
                "{accept}"
            );
        }
        assert!(!navigates(&Method::GET, &[]));
    }

    #[test]
    fn fetch_metadata_decides_where_it_is_sent() {
        for (name, value, expected) in [
            ("Sec-Fetch-Mode", "cors", false),
            ("Sec-Fetch-Mode", "no-cors", false),
            ("Sec-Fetch-Mode", "same-origin", false),
            ("Sec-Fetch-Dest", "iframe", true),
            ("Sec-Fetch-Dest", "empty", false),
            ("Sec-Fetch-Dest", "image", false),
            ("Sec-Fetch-Site", "cross-site", true),
        ] {
            let mut fields = BROWSER;
            for field in &mut fields {
                if field.0 == name {
                    field.1 = value;
                }
            }
            assert_eq!(
                navigates(&Method::GET, &fields),
                expected,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn programs_and_prefetches_are_no_navigation() {
        for (name, value) in [
            ("Authorization", "Basic x"),
            ("Authorization", ""),
            ("Upgrade", "websocket"),
            ("Sec-Purpose", "prefetch"),
            ("Sec-Purpose", "prefetch;prerender"),
            ("Sec-Purpose", "Prefetch; anonymous-client-ip"),
            ("Purpose", "prefetch"),
            ("X-Moz", "prefetch"),
            ("X-Purpose", "preview"),
        ] {
            let mut fields = BROWSER.to_vec();
            fields.push((name, value));
            assert!(!navigates(&Method::GET, &fields), "{name}: {value}");
        }
    }
}
