//! Whose counter a request spends from.

use std::net::IpAddr;
use std::sync::Arc;

use super::Asked;
use crate::limits::{Charge, Counter, KeyPart, Limit};
use crate::routing::Route;
use crate::session::SessionId;
use crate::token::Claims;

/// The user, the session and the token, where the request is authenticated.
pub(super) type Who<'a> = (&'a str, Option<SessionId>, Option<&'a Claims>);

/// The limits of a route that need no identity.
pub(super) fn before(route: &Route, asked: &Asked<'_>) -> Vec<Charge> {
    charges(&route.limits_before, route, asked, None)
}

/// The limits of a route that wait for one.
pub(super) fn after(route: &Route, asked: &Asked<'_>, who: Option<Who<'_>>) -> Vec<Charge> {
    charges(&route.limits_after, route, asked, who)
}

fn charges(
    limits: &[Arc<Limit>],
    route: &Route,
    asked: &Asked<'_>,
    who: Option<Who<'_>>,
) -> Vec<Charge> {
    limits
        .iter()
        .map(|limit| Charge {
            limit: Arc::clone(limit),
            counter: counter(limit, route, asked, who),
        })
        .collect()
}

fn counter(limit: &Limit, route: &Route, asked: &Asked<'_>, who: Option<Who<'_>>) -> Counter {
    let ip = address_key(asked.ip);
    // A part that the request lacks falls back to the address: a missing key is never an unlimited one.
    let parts = limit.key.iter().map(|part| {
        let value: Option<Vec<u8>> = match part {
            KeyPart::Ip => None,
            KeyPart::Route => Some(route.name.as_bytes().to_vec()),
            KeyPart::User => who.map(|(user, _, token)| user_key(user, token)),
            KeyPart::Session => who
                .and_then(|(_, session, _)| session)
                .map(|id| id.0.to_vec()),
            KeyPart::Token => who
                .and_then(|(_, _, token)| token)
                .map(|claims| claims.blacklist_key.clone().into_bytes()),
            KeyPart::Header(name) => header_key(asked, name),
        };
        match value {
            Some(value) => (tag(part), value),
            None => (tag(&KeyPart::Ip), ip.clone()),
        }
    });
    counter_of(limit, parts)
}

/// Names the counter of a limit by the texts of its key's parts: an address (of IPv6 its /64), a
/// session id, else the text as it is.
pub fn counter_of_texts(limit: &Limit, texts: &[String]) -> Counter {
    let parts = limit.key.iter().zip(texts).map(|(part, text)| {
        let as_typed = || text.as_bytes().to_vec();
        let value = match part {
            KeyPart::Ip => text
                .trim_end_matches("/64")
                .parse()
                .map_or_else(|_| as_typed(), address_key),
            KeyPart::Session => SessionId::parse(text).map_or_else(as_typed, |id| id.0.to_vec()),
            KeyPart::User | KeyPart::Token | KeyPart::Route | KeyPart::Header(_) => as_typed(),
        };
        (tag(part), value)
    });
    counter_of(limit, parts)
}

fn counter_of(limit: &Limit, parts: impl Iterator<Item = (u8, Vec<u8>)>) -> Counter {
    let parts: Vec<(u8, Vec<u8>)> = parts.collect();
    Counter::of(
        &limit.name,
        parts.iter().map(|(tag, value)| (*tag, value.as_slice())),
    )
}

/// Tells kinds of key parts apart in a counter's name.
fn tag(part: &KeyPart) -> u8 {
    match part {
        KeyPart::Ip => b'i',
        KeyPart::User => b'u',
        KeyPart::Session => b's',
        KeyPart::Token => b't',
        KeyPart::Route => b'r',
        KeyPart::Header(_) => b'h',
    }
}

/// A user is (issuer, user); our own users come with a session and need no issuer.
fn user_key(user: &str, token: Option<&Claims>) -> Vec<u8> {
    match token.filter(|claims| claims.trusted.is_some()) {
        Some(claims) => claims.person().into_bytes(),
        None => user.as_bytes().to_vec(),
    }
}

/// All values of the header: a second one does not open a second counter for the first.
fn header_key(asked: &Asked<'_>, name: &http::HeaderName) -> Option<Vec<u8>> {
    let mut values = asked.headers.get_all(name).iter();
    let mut key = values.next()?.as_bytes().to_vec();
    for value in values {
        key.push(0);
        key.extend_from_slice(value.as_bytes());
    }
    (!key.is_empty()).then_some(key)
}

/// One subscriber: an IPv4 address (also when it is mapped into IPv6), or a /64.
fn address_key(ip: IpAddr) -> Vec<u8> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().into_iter().take(8).collect(),
    }
}
