//! Charges of a request: the counters from which it spends.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use super::Identity;
use crate::auth::api_key::ApiKeyId;
use crate::auth::session::SessionId;
use crate::auth::token::Claims;
use crate::limits::{Charge, Counter, CounterHasher, KeyPart, Limit, subscriber_network};
use crate::pipeline::facts::RequestFacts;
use crate::pipeline::fields::Fields;
use crate::routing::Route;

/// The user, the session and the token, where the request is authenticated.
pub(super) type LimitSubject<'a> = (&'a str, Option<SessionId>, Option<CountedToken<'a>>);

/// What a limit with `key: token` counts by.
#[derive(Debug, Clone, Copy)]
pub(super) enum CountedToken<'a> {
    Claims(&'a Claims),
    ApiKey(ApiKeyId),
}

impl CountedToken<'_> {
    /// The token of an identity, if it has one.
    fn of(identity: &Identity) -> Option<CountedToken<'_>> {
        match identity.principal.api_key_id() {
            Some(id) => Some(CountedToken::ApiKey(id)),
            None => identity.token.as_deref().map(CountedToken::Claims),
        }
    }
}

/// The limits of a route that need no identity.
pub(super) fn before_auth(route: &Route, facts: &RequestFacts<'_>) -> Vec<Charge> {
    charges_for(&route.limits_before, route, facts, None)
}

/// The limits of a route that need an identity.
pub(super) fn after_auth(
    route: &Route,
    facts: &RequestFacts<'_>,
    user: Option<LimitSubject<'_>>,
) -> Vec<Charge> {
    charges_for(&route.limits_after, route, facts, user)
}

/// The limits of a route that need an identity and apply to this one.
pub(super) fn for_identity(
    route: &Route,
    facts: &RequestFacts<'_>,
    session: Option<SessionId>,
    identity: &Identity,
) -> impl Iterator<Item = Charge> {
    let token = CountedToken::of(identity);
    let charges = after_auth(route, facts, Some((identity.user(), session, token)));
    let roles = identity.roles();
    charges
        .into_iter()
        .filter(move |charge| charge.limit.applies_to(roles))
}

/// Whether the limits of a route that need an identity count by nothing but the route and the caller.
pub(super) fn are_fixed(route: &Route, identity: &Identity) -> bool {
    let mut parts = route.limits_after.iter().flat_map(|limit| &limit.key);
    parts.all(|part| match part {
        KeyPart::Route | KeyPart::User => true,
        KeyPart::Session => identity.session().is_some(),
        KeyPart::Token => CountedToken::of(identity).is_some(),
        KeyPart::Ip | KeyPart::Header(_) => false,
    })
}

fn charges_for(
    limits: &[Arc<Limit>],
    route: &Route,
    facts: &RequestFacts<'_>,
    user: Option<LimitSubject<'_>>,
) -> Vec<Charge> {
    limits
        .iter()
        .map(|limit| Charge {
            limit: Arc::clone(limit),
            counter: counter_for(limit, route, facts, user),
        })
        .collect()
}

fn counter_for(
    limit: &Limit,
    route: &Route,
    facts: &RequestFacts<'_>,
    caller: Option<LimitSubject<'_>>,
) -> Counter {
    let mut naming = CounterHasher::of(&limit.name);
    let session = caller.and_then(|(_, session, _)| session);
    let token = caller.and_then(|(_, _, token)| token);
    for part in &limit.key {
        let mut add = |value: &[u8]| naming.add(key_part_tag(part), value);
        match (part, caller) {
            (KeyPart::Route, _) => add(route.name.as_bytes()),
            (KeyPart::User, Some((user, ..))) => add(user_key(user, token).as_bytes()),
            (KeyPart::Session, _) if let Some(id) = session => add(&id.0),
            (KeyPart::Token, _) if let Some(token) = token => match token {
                CountedToken::Claims(claims) => add(claims.blacklist_key.as_bytes()),
                CountedToken::ApiKey(id) => add(id.as_bytes()),
            },
            (KeyPart::Header(name), _) if let Some(value) = header_key(facts.head.fields, name) => {
                add(&value)
            }
            // A missing part falls back to the address: no key is ever unlimited.
            _ => add_address(&mut naming, facts.client.ip),
        }
    }
    naming.finish()
}

/// Names the counter of a limit by the values of its key's parts: an address (of IPv6 its /64), a
/// session id, else the text itself.
pub fn counter_from_key_parts(limit: &Limit, texts: &[String]) -> Counter {
    let mut naming = CounterHasher::of(&limit.name);
    for (part, text) in limit.key.iter().zip(texts) {
        match part {
            KeyPart::Ip if let Ok(ip) = text.trim_end_matches("/64").parse() => {
                add_address(&mut naming, ip);
            }
            KeyPart::Session if let Some(id) = SessionId::parse(text) => {
                naming.add(key_part_tag(part), &id.0);
            }
            _ => naming.add(key_part_tag(part), text.as_bytes()),
        }
    }
    naming.finish()
}

/// Distinguishes the types of key parts in a counter's name.
fn key_part_tag(part: &KeyPart) -> u8 {
    match part {
        KeyPart::Ip => b'i',
        KeyPart::User => b'u',
        KeyPart::Session => b's',
        KeyPart::Token => b't',
        KeyPart::Route => b'r',
        KeyPart::Header(_) => b'h',
    }
}

fn user_key<'a>(user: &'a str, token: Option<CountedToken<'a>>) -> Cow<'a, str> {
    match token {
        Some(CountedToken::Claims(claims)) if !claims.is_own() => claims.user_key(),
        _ => user.into(),
    }
}

/// All values of the header: a second one does not open a second counter for the first.
fn header_key(fields: Fields<'_>, name: &http::HeaderName) -> Option<Vec<u8>> {
    let mut values = fields.named(name.as_str());
    let mut key = values.next()?.to_vec();
    for value in values {
        key.push(0);
        key.extend_from_slice(value);
    }
    (!key.is_empty()).then_some(key)
}

fn add_address(naming: &mut CounterHasher, ip: IpAddr) {
    let tag = key_part_tag(&KeyPart::Ip);
    match subscriber_network(ip) {
        IpAddr::V4(ip) => naming.add(tag, &ip.octets()),
        IpAddr::V6(ip) => naming.add(tag, ip.octets().first_chunk::<8>().unwrap_or(&[0; 8])),
    }
}
