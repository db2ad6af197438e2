//! Memo of a worker: the callers of recent requests. Their next requests need no look-up.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use self::candidates::Candidates;
use super::charges;
use super::claim::{Claim, Presented};
use super::{Admission, CredentialKind, Identity, Principal};
use crate::auth::api_key::PresentedApiKey;
use crate::auth::principal::UsedApiKey;
use crate::auth::session::{Millis, SessionId};
use crate::issuers::verifier::CachedToken;
use crate::limits::Charge;
use crate::pipeline::facts::RequestFacts;
use crate::pipeline::fields::FieldKind;
use crate::routing::Route;
use crate::sessions::{Credential, ValidEntries, Verdict};
use crate::telemetry::metrics::CacheName;

mod candidates;

/// Maximum number of entries, of about one KiB each.
const CAPACITY: usize = 4096;
/// Bytes of an `Authorization` that select its entry.
const HASHED: usize = 64;

/// Callers that the gateway's caches have identified, by route and credential.
///
/// An entry repeats what the caches say. It is void, and the request is looked up, as soon as one of
/// them might say anything else:
/// * another configuration is in force, whose routes are others;
/// * the verifier would not accept the token from its cache ([`Verifier::accepts`]);
/// * the near cache would not accept the credential ([`NearCache::holds`]);
/// * the store may lack revocations ([`Sessions::confirm_by`]);
/// * the client is not the one to which the token or the session is bound;
/// * the secret of the API key is no longer valid, or its address is not allowed.
///
/// Limits are charged for every request.
///
/// [`Verifier::accepts`]: crate::issuers::verifier::Verifier::accepts
/// [`NearCache::holds`]: crate::store::near_cache::NearCache::holds
/// [`Sessions::confirm_by`]: crate::sessions::Sessions::confirm_by
pub struct Memo {
    hasher: RandomState,
    table: Mutex<Table>,
}

struct Table {
    entries: Cache<u64, Entry>,
    candidates: Candidates,
}

struct Entry {
    /// A route of one configuration: a reload makes others.
    route: Arc<Route>,
    credential: KnownCredential,
    identity: Identity,
    valid_by: ValidEntries,
    charges: Option<Arc<[Charge]>>,
}

/// A credential by which callers are recalled: the only `Authorization` of a request, as the verifier
/// keeps the text of bearer tokens; or the ID of a session, or of an API key with the hash of its secret:
/// their texts are kept nowhere.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) enum MemoKey<'a> {
    Authorization(&'a [u8]),
    Session(SessionId, CredentialKind),
    ApiKey(PresentedApiKey),
}

/// A credential as the caches hold it.
enum KnownCredential {
    Bearer {
        authorization: Box<[u8]>,
        token: CachedToken,
    },
    Session(SessionId, CredentialKind),
    ApiKey(PresentedApiKey),
}

/// A caller who may pass, unless a limit refuses.
pub(super) struct Recalled {
    pub(super) identity: Identity,
    /// The charges with identity; `None`: they depend on more than the caller.
    pub(super) charges: Option<Arc<[Charge]>>,
}

impl Default for Memo {
    fn default() -> Memo {
        let table = Table {
            entries: Cache::new(CAPACITY),
            candidates: Candidates::default(),
        };
        Memo {
            hasher: RandomState::default(),
            table: Mutex::new(table),
        }
    }
}

impl Memo {
    fn hash(&self, route: &Arc<Route>, key: MemoKey<'_>) -> u64 {
        let key = match key {
            // The end of a token is its signature.
            MemoKey::Authorization(value) => {
                MemoKey::Authorization(value.last_chunk::<HASHED>().map_or(value, |end| end))
            }
            MemoKey::Session(..) | MemoKey::ApiKey(_) => key,
        };
        self.hasher.hash_one((Arc::as_ptr(route), key))
    }
}

impl MemoKey<'_> {
    /// The key of the request's `Authorization`, if it has one.
    pub(super) fn authorization<'f>(facts: &RequestFacts<'f>) -> Option<MemoKey<'f>> {
        let mut values = facts.head.fields.all(FieldKind::Authorization);
        let value = values.next()?;
        // More than one are ambiguous.
        values
            .next()
            .is_none()
            .then_some(MemoKey::Authorization(value))
    }

    /// The key of a credential that the request presents.
    fn of<'f>(presented: Presented<'_>, facts: &RequestFacts<'f>) -> Option<MemoKey<'f>> {
        match presented {
            Presented::Token(_) => MemoKey::authorization(facts),
            Presented::Session(id, kind) => Some(MemoKey::Session(id, kind)),
            Presented::ApiKey(key) => Some(MemoKey::ApiKey(key)),
        }
    }
}

impl Entry {
    fn is_of(&self, route: &Arc<Route>, key: MemoKey<'_>) -> bool {
        let is_same = match (&self.credential, key) {
            (KnownCredential::Bearer { authorization, .. }, MemoKey::Authorization(value)) => {
                **authorization == *value
            }
            (KnownCredential::Session(id, kind), MemoKey::Session(other, other_kind)) => {
                *id == other && *kind == other_kind
            }
            (KnownCredential::ApiKey(own), MemoKey::ApiKey(key)) => *own == key,
            _ => false,
        };
        is_same && Arc::ptr_eq(&self.route, route)
    }
}

impl Admission<'_> {
    /// Returns the caller of a request, where the memo has it.
    pub(super) fn recall(
        &self,
        route: &Arc<Route>,
        key: MemoKey<'_>,
        facts: &RequestFacts<'_>,
    ) -> Option<Recalled> {
        let hash = self.memo.hash(route, key);
        let mut table = self.memo.table.lock();
        let entry = table.entries.get(&hash)?;
        if !entry.is_of(route, key) {
            return None;
        }
        let Some(confirmed_at) = self.confirm_entry(entry, facts) else {
            table.entries.remove(&hash);
            return None;
        };
        Some(Recalled {
            identity: entry.identity.confirmed_again(confirmed_at),
            charges: entry.charges.clone(),
        })
    }

    /// The store's clock, unless the entry is void.
    fn confirm_entry(&self, entry: &Entry, facts: &RequestFacts<'_>) -> Option<Millis> {
        let idle = self.snapshot.settings.sessions.idle_timeout;
        let confirmed_at = self.sessions.confirm_by(&entry.valid_by, idle)?;
        let session = entry.identity.session();
        let is_bound_client =
            session.is_none_or(|session| self.binding_mismatches(session, facts).is_empty());
        let is_accepted = match &entry.credential {
            KnownCredential::Session(..) => true,
            KnownCredential::ApiKey(key) => {
                let record = entry.valid_by.session()?;
                let judged =
                    record
                        .api_key
                        .as_ref()?
                        .judge(&key.hash, facts.client.ip, confirmed_at);
                judged.is_ok()
            }
            KnownCredential::Bearer { token, .. } => {
                token.claims().allows_certificate(facts.certificate)
                    && self.snapshot.verifier.accepts(token, facts.now)
            }
        };
        if !(is_bound_client && is_accepted) {
            return None;
        }
        let cache = match entry.credential {
            KnownCredential::ApiKey(_) => Some(CacheName::ApiKeys),
            _ => session.map(|_| CacheName::Sessions),
        };
        if let Some(cache) = cache {
            self.metrics.count_cache_lookup(cache, true);
        }
        Some(confirmed_at)
    }

    /// Adds the caller of a request that nothing but a limit refuses, if the credential recurs and the
    /// caches identify it alone.
    pub(super) fn memorize(
        &self,
        route: &Arc<Route>,
        presented: Presented<'_>,
        claimed: &Claim,
        facts: &RequestFacts<'_>,
    ) {
        let Some(key) = MemoKey::of(presented, facts) else {
            return;
        };
        let hash = self.memo.hash(route, key);
        if self.memo.table.lock().candidates.recurs(hash)
            && let Some(credential) = self.known_credential(key, presented, claimed, facts)
            && let Some(entry) = self.build_entry(route, credential, claimed, facts)
        {
            self.memo.table.lock().entries.insert(hash, entry);
        }
    }

    fn known_credential(
        &self,
        key: MemoKey<'_>,
        presented: Presented<'_>,
        claimed: &Claim,
        facts: &RequestFacts<'_>,
    ) -> Option<KnownCredential> {
        let (authorization, text) = match (key, presented) {
            (MemoKey::Session(id, kind), _) => return Some(KnownCredential::Session(id, kind)),
            (MemoKey::ApiKey(key), _) => return Some(KnownCredential::ApiKey(key)),
            (MemoKey::Authorization(value), Presented::Token(text)) => (value, text),
            (MemoKey::Authorization(_), Presented::Session(..) | Presented::ApiKey(_)) => {
                return None;
            }
        };
        let token = self.snapshot.verifier.cached(text, facts.now)?;
        // Its claims are those by which the caller was identified.
        let is_claimed = Arc::ptr_eq(token.claims(), claimed.token()?);
        is_claimed.then(|| KnownCredential::Bearer {
            authorization: authorization.into(),
            token,
        })
    }

    /// Identifies the caller by the near cache's entries alone.
    fn build_entry(
        &self,
        route: &Arc<Route>,
        credential: KnownCredential,
        claimed: &Claim,
        facts: &RequestFacts<'_>,
    ) -> Option<Entry> {
        let idle = self.snapshot.settings.sessions.idle_timeout;
        let valid_by = self.sessions.valid_entries(&claimed.credential, idle)?;
        let principal = match (&claimed.credential, valid_by.session()) {
            (Credential::Token(claims, _), None) => Principal::Token(Arc::clone(claims)),
            (Credential::ApiKey(presented), record) => Principal::ApiKey(Arc::new(UsedApiKey {
                record: Arc::clone(record?),
                presented: *presented,
            })),
            (_, session) => Principal::Session(Arc::clone(session?)),
        };
        if let Principal::Session(session) = &principal
            && (!self.binding_mismatches(session, facts).is_empty()
                || self.concerns_provider(route, Some(session)))
        {
            return None;
        }
        if let Principal::ApiKey(used) = &principal {
            let grant = used.record.api_key.as_ref()?;
            let judged = grant.judge(&used.presented.hash, facts.client.ip, facts.now);
            judged.ok()?;
        }
        let verdict = Verdict::Valid(principal);
        let identity = self.identity_of(claimed, verdict, facts, facts.now).ok()?;
        let require = &route.require;
        // A sign-in becomes too old with time alone.
        let ages = require
            .sign_in
            .as_ref()
            .is_some_and(|it| it.max_age.is_some());
        if ages || !self.is_admitted(require, &identity) {
            return None;
        }
        if let Some(session) = valid_by.recorded_session() {
            identity.uses.get_or_init(|| session);
        }
        let session = claimed.session();
        Some(Entry {
            route: Arc::clone(route),
            credential,
            charges: charges::are_fixed(route, &identity)
                .then(|| charges::for_identity(route, facts, session, &identity).collect()),
            identity,
            valid_by,
        })
    }
}

#[cfg(test)]
mod tests;
