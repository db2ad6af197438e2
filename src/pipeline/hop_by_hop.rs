//! Hop-by-hop fields, which are about one connection, and the fields that a side lists in
//! `Connection` (RFC 9110, section 7.6.1).

use std::cmp::Ordering;

use super::fields::{Field, FieldKind, Fields, KindSet};
use super::upstream_request::is_forwarding;

/// The only protocol to which a connection is upgraded.
pub(crate) const WEBSOCKET: &str = "websocket";

/// The kinds of fields without which no field of a request is about its connection alone.
pub(crate) const ABOUT_CONNECTION: KindSet = KindSet::NONE
    .with(FieldKind::Connection)
    .with(FieldKind::Http2Settings)
    .with(FieldKind::KeepAlive)
    .with(FieldKind::Upgrade);

/// The kinds of fields of a response that may not pass, whatever `Connection` names.
const ABOUT_UPSTREAM: KindSet = KindSet::NONE
    .with(FieldKind::Connection)
    .with(FieldKind::KeepAlive)
    .with(FieldKind::ProxyConnection)
    .with(FieldKind::Te)
    .with(FieldKind::Trailer)
    .with(FieldKind::TransferEncoding)
    .with(FieldKind::Upgrade);

/// The options of a message's `Connection` fields.
#[derive(Debug, Default)]
struct ConnectionOptions<'a> {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// Names of fields, which are for the next hop only. Sorted: a head has room for thousands.
    nominated: Vec<&'a [u8]>,
}

impl<'a> ConnectionOptions<'a> {
    fn of(fields: Fields<'a>) -> ConnectionOptions<'a> {
        let mut options = ConnectionOptions::default();
        for value in fields.all(FieldKind::Connection) {
            for option in value.split(|byte| *byte == b',') {
                options.add(option.trim_ascii());
            }
        }
        let names = &mut options.nominated;
        names.sort_unstable_by(|one, other| compare_names(one, other));
        options
    }

    fn add(&mut self, option: &'a [u8]) {
        match option.len() {
            0 => {}
            10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
            5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
            7 if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            _ => self.nominated.push(option),
        }
    }

    /// Whether the field is nominated. Framing and forwarding headers cannot be, so that no nomination
    /// changes what the gateway relies on.
    fn nominates(&self, field: &Field<'_>) -> bool {
        let names = &self.nominated;
        if names.is_empty() {
            return false;
        }
        let found = names.binary_search_by(|name| compare_names(name, field.name));
        found.is_ok()
            && !matches!(
                field.kind,
                FieldKind::Connection
                    | FieldKind::ContentLength
                    | FieldKind::Host
                    | FieldKind::TransferEncoding
                    | FieldKind::Upgrade
            )
            && !is_forwarding(field.name)
    }

    /// The value that `Connection` has without its nominations; `None`: no field is left.
    fn without_nominations(&self) -> Option<&'static str> {
        match (self.close, self.keep_alive, self.upgrade) {
            (false, false, false) => None,
            (false, false, true) => Some("upgrade"),
            (false, true, false) => Some("keep-alive"),
            (false, true, true) => Some("keep-alive, upgrade"),
            (true, _, false) => Some("close"),
            (true, _, true) => Some("close, upgrade"),
        }
    }
}

/// Orders names by length, and then without regard to case.
fn compare_names(one: &[u8], other: &[u8]) -> Ordering {
    let by_length = one.len().cmp(&other.len());
    by_length.then_with(|| {
        let other = other.iter().map(u8::to_ascii_lowercase);
        one.iter().map(u8::to_ascii_lowercase).cmp(other)
    })
}

/// How an engine that keeps the received `Connection` fields has to change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionEdit {
    Keep,
    Remove,
    Replace(&'static str),
}

/// The fields of a request that are about the client's connection. An engine applies this before any
/// other code reads the request, so that no nomination can remove what the gateway writes later.
#[derive(Debug)]
pub(crate) struct RequestConnection<'a> {
    options: ConnectionOptions<'a>,
    keeps_upgrade: bool,
    edited: bool,
}

impl<'a> RequestConnection<'a> {
    /// `may_upgrade` is false for HTTP/1.0, a method other than GET, and a request with a body.
    ///
    /// An `Upgrade` to a protocol other than WebSocket is removed, so that the request is an ordinary
    /// one (RFC 9110, section 7.8, leaves it to the server).
    pub(crate) fn of(fields: Fields<'a>, may_upgrade: bool) -> RequestConnection<'a> {
        let mut options = ConnectionOptions::of(fields);
        let mut upgrades = fields.all(FieldKind::Upgrade);
        let (protocol, other) = (upgrades.next(), upgrades.next());
        let websocket = |it: &[u8]| it.eq_ignore_ascii_case(WEBSOCKET.as_bytes());
        let keeps_upgrade = may_upgrade && other.is_none() && protocol.is_some_and(websocket);
        let stripped = options.upgrade && protocol.is_some() && !keeps_upgrade;
        options.upgrade &= !stripped;
        RequestConnection {
            edited: stripped || !options.nominated.is_empty(),
            keeps_upgrade,
            options,
        }
    }

    /// Whether a received field stays.
    pub(crate) fn passes(&self, field: &Field<'_>) -> bool {
        match field.kind {
            FieldKind::Http2Settings | FieldKind::KeepAlive => false,
            FieldKind::Upgrade => self.keeps_upgrade,
            _ => !self.options.nominates(field),
        }
    }

    /// The change to `Connection`: only `close`, `keep-alive` and `upgrade` stay.
    pub(crate) fn edit(&self) -> ConnectionEdit {
        edit(self.edited, &self.options)
    }
}

/// The fields of a response that are about the upstream's connection.
#[derive(Debug)]
pub(crate) struct ResponseConnection<'a> {
    options: ConnectionOptions<'a>,
    keep_upgrade: bool,
    keep_trailer: bool,
}

impl<'a> ResponseConnection<'a> {
    /// `keep_upgrade` and `keep_trailer`: whether the client can use `Upgrade` and `Trailer`.
    pub(crate) fn of(
        fields: Fields<'a>,
        keep_upgrade: bool,
        keep_trailer: bool,
    ) -> ResponseConnection<'a> {
        ResponseConnection {
            options: ConnectionOptions::of(fields),
            keep_upgrade,
            keep_trailer,
        }
    }

    /// As [`ResponseConnection::of`], for a response whose `Connection` names no field.
    pub(crate) fn without_nominations(
        keep_upgrade: bool,
        keep_trailer: bool,
    ) -> ResponseConnection<'a> {
        ResponseConnection {
            options: ConnectionOptions::default(),
            keep_upgrade,
            keep_trailer,
        }
    }

    /// The kinds of fields that go to the client whatever their names.
    pub(crate) fn passing_kinds(&self) -> KindSet {
        match self.options.nominated.is_empty() {
            true => ABOUT_UPSTREAM.others(),
            false => KindSet::NONE,
        }
    }

    /// Whether a received field goes to the client. An engine writes `Connection` and
    /// `Transfer-Encoding` itself.
    pub(crate) fn passes(&self, field: &Field<'_>) -> bool {
        match field.kind {
            FieldKind::Connection
            | FieldKind::KeepAlive
            | FieldKind::ProxyConnection
            | FieldKind::Te
            | FieldKind::TransferEncoding => false,
            FieldKind::Upgrade => self.keep_upgrade,
            FieldKind::Trailer => self.keep_trailer && !self.options.nominates(field),
            _ => !self.options.nominates(field),
        }
    }

    /// The change to `Connection`, as for a request.
    pub(crate) fn edit(&self) -> ConnectionEdit {
        edit(!self.options.nominated.is_empty(), &self.options)
    }
}

fn edit(edited: bool, options: &ConnectionOptions<'_>) -> ConnectionEdit {
    match (edited, options.without_nominations()) {
        (false, _) => ConnectionEdit::Keep,
        (true, None) => ConnectionEdit::Remove,
        (true, Some(value)) => ConnectionEdit::Replace(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::fields::tests::list;

    /// The names that pass, separated by spaces.
    fn passing(fields: &[Field<'_>], passes: impl Fn(&Field<'_>) -> bool) -> String {
        let names = fields.iter().filter(|field| passes(field));
        let names = names.map(|field| String::from_utf8_lossy(field.name));
        names.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_an_upgrade_to_websocket_passes() {
        use ConnectionEdit::*;
        for (upgrade, connection, may, passes, edit) in [
            (&["websocket"][..], "Upgrade", true, true, Keep),
            (&["WebSocket"], "keep-alive, Upgrade", true, true, Keep),
            (&["websocket"], "Upgrade", false, false, Remove),
            (&["h2c"], "Upgrade, HTTP2-Settings", true, false, Remove),
            (
                &["websocket, h2c"],
                "Upgrade, close",
                true,
                false,
                Replace("close"),
            ),
            (&["websocket", "h2c"], "upgrade", true, false, Remove),
            (&["h2c"], "keep-alive", true, false, Keep),
            (&[], "Upgrade", true, false, Keep),
        ] {
            let mut fields = vec![("Connection", connection), ("HTTP2-Settings", "AAA")];
            fields.extend(upgrade.iter().map(|value| ("Upgrade", *value)));
            let fields = list(&fields);
            let request = RequestConnection::of(Fields::new(&fields), may);
            let expected = if passes {
                "Connection Upgrade"
            } else {
                "Connection"
            };
            assert_eq!(
                passing(&fields, |it| request.passes(it)),
                expected,
                "{upgrade:?}"
            );
            assert_eq!(request.edit(), edit, "{upgrade:?}");
        }
    }

    fn passes_to_client(response: &ResponseConnection<'_>, field: &Field<'_>) -> bool {
        let passes = response.passes(field);
        let by_kind = response.passing_kinds().has(field.kind);
        assert!(passes || !by_kind, "{field:?}");
        passes
    }

    #[test]
    fn nominated_fields_do_not_pass() {
        use ConnectionEdit::*;
        for (connection, passes, edit) in [
            (
                &["keep-alive, Upgrade"][..],
                "X-Forwarded-For Host accept",
                Keep,
            ),
            (
                &["Close", "keep-alive"],
                "X-Forwarded-For Host accept",
                Keep,
            ),
            (&["\"accept\""], "X-Forwarded-For Host accept", Remove),
            (
                &["Accept, close,"],
                "X-Forwarded-For Host",
                Replace("close"),
            ),
            (
                &["keep-alive", "ACCEPT"],
                "X-Forwarded-For Host",
                Replace("keep-alive"),
            ),
            (
                &["x-forwarded-for, host, content-length"],
                "X-Forwarded-For Host accept",
                Remove,
            ),
        ] {
            let mut fields = vec![
                ("X-Forwarded-For", "1.2.3.4"),
                ("Host", "h"),
                ("Keep-Alive", "timeout=5"),
                ("accept", "*/*"),
            ];
            fields.extend(connection.iter().map(|value| ("Connection", *value)));
            let fields = list(&fields);
            let request = RequestConnection::of(Fields::new(&fields), true);
            let kept = passing(&fields, |it| {
                it.kind != FieldKind::Connection && request.passes(it)
            });
            assert_eq!(
                (kept.as_str(), request.edit()),
                (passes, edit),
                "{connection:?}"
            );
            let response = ResponseConnection::of(Fields::new(&fields), false, false);
            assert_eq!(
                passing(&fields, |it| passes_to_client(&response, it)),
                passes,
                "{connection:?}"
            );
            assert_eq!(response.edit(), edit, "{connection:?}");
        }
    }

    #[test]
    fn each_of_many_nominations_counts() {
        let names: Vec<String> = (0..300).map(|n| format!("X-{n}")).collect();
        let options = names.join(", ").to_lowercase();
        let mut fields = vec![("Connection", options.as_str()), ("X-300", "a")];
        fields.extend(names.iter().map(|name| (name.as_str(), "a")));
        let fields = list(&fields);
        let request = RequestConnection::of(Fields::new(&fields), true);
        let passing = passing(&fields, |it| request.passes(it));
        assert_eq!(passing, "Connection X-300");
    }

    #[test]
    fn fields_about_the_upstreams_connection_do_not_reach_the_client() {
        let fields = list(&[
            ("Connection", "keep-alive"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("Trailer", "X-Sum"),
            ("Upgrade", "h2c"),
            ("Set-Cookie", "a=1"),
        ]);
        for (keep_upgrade, keep_trailer, expected) in [
            (false, false, "Set-Cookie"),
            (true, false, "Upgrade Set-Cookie"),
            (false, true, "Trailer Set-Cookie"),
        ] {
            let response = ResponseConnection::of(Fields::new(&fields), keep_upgrade, keep_trailer);
            let kept = passing(&fields, |it| passes_to_client(&response, it));
            assert_eq!(kept, expected);
        }
    }
}
