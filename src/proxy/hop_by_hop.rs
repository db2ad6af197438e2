//! What either side may say with `Connection` (RFC 9110, section 7.6.1).

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::headers::{self, is_forwarding, not_ours};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Settles what `Connection` nominates, so that nothing it names can take away what the gateway
/// writes later: nominated headers go here, and only `close`, `keep-alive` and `upgrade` stay. What
/// frames the message or says where it came from cannot be nominated away. `Keep-Alive` speaks of the
/// sender's connection, whether it is nominated or not.
///
/// # Errors
/// A header that does not fit.
pub(super) fn settle(fields: &mut HeaderMap) -> pingora::Result<()> {
    let [keep_alive, connection] = headers::has(fields, [&KEEP_ALIVE, &header::CONNECTION]);
    if keep_alive {
        fields.remove(KEEP_ALIVE);
    }
    if !connection {
        return Ok(());
    }
    let plain = |value: &HeaderValue| is_connection_option(value.as_bytes());
    if fields.get_all(header::CONNECTION).iter().all(plain) {
        return Ok(());
    }
    let nominated: Vec<String> = fields
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| {
            String::from_utf8_lossy(value.as_bytes())
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase())
                .collect::<Vec<_>>()
        })
        .collect();
    let (options, names): (Vec<String>, Vec<String>) = nominated
        .into_iter()
        .partition(|name| is_connection_option(name.as_bytes()));
    for name in names {
        let framing = [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
        ];
        if !framing.contains(&&*name) && !is_forwarding(&name) {
            fields.remove(&*name);
        }
    }
    fields.remove(header::CONNECTION);
    if !options.is_empty() {
        let options = HeaderValue::try_from(options.join(", ")).map_err(not_ours)?;
        fields.insert(header::CONNECTION, options);
    }
    Ok(())
}

fn is_connection_option(name: &[u8]) -> bool {
    [&b"close"[..], b"keep-alive", b"upgrade"]
        .iter()
        .any(|option| name.eq_ignore_ascii_case(option))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn connection_names_nothing_but_its_own_options_any_more() {
        for (connection, left) in [
            ("keep-alive, Upgrade", Some("keep-alive, upgrade")),
            ("\"X-User-Id\"", None),
            ("X-User-Id, close", Some("close")),
            ("x-forwarded-for, accept", None),
        ] {
            let mut fields = HeaderMap::new();
            for (name, value) in [
                ("connection", connection),
                ("x-forwarded-for", "1.2.3.4"),
                ("accept", "*/*"),
            ] {
                fields.insert(name, HeaderValue::from_static(value));
            }
            settle(&mut fields).unwrap();
            let found = fields
                .get("connection")
                .map(|value| value.to_str().unwrap());
            assert_eq!(found, left);
            assert!(fields.contains_key("x-forwarded-for"));
            assert_eq!(
                fields.contains_key("accept"),
                !connection.contains("accept")
            );
        }
    }
}
