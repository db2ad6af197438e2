//! Origin of a request: the socket's peer, unless a trusted peer reports another.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::pipeline::fields::{FieldKind, Fields, text_of};
use crate::settings::ForwardedBy;

/// The path of a request, from the client to the gateway's peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOrigin {
    pub ip: IpAddr,
    /// The value of `X-Forwarded-For`: the client first, then the trusted hops. Empty: the peer is
    /// the client.
    pub chain: Vec<IpAddr>,
    pub https: bool,
    /// The `Host` that the client used, if a trusted proxy reports another than the request's own.
    pub host: Option<String>,
    pub peer_trusted: bool,
}

/// The origin of a request, as far as the gateway can vouch for it.
#[derive(Debug, Clone)]
pub struct Client {
    pub ip: IpAddr,
    /// The scheme, host and port that the client used, as reported by trusted proxies.
    pub https: bool,
    pub host: String,
}

impl ClientOrigin {
    /// The client, for the same-origin checks; `host` is the request's own.
    pub fn as_client(&self, host: Option<&[u8]>) -> Client {
        let own = || host.and_then(text_of).unwrap_or_default();
        Client {
            ip: self.ip,
            https: self.https,
            host: self.host.clone().unwrap_or_else(|| own().to_owned()),
        }
    }
}

/// Resolves the origin of a request. `peer` is the socket's, or the address in a trusted PROXY
/// header.
pub fn resolve(
    peer: IpAddr,
    tls: bool,
    trusted: &[IpNet],
    by: ForwardedBy,
    fields: Fields<'_>,
) -> ClientOrigin {
    let peer = peer.to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if trusted.is_empty() || !is_trusted(peer) {
        return ClientOrigin {
            ip: peer,
            chain: Vec::new(),
            https: tls,
            host: None,
            peer_trusted: false,
        };
    }
    let reported = match by {
        ForwardedBy::XForwardedFor => x_forwarded(fields),
        ForwardedBy::Forwarded => forwarded(fields),
    };
    // From right to left: each trusted hop names its own peer, up to the first hop that is not
    // trusted.
    let mut chain = vec![peer];
    for hop in reported.hops.iter().rev() {
        let Some(ip) = hop else { break };
        chain.push(*ip);
        if !is_trusted(*ip) {
            break;
        }
    }
    chain.reverse();
    ClientOrigin {
        ip: chain.first().copied().unwrap_or(peer),
        chain,
        https: reported.https.unwrap_or(tls),
        host: reported.host,
        peer_trusted: true,
    }
}

#[derive(Default)]
struct ForwardedInfo {
    /// `None` where a hop is obfuscated or malformed.
    hops: Vec<Option<IpAddr>>,
    https: Option<bool>,
    host: Option<String>,
}

fn x_forwarded(fields: Fields<'_>) -> ForwardedInfo {
    let last = |kind| {
        let value = fields.all(kind).last().and_then(text_of)?;
        Some(value.rsplit(',').next()?.trim().to_owned())
    };
    ForwardedInfo {
        hops: fields
            .all(FieldKind::XForwardedFor)
            .flat_map(|value| text_of(value).unwrap_or("?").split(','))
            .map(|hop| address(hop.trim()))
            .collect(),
        https: last(FieldKind::XForwardedProto).map(|proto| proto.eq_ignore_ascii_case("https")),
        host: last(FieldKind::XForwardedHost).filter(|host| !host.is_empty()),
    }
}

/// RFC 7239: elements are separated by `,`, pairs by `;`; a value with a colon or a bracket is
/// quoted.
fn forwarded(fields: Fields<'_>) -> ForwardedInfo {
    let mut reported = ForwardedInfo::default();
    for value in fields.all(FieldKind::Forwarded) {
        for element in split_unquoted(text_of(value).unwrap_or("for=?"), ',') {
            let mut hop = None;
            for pair in split_unquoted(element, ';') {
                let Some((name, value)) = pair.split_once('=') else {
                    continue;
                };
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "for" => hop = address(value),
                    // The peer's element is the last one, so it overrides the others.
                    "proto" => reported.https = Some(value.eq_ignore_ascii_case("https")),
                    "host" => reported.host = Some(value.to_owned()),
                    _ => {}
                }
            }
            reported.hops.push(hop);
        }
    }
    reported
}

fn split_unquoted(text: &str, at: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == at && !quoted
    })
}

/// Parses an address with or without port and brackets; IPv4-mapped IPv6 becomes IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if text.matches(':').count() == 1 => text.split(':').next()?,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::pipeline::fields::tests::list;

    fn check(peer: &str, by: ForwardedBy, fields: &[(&str, &str)]) -> ClientOrigin {
        resolve(
            peer.parse().unwrap(),
            false,
            &["10.0.0.0/8".parse().unwrap()],
            by,
            Fields::new(&list(fields)),
        )
    }

    #[test]
    fn untrusted_peer_cannot_forward_an_origin() {
        let headers = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
        ];
        let origin = check("192.0.2.1", ForwardedBy::XForwardedFor, &headers);
        assert_eq!(origin.ip.to_string(), "192.0.2.1");
        assert!(!origin.https && !origin.peer_trusted);
    }

    #[test]
    fn the_rightmost_untrusted_hop_is_the_client() {
        for (chain, client) in [
            ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
            ("6.6.6.6, 192.0.2.7, 10.1.1.1", "192.0.2.7"),
            ("10.9.9.9", "10.9.9.9"),
            ("", "10.0.0.1"),
            ("6.6.6.6, unknown", "10.0.0.1"),
            ("6.6.6.6, ::ffff:192.0.2.7", "192.0.2.7"),
            ("6.6.6.6, 192.0.2.7:4711", "192.0.2.7"),
            ("6.6.6.6, [2001:db8::1]:4711", "2001:db8::1"),
        ] {
            let origin = check(
                "10.0.0.1",
                ForwardedBy::XForwardedFor,
                &[("x-forwarded-for", chain)],
            );
            assert_eq!(origin.ip.to_string(), client, "{chain}");
        }
    }

    #[test]
    fn forwarded_header_may_be_quoted() {
        let value = r#"for=6.6.6.6, for="[2001:db8::2]:99";proto=https;host="a.example:8443""#;
        let origin = check("10.0.0.1", ForwardedBy::Forwarded, &[("forwarded", value)]);
        assert_eq!(origin.ip.to_string(), "2001:db8::2");
        assert!(origin.https);
        assert_eq!(origin.host.as_deref(), Some("a.example:8443"));
    }

    #[test]
    fn unconfigured_header_is_ignored() {
        let origin = check(
            "10.0.0.1",
            ForwardedBy::Forwarded,
            &[("x-forwarded-for", "6.6.6.6")],
        );
        assert_eq!(origin.ip.to_string(), "10.0.0.1");
    }
}
