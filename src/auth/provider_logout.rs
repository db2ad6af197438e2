//! Logouts that a provider requests, and the sign-ins that they cover.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::provider_sign_in::ProviderSignIn;

/// What a logout token names; at least one of `sid` and `subject`.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderLogout {
    /// Name of the provider in the configuration.
    pub provider: Arc<str>,
    /// The provider's own session.
    pub sid: Option<String>,
    /// The provider's `sub`.
    pub subject: Option<String>,
}

/// Group of sign-ins at a provider, as a key of the store: half of a SHA-256.
pub type SignInGroup = [u8; 16];

impl ProviderLogout {
    /// Whether it ends a session of this sign-in: with `sid`, those of that `sid`, and those of the
    /// subject whose sign-in had none; without, all of the subject.
    pub fn covers(&self, sign_in: &ProviderSignIn) -> bool {
        let is_subject = || self.subject.as_ref() == Some(&sign_in.subject);
        self.provider == sign_in.provider
            && match (&self.sid, &sign_in.sid) {
                (Some(sid), Some(own)) => sid == own,
                (Some(_), None) | (None, _) => is_subject(),
            }
    }

    /// The groups that contain the sign-ins that it covers, among others.
    pub fn searched_groups(&self) -> Vec<SignInGroup> {
        let of = |kind, name: &Option<String>| {
            let name = name.as_ref()?;
            Some(sign_in_group(kind, &self.provider, name))
        };
        let groups = [
            of(GroupKind::Sid, &self.sid),
            of(GroupKind::Subject, &self.subject),
        ];
        groups.into_iter().flatten().collect()
    }

    /// The groups that contain exactly the sign-ins that it covers.
    pub fn covered_groups(&self) -> Vec<SignInGroup> {
        let of_subject = match self.sid {
            Some(_) => GroupKind::SubjectWithoutSid,
            None => GroupKind::Subject,
        };
        let sid = self.sid.as_ref().map(|sid| (GroupKind::Sid, sid));
        let subject = self.subject.as_ref().map(|subject| (of_subject, subject));
        let named = [sid, subject].into_iter().flatten();
        named
            .map(|(kind, name)| sign_in_group(kind, &self.provider, name))
            .collect()
    }
}

/// Without the names, which are not for logs.
impl std::fmt::Debug for ProviderLogout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderLogout")
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl ProviderSignIn {
    /// The groups by which a logout finds the sign-in.
    pub fn searched_groups(&self) -> Vec<SignInGroup> {
        let of = |kind, name| sign_in_group(kind, &self.provider, name);
        let mut groups = vec![of(GroupKind::Subject, &self.subject)];
        groups.extend(self.sid.as_ref().map(|sid| of(GroupKind::Sid, sid)));
        groups
    }

    /// The groups by whose logouts the sign-in is covered.
    pub fn covering_groups(&self) -> [SignInGroup; 2] {
        let of = |kind, name| sign_in_group(kind, &self.provider, name);
        let narrow = match &self.sid {
            Some(sid) => of(GroupKind::Sid, sid),
            None => of(GroupKind::SubjectWithoutSid, &self.subject),
        };
        [narrow, of(GroupKind::Subject, &self.subject)]
    }
}

#[derive(Clone, Copy)]
enum GroupKind {
    Sid,
    Subject,
    SubjectWithoutSid,
}

fn sign_in_group(kind: GroupKind, provider: &str, name: &str) -> SignInGroup {
    let kind = match kind {
        GroupKind::Sid => "sid",
        GroupKind::Subject => "sub",
        GroupKind::SubjectWithoutSid => "sub without sid",
    };
    half_hash(&[kind, provider, name])
}

/// The key under which the use of a logout token is recorded.
pub fn logout_token_key(provider: &str, token_id: &str) -> [u8; 16] {
    half_hash(&["jti", provider, token_id])
}

/// The key under which the redemption of a code is recorded.
pub fn code_key(provider: &str, code: &str) -> [u8; 16] {
    half_hash(&["code", provider, code])
}

/// Only the last part may contain a NUL.
fn half_hash(parts: &[&str]) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::digest(parts.join("\0")).into();
    let mut half = [0; 16];
    half.copy_from_slice(hash.split_at(16).0);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logout(provider: &str, sid: Option<&str>, subject: Option<&str>) -> ProviderLogout {
        ProviderLogout {
            provider: provider.into(),
            sid: sid.map(str::to_owned),
            subject: subject.map(str::to_owned),
        }
    }

    fn sign_in(sid: Option<&str>, subject: &str) -> ProviderSignIn {
        ProviderSignIn {
            provider: "corp".into(),
            subject: subject.to_owned(),
            sid: sid.map(str::to_owned),
            authenticated_at: 0,
            acr: None,
            amr: [].into(),
        }
    }

    #[test]
    fn sid_and_subject_select_sign_ins() {
        let with_sid = sign_in(Some("s"), "ann");
        let without = sign_in(None, "ann");
        let other_sid = sign_in(Some("t"), "ann");
        let other_user = sign_in(None, "bob");
        let all = [&with_sid, &without, &other_sid, &other_user];
        for (logout, expected) in [
            (logout("corp", Some("s"), None), [true, false, false, false]),
            (
                logout("corp", Some("s"), Some("ann")),
                [true, true, false, false],
            ),
            (logout("corp", None, Some("ann")), [true, true, true, false]),
            (logout("corp", None, None), [false; 4]),
            (logout("other", Some("s"), Some("ann")), [false; 4]),
            // A name is not read as the other kind.
            (logout("corp", Some("ann"), None), [false; 4]),
            (logout("corp", None, Some("s")), [false; 4]),
        ] {
            let covered = all.map(|sign_in| logout.covers(sign_in));
            assert_eq!(covered, expected, "{:?} {:?}", logout.sid, logout.subject);
            // The store finds the same by the groups.
            let marks = logout.covered_groups();
            let marked = all.map(|sign_in| {
                let covering = sign_in.covering_groups();
                covering.iter().any(|group| marks.contains(group))
            });
            assert_eq!(marked, expected, "{:?} {:?}", logout.sid, logout.subject);
            let searched = logout.searched_groups();
            for (sign_in, covered) in all.into_iter().zip(covered) {
                let groups = sign_in.searched_groups();
                let found = groups.iter().any(|group| searched.contains(group));
                assert!(found || !covered, "{:?}", sign_in.subject);
            }
        }
    }
}
