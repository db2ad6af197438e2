//! What the store says, kept unless it was overtaken by the news that it is out of date.

use std::sync::atomic::Ordering;

use super::super::{CacheKey, Query, QueryResult, SessionLookup, UserHash};
use super::validity::ReadStamp;
use super::{CachedValue, NearCache};
use crate::auth::session::SessionId;
use crate::limits::Decision;

/// The state of things before the store was asked an inquiry.
pub(in super::super) struct QueryStamps {
    session: Option<ReadStamp>,
    token: Option<ReadStamp>,
    user: Option<ReadStamp>,
}

impl NearCache {
    /// To be called before the store is asked, for [`NearCache::cache_result`].
    pub(in super::super) fn stamp_query(&self, inquiry: &Query<'_>) -> QueryStamps {
        QueryStamps {
            session: inquiry
                .session
                .map(|id| self.validity.stamp(&CacheKey::Session(id))),
            token: inquiry
                .blacklist_key
                .map(|key| self.validity.stamp(&CacheKey::Token(key.to_owned()))),
            user: inquiry
                .cut_off_user
                .map(|person| self.validity.stamp(&CacheKey::User(person))),
        }
    }

    /// Takes note of what the store found, as far as it was not overtaken by news.
    pub(in super::super) fn cache_result(
        &self,
        asking: &QueryStamps,
        inquiry: &Query<'_>,
        findings: &QueryResult,
    ) {
        if let (Some(before), Some(id)) = (asking.session, inquiry.session) {
            self.cache_session(id, &findings.session, before);
        }
        // Where one of the first limits refused, nothing was looked up. One that refuses after that takes
        // nothing away: who is refused is who was found, and shall not be asked about again and again.
        let mut first = findings
            .decisions
            .iter()
            .take(inquiry.charges_before_auth.len());
        if first.any(Decision::refuses) {
            return;
        }
        if let (Some(before), Some(key)) = (asking.token, inquiry.blacklist_key) {
            self.cache_token(key, findings.blacklisted, before);
        }
        if let (Some(before), Some(person)) = (asking.user, inquiry.cut_off_user) {
            self.cache_cut_off(person, findings.cut_off, before);
        }
    }

    /// Takes note of what the store said of a session, unless that was overtaken.
    pub(in super::super) fn cache_session(
        &self,
        id: SessionId,
        found: &SessionLookup,
        before: ReadStamp,
    ) {
        if *found == SessionLookup::Missing {
            self.sessions.remove(&id);
            let epoch = self.validity.epoch_if_unchanged(before);
            let at = self.validity.now();
            self.missing.insert(
                id,
                CachedValue {
                    value: (),
                    at,
                    epoch,
                },
            );
            if self.validity.epoch_if_unchanged(before) == 0 {
                self.missing.remove(&id);
            }
            return;
        }
        let epoch = self.validity.epoch_if_unchanged(before);
        if let Some(seen) = self.insert_session(id, found, epoch)
            && self.validity.epoch_if_unchanged(before) == 0
        {
            seen.epoch.store(0, Ordering::SeqCst);
        }
    }

    /// Takes note of what the store said of a token, unless that was overtaken. What was asked before
    /// it was known to be refused does not bring it back.
    pub(in super::super) fn cache_token(&self, key: &str, blacklisted: bool, before: ReadStamp) {
        let epoch = self.validity.epoch_if_unchanged(before);
        let noted = CachedValue {
            value: (),
            at: self.validity.now(),
            epoch,
        };
        if blacklisted {
            if self.revoked.get(key).is_none() {
                self.validity.mark_changed(&CacheKey::Token(key.to_owned()));
            }
            self.revoked.insert(key.to_owned(), noted);
            self.accepted.remove(key);
            return;
        }
        if epoch == 0 {
            return;
        }
        let refused = self.revoked.remove(key);
        self.accepted.insert(key.to_owned(), noted);
        if self.validity.epoch_if_unchanged(before) == 0 {
            self.accepted.remove(key);
            if let Some((key, noted)) = refused {
                self.revoked.insert(key, CachedValue { epoch: 0, ..noted });
            }
        }
    }

    /// Takes note of a person's cut-off; one that is known stays known as for tokens.
    pub(in super::super) fn cache_cut_off(
        &self,
        person: UserHash,
        cut_off: Option<u64>,
        before: ReadStamp,
    ) {
        let epoch = self.validity.epoch_if_unchanged(before);
        let known = self.cut_offs.get(&person).and_then(|noted| noted.value);
        if epoch == 0 && cut_off <= known {
            return;
        }
        let mut before = before;
        if cut_off > known {
            let item = CacheKey::User(person);
            self.validity.mark_changed(&item);
            before = self.validity.stamp(&item);
        }
        let noted = CachedValue {
            value: cut_off,
            at: self.validity.now(),
            epoch,
        };
        self.cut_offs.insert(person, noted);
        if self.validity.epoch_if_unchanged(before) == 0 {
            self.cut_offs
                .insert(person, CachedValue { epoch: 0, ..noted });
        }
    }

    /// To be called before the store is asked about one thing.
    pub(in super::super) fn stamp(&self, item: &CacheKey) -> ReadStamp {
        self.validity.stamp(item)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::Revocation;
    use super::*;

    #[test]
    fn stale_reply_does_not_hide_a_revocation() {
        let replica = NearCache::default();
        let token = |key: &str| CacheKey::Token(key.to_owned());
        // One that is revoked here while the answer is on its way.
        let before = replica.stamp(&token("here"));
        replica.apply(&Revocation::Token("here".to_owned()));
        replica.cache_token("here", false, before);
        assert!(replica.is_revoked("here"));
        // Two answers that come in another order than they were given.
        let before = replica.stamp(&token("elsewhere"));
        replica.cache_token("elsewhere", true, before);
        replica.cache_token("elsewhere", false, before);
        assert!(replica.is_revoked("elsewhere"));
        let person = [1; 16];
        let before = replica.stamp(&CacheKey::User(person));
        replica.cache_cut_off(person, Some(9), before);
        replica.cache_cut_off(person, None, before);
        assert!(replica.is_cut_off(&person, Some(9)));
        // What is asked afterwards counts.
        let before = replica.stamp(&token("here"));
        replica.cache_token("here", false, before);
        assert!(!replica.is_revoked("here"));
    }

    #[test]
    fn cache_holds_many_tokens() {
        let replica = NearCache::default();
        let keys = || (0..100_000).map(|number| format!("00000000-0000-4000-9000-{number:012x}"));
        for key in keys() {
            let before = replica.stamp(&CacheKey::Token(key.clone()));
            replica.cache_token(&key, false, before);
        }
        let known = keys().filter(|key| replica.was_accepted(key, Duration::MAX));
        assert_eq!(known.count(), 100_000);
    }
}
