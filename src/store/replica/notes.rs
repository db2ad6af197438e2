//! What the store says, kept unless it was overtaken by the news that it is out of date.

use std::sync::atomic::Ordering;

use super::super::{Findings, Found, Inquiry, Item, PersonHash};
use super::guard::Before;
use super::{Noted, Replica};
use crate::auth::session::SessionId;
use crate::limits::Decision;

/// The state of things before the store was asked an inquiry.
pub(in super::super) struct Asking {
    session: Option<Before>,
    token: Option<Before>,
    person: Option<Before>,
}

impl Replica {
    /// To be called before the store is asked, for [`Replica::keep`].
    pub(in super::super) fn asking(&self, inquiry: &Inquiry<'_>) -> Asking {
        Asking {
            session: inquiry
                .session
                .map(|id| self.guard.before(&Item::Session(id))),
            token: inquiry
                .blacklist_key
                .map(|key| self.guard.before(&Item::Token(key.to_owned()))),
            person: inquiry
                .cut_off_of
                .map(|person| self.guard.before(&Item::Person(person))),
        }
    }

    /// Takes note of what the store found, as far as it was not overtaken by news.
    pub(in super::super) fn keep(
        &self,
        asking: &Asking,
        inquiry: &Inquiry<'_>,
        findings: &Findings,
    ) {
        if let (Some(before), Some(id)) = (asking.session, inquiry.session) {
            self.note_session(id, &findings.session, before);
        }
        // Where one of the first limits refused, nothing was looked up. One that refuses after that takes
        // nothing away: who is refused is who was found, and shall not be asked about again and again.
        let mut first = findings.decisions.iter().take(inquiry.before.len());
        if first.any(Decision::refuses) {
            return;
        }
        if let (Some(before), Some(key)) = (asking.token, inquiry.blacklist_key) {
            self.note_token(key, findings.blacklisted, before);
        }
        if let (Some(before), Some(person)) = (asking.person, inquiry.cut_off_of) {
            self.note_person(person, findings.cut_off, before);
        }
    }

    /// Takes note of what the store said of a session, unless that was overtaken.
    pub(in super::super) fn note_session(&self, id: SessionId, found: &Found, before: Before) {
        if *found == Found::Missing {
            self.sessions.remove(&id);
            let epoch = self.guard.still(before);
            let at = self.guard.now();
            self.missing.insert(
                id,
                Noted {
                    says: (),
                    at,
                    epoch,
                },
            );
            if self.guard.still(before) == 0 {
                self.missing.remove(&id);
            }
            return;
        }
        let epoch = self.guard.still(before);
        if let Some(seen) = self.remember_as_of(id, found, epoch)
            && self.guard.still(before) == 0
        {
            seen.epoch.store(0, Ordering::SeqCst);
        }
    }

    /// Takes note of what the store said of a token, unless that was overtaken. What was asked before
    /// it was known to be refused does not bring it back.
    pub(in super::super) fn note_token(&self, key: &str, blacklisted: bool, before: Before) {
        let epoch = self.guard.still(before);
        let noted = Noted {
            says: (),
            at: self.guard.now(),
            epoch,
        };
        if blacklisted {
            if self.revoked.get(key).is_none() {
                self.guard.changed(&Item::Token(key.to_owned()));
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
        if self.guard.still(before) == 0 {
            self.accepted.remove(key);
            if let Some((key, noted)) = refused {
                self.revoked.insert(key, Noted { epoch: 0, ..noted });
            }
        }
    }

    /// Takes note of a person's cut-off; one that is known stays known as for tokens.
    pub(in super::super) fn note_person(
        &self,
        person: PersonHash,
        cut_off: Option<u64>,
        before: Before,
    ) {
        let epoch = self.guard.still(before);
        let known = self.cut_offs.get(&person).and_then(|noted| noted.says);
        if epoch == 0 && cut_off <= known {
            return;
        }
        let mut before = before;
        if cut_off > known {
            let item = Item::Person(person);
            self.guard.changed(&item);
            before = self.guard.before(&item);
        }
        let noted = Noted {
            says: cut_off,
            at: self.guard.now(),
            epoch,
        };
        self.cut_offs.insert(person, noted);
        if self.guard.still(before) == 0 {
            self.cut_offs.insert(person, Noted { epoch: 0, ..noted });
        }
    }

    /// To be called before the store is asked about one thing.
    pub(in super::super) fn before(&self, item: &Item) -> Before {
        self.guard.before(item)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::Revocation;
    use super::*;

    #[test]
    fn an_answer_from_before_a_revocation_was_known_does_not_hide_it() {
        let replica = Replica::default();
        let token = |key: &str| Item::Token(key.to_owned());
        // One that is revoked here while the answer is on its way.
        let before = replica.before(&token("here"));
        replica.apply(&Revocation::Token("here".to_owned()));
        replica.note_token("here", false, before);
        assert!(replica.is_revoked("here"));
        // Two answers that come in another order than they were given.
        let before = replica.before(&token("elsewhere"));
        replica.note_token("elsewhere", true, before);
        replica.note_token("elsewhere", false, before);
        assert!(replica.is_revoked("elsewhere"));
        let person = [1; 16];
        let before = replica.before(&Item::Person(person));
        replica.note_person(person, Some(9), before);
        replica.note_person(person, None, before);
        assert!(replica.is_cut_off(&person, Some(9)));
        // What is asked afterwards counts.
        let before = replica.before(&token("here"));
        replica.note_token("here", false, before);
        assert!(!replica.is_revoked("here"));
    }

    #[test]
    fn many_tokens_are_remembered() {
        let replica = Replica::default();
        let keys = || (0..100_000).map(|number| format!("00000000-0000-4000-9000-{number:012x}"));
        for key in keys() {
            let before = replica.before(&Item::Token(key.clone()));
            replica.note_token(&key, false, before);
        }
        let known = keys().filter(|key| replica.was_accepted(key, Duration::MAX));
        assert_eq!(known.count(), 100_000);
    }
}
