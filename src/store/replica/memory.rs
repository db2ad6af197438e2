//! How much is remembered, and what each of it takes of this machine's memory, roughly.

use std::sync::Arc;

use quick_cache::Weighter;

use super::super::PersonHash;
use super::{Noted, Seen};
use crate::auth::session::{Session, SessionId};
use crate::memory::{MIB, Share};

/// More than a million sessions at most.
pub(super) const SESSIONS: Share = Share {
    part: 4,
    least: 16 * MIB,
    most: 1024 * MIB,
};
/// Of tokens that are not refused, and of people: more than a million at most.
pub(super) const MARKS: Share = Share {
    part: 32,
    least: 8 * MIB,
    most: 256 * MIB,
};
/// What the allocator and the cache need for each.
const PLACE: usize = 150;

#[derive(Debug, Clone)]
pub(super) struct Weight;

impl Weighter<SessionId, Arc<Seen>> for Weight {
    fn weight(&self, _: &SessionId, seen: &Arc<Seen>) -> u64 {
        seen.session.as_ref().map_or(200, |session| weight(session))
    }
}

impl Weighter<String, Noted<()>> for Weight {
    fn weight(&self, key: &String, _: &Noted<()>) -> u64 {
        (key.len() + PLACE) as u64
    }
}

impl Weighter<PersonHash, Noted<Option<u64>>> for Weight {
    fn weight(&self, _: &PersonHash, _: &Noted<Option<u64>>) -> u64 {
        PLACE as u64
    }
}

/// What a session takes here, roughly: itself, its own texts, and its place. Those that are shared count
/// with each, for nobody knows with how many.
fn weight(session: &Session) -> u64 {
    let device = [&session.device.kind, &session.device.name];
    let names = session.roles.iter().chain(&*session.scopes);
    let texts = session.user.len()
        + session.email.len()
        + session.name.as_ref().map_or(0, String::len)
        + session.user_agent.len()
        + device
            .into_iter()
            .flatten()
            .map(|it| it.len())
            .sum::<usize>()
        + session.data.len()
        + names
            .map(|name| name.len() + size_of::<String>())
            .sum::<usize>();
    let own = size_of::<Session>() + size_of::<Seen>();
    (texts + own + PLACE) as u64
}
