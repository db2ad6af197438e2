//! The store's changes, heard while they happen: what this gateway remembers is kept right by them,
//! and what others revoked is known here at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::replica::Replica;
use super::{Engine, Found, Revocation, Store, StoreError};
use crate::auth::session::{Millis, SessionId};

/// For how long it is enough that every change up to a moment was heard: with what an answer takes on
/// its way it stays below the second that is promised.
const GOOD_FOR: Duration = Duration::from_millis(700);
/// How many changes are looked at together.
const TOGETHER: usize = 128;

/// What a key of the store that gateways remember is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Item {
    Session(SessionId),
    /// A blacklist key.
    Token(String),
    Person(PersonHash),
}

/// Names a person without saying who it is; see [`person_hash`].
pub type PersonHash = [u8; 16];

/// What a listener hears.
pub(super) enum News {
    Changed(Item),
    /// Everything may have changed, or some of it was not heard.
    Everything,
    /// Every change up to this moment has been heard; by the store's clock it was not later than this.
    HeardAll(Instant, Millis),
    /// Nothing is heard for now.
    Deaf,
}

/// What was heard and is to be looked at, in its order.
pub(super) enum Told {
    Changed(Item),
    UpTo(Millis),
}

/// The first half of the SHA-256 of what admission knows a person by.
pub fn person_hash(user_key: &str) -> PersonHash {
    let hash = Sha256::digest(user_key.as_bytes());
    hash.first_chunk().copied().unwrap_or_default()
}

/// Does to what is remembered what a piece of news says; gives what is to be looked at of it.
pub(super) fn hear(
    replica: &Replica,
    news: News,
    clock: impl Fn() -> Millis,
    watched: impl Fn(SessionId) -> bool,
) -> Option<Told> {
    match news {
        News::Changed(item) => {
            let remembered = replica.changed(&item, clock());
            let matters = match &item {
                Item::Session(id) => remembered || watched(*id),
                Item::Token(_) | Item::Person(_) => true,
            };
            return matters.then_some(Told::Changed(item));
        }
        News::HeardAll(as_of, now) => {
            replica.heard_all(as_of, GOOD_FOR);
            return Some(Told::UpTo(now));
        }
        News::Everything => replica.gap(),
        News::Deaf => replica.deaf(),
    }
    None
}

impl Store {
    /// Follows the store's changes for ever. What changed of the sessions that are remembered or
    /// watched, of the blacklist and of cut-offs is looked up at once; revocations among it are
    /// announced as this gateway's own are.
    pub async fn follow(self, watched: impl Fn(SessionId) -> bool + Send + Sync + 'static) {
        let Engine::Redis(redis) = &self.engine else {
            // All changes are made here.
            self.shared.metrics.store_listening.set(1);
            return;
        };
        let (tell, told) = mpsc::unbounded_channel();
        let shared = Arc::clone(&self.shared);
        let clock = redis.clone();
        let hear = move |news| {
            match &news {
                News::HeardAll(..) => shared.metrics.store_listening.set(1),
                News::Deaf => shared.metrics.store_listening.set(0),
                News::Everything => clock.doubt(),
                News::Changed(_) => {}
            }
            if let Some(told) = hear(&shared.replica, news, || clock.clock(), &watched) {
                // The other end lives as long as this one.
                let _ = tell.send(told);
            }
        };
        tokio::join!(redis.listen(hear), self.look_up(told));
    }

    async fn look_up(&self, mut told: mpsc::UnboundedReceiver<Told>) {
        let mut batch = Vec::new();
        while told.recv_many(&mut batch, TOGETHER).await > 0 {
            let (mut items, mut up_to) = (Vec::new(), None);
            for told in batch.drain(..) {
                match told {
                    Told::Changed(item) => items.push(item),
                    Told::UpTo(now) => up_to = Some(now),
                }
            }
            match (self.look_at(items).await, up_to) {
                (Ok(()), Some(now)) => self.shared.heard.store(now, Ordering::SeqCst),
                (Ok(()), None) => {}
                // Nothing is lost: what changed is asked for when it is needed.
                (Err(error), _) => {
                    tracing::debug!(%error, "changes in the store could not be looked at");
                }
            }
        }
    }

    async fn look_at(&self, items: Vec<Item>) -> Result<(), StoreError> {
        let (mut sessions, mut tokens, mut people) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::Session(id) => sessions.push(id),
                Item::Token(key) => tokens.push(key),
                Item::Person(hash) => people.push(hash),
            }
        }
        // Without an idle timeout: idleness is no change.
        for (id, found) in self.found("follow", &sessions, None).await? {
            // One that is missing may live elsewhere.
            if matches!(found, Found::Revoked(_)) {
                self.spread(Revocation::Session(id));
            }
        }
        let listed = self.look_up_tokens(tokens).await?;
        for (key, _) in listed.into_iter().filter(|(_, listed)| *listed) {
            self.spread(Revocation::Token(key));
        }
        for (person, second) in self.look_up_people(people).await? {
            if let Some(second) = second {
                self.spread(Revocation::Person(person, second));
            }
        }
        Ok(())
    }
}
