use url::Url;

use crate::config::context::ResolveContext;
use crate::config::document::ConfigPath;

/// Parses `scheme://host[:port]` into the form that browsers send (RFC 6454, section 6.2).
pub(super) fn parse_origin(
    text: &str,
    location: &ConfigPath,
    context: &mut ResolveContext<'_>,
) -> Option<String> {
    let origin = normalize_origin(text);
    if origin.is_none() {
        let message = "not an origin such as https://app.example.com or http://localhost:3000";
        context.error(location, message);
    }
    origin
}

fn normalize_origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty() && !host.contains('*'))?;
    let has_only_origin = matches!(url.path(), "" | "/")
        && !text.ends_with('/')
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    has_only_origin.then(|| format!("{}://{}{port}", url.scheme(), host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_normalized_as_browsers_send_them() {
        for (text, expected) in [
            ("https://app.example.com", Some("https://app.example.com")),
            (
                "HTTPS://App.Example.com:443",
                Some("https://app.example.com"),
            ),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("https://app.example.com/", None),
            ("https://app.example.com/x", None),
            ("https://user@app.example.com", None),
            ("https://*.example.com", None),
            ("app.example.com", None),
            ("*", None),
            ("null", None),
        ] {
            assert_eq!(normalize_origin(text).as_deref(), expected, "{text}");
        }
    }
}
