//! Hop-by-hop headers: the fields that a side may list in `Connection` (RFC 9110, section 7.6.1).

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::header_fields::{self, HeaderError};
use super::upstream_request::is_forwarding;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// The only protocol to which a connection is upgraded.
pub(crate) const WEBSOCKET: &str = "websocket";

/// Removes an `Upgrade` to a protocol other than WebSocket, so that the request is an ordinary one (RFC 9110,
/// section 7.8, leaves it to the server). `may_upgrade` is false for HTTP/1.0, a method other than GET,
/// and a request with a body.
///
/// # Errors
/// A value that no header can carry.
pub(crate) fn strip_unsupported_upgrade(
    fields: &mut HeaderMap,
    may_upgrade: bool,
) -> Result<(), HeaderError> {
    let [Some(upgrade)] = header_fields::first(fields, [&header::UPGRADE]) else {
        return Ok(());
    };
    let websocket = upgrade
        .as_bytes()
        .eq_ignore_ascii_case(WEBSOCKET.as_bytes());
    if may_upgrade && websocket && fields.get_all(header::UPGRADE).iter().count() == 1 {
        return Ok(());
    }
    fields.remove(header::UPGRADE);
    fields.remove(HTTP2_SETTINGS);
    let options: Vec<String> = options_of(fields)
        .filter(|option| option != "upgrade")
        .collect();
    fields.remove(header::CONNECTION);
    if !options.is_empty() {
        let options = HeaderValue::try_from(options.join(", "))?;
        fields.insert(header::CONNECTION, options);
    }
    Ok(())
}

/// Lists the options of `Connection`, in lower case.
fn options_of(fields: &HeaderMap) -> impl Iterator<Item = String> + '_ {
    fields
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
}

/// Removes the headers that `Connection` nominates, so that no nomination can remove what the gateway
/// writes later; only `close`, `keep-alive` and `upgrade` stay in `Connection`. Framing and forwarding
/// headers cannot be nominated. `Keep-Alive` is about the sender's connection and is removed, whether
/// it is nominated or not.
///
/// # Errors
/// A value that no header can carry.
pub(crate) fn strip_nominated(fields: &mut HeaderMap) -> Result<(), HeaderError> {
    let [keep_alive, connection] = header_fields::has(fields, [&KEEP_ALIVE, &header::CONNECTION]);
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
    let (options, names): (Vec<String>, Vec<String>) =
        options_of(fields).partition(|name| is_connection_option(name.as_bytes()));
    for name in names {
        let framing = [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
        ];
        if !framing.contains(&&*name) && !is_forwarding(name.as_bytes()) {
            fields.remove(&*name);
        }
    }
    fields.remove(header::CONNECTION);
    if !options.is_empty() {
        let options = HeaderValue::try_from(options.join(", "))?;
        fields.insert(header::CONNECTION, options);
    }
    Ok(())
}

fn is_connection_option(name: &[u8]) -> bool {
    [&b"close"[..], b"keep-alive", b"upgrade"]
        .iter()
        .any(|option| name.eq_ignore_ascii_case(option))
}

/// Removes the fields of a response that are about the upstream's connection: what
/// [`strip_nominated`] removes, `Proxy-Connection`, `TE`, and unless the client can use them,
/// `Upgrade` and `Trailer`.
///
/// # Errors
/// A value that no header can carry.
pub(crate) fn strip_response(
    fields: &mut HeaderMap,
    keep_upgrade: bool,
    keep_trailer: bool,
) -> Result<(), HeaderError> {
    strip_nominated(fields)?;
    let names = [
        &PROXY_CONNECTION,
        &header::TE,
        &header::UPGRADE,
        &header::TRAILER,
    ];
    let kept = [false, false, keep_upgrade, keep_trailer];
    let present = header_fields::has(fields, names);
    for ((name, present), kept) in names.into_iter().zip(present).zip(kept) {
        if present && !kept {
            fields.remove(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn non_websocket_upgrade_is_removed() {
        for (upgrade, connection, may, left) in [
            (&["websocket"][..], "Upgrade", true, Some("Upgrade")),
            (
                &["WebSocket"],
                "keep-alive, Upgrade",
                true,
                Some("keep-alive, Upgrade"),
            ),
            (&["websocket"], "Upgrade", false, None),
            (
                &["h2c"],
                "Upgrade, HTTP2-Settings",
                true,
                Some("http2-settings"),
            ),
            (&["websocket, h2c"], "Upgrade, close", true, Some("close")),
            (&["websocket", "h2c"], "upgrade", true, None),
            (&[], "Upgrade", true, Some("Upgrade")),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert("connection", HeaderValue::from_static(connection));
            fields.insert("http2-settings", HeaderValue::from_static("AAA"));
            for value in upgrade {
                fields.append("upgrade", HeaderValue::from_static(value));
            }
            strip_unsupported_upgrade(&mut fields, may).unwrap();
            let found = fields.get("connection").map(|it| it.to_str().unwrap());
            assert_eq!(found, left, "{upgrade:?}");
            let kept = connection == left.unwrap_or_default() && !upgrade.is_empty();
            assert_eq!(fields.contains_key("upgrade"), kept, "{upgrade:?}");
            assert_eq!(
                fields.contains_key("http2-settings"),
                kept || upgrade.is_empty()
            );
        }
    }

    #[test]
    fn connection_keeps_only_its_own_options() {
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
            strip_nominated(&mut fields).unwrap();
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
