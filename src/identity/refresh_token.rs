//! Refresh tokens: `<session id>.<43 characters>`. The 43 characters encode 16 bytes of entropy and
//! a 16-byte MAC of this gateway. The MAC distinguishes old genuine tokens (presenting one is
//! reuse) from forged ones without storing the old ones.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::auth::session::SessionId;

const SECRET_CHARS: usize = 43;

/// MAC key, derived from the gateway's signing key.
pub(super) type RefreshKey = [u8; 32];

/// A refresh token. Only its hash is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    session: SessionId,
    secret: [u8; 32],
}

impl std::fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RefreshToken({}.…)", self.session)
    }
}

impl RefreshToken {
    /// Accepts the exact form and nothing else.
    pub fn parse(text: &str) -> Option<RefreshToken> {
        let (session, secret) = text.split_once('.')?;
        if secret.len() != SECRET_CHARS {
            return None;
        }
        Some(RefreshToken {
            session: SessionId::parse(session)?,
            secret: URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?,
        })
    }

    /// Makes the first token of a session.
    pub(super) fn first(key: &RefreshKey, session: SessionId) -> RefreshToken {
        RefreshToken::with_mark(key, session, rand::random())
    }

    /// Returns the token's successor. It is deterministic, so that a client that lost the response
    /// or repeats the request gets the same token, without a stored secret.
    pub(super) fn successor(&self, key: &RefreshKey) -> RefreshToken {
        let next = mac(key, b"next", self.session, &self.secret);
        RefreshToken::with_mark(key, self.session, first_half(&next))
    }

    fn with_mark(key: &RefreshKey, session: SessionId, entropy: [u8; 16]) -> RefreshToken {
        let mark = first_half(&mac(key, b"mark", session, &entropy));
        let mut secret = [0; 32];
        for (to, from) in secret.iter_mut().zip(entropy.into_iter().chain(mark)) {
            *to = from;
        }
        RefreshToken { session, secret }
    }

    /// Whether a gateway with this key issued the token.
    pub(super) fn is_genuine(&self, key: &RefreshKey) -> bool {
        let remade = RefreshToken::with_mark(key, self.session, first_half(&self.secret));
        remade.secret.ct_eq(&self.secret).into()
    }

    /// The session that the token refreshes.
    pub(super) fn session(&self) -> SessionId {
        self.session
    }

    /// The hash under which the store holds the token.
    pub(super) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.expose().as_bytes()).into()
    }

    /// Exposes the secret, for the response to its owner.
    pub(super) fn expose(&self) -> String {
        format!("{}.{}", self.session, URL_SAFE_NO_PAD.encode(self.secret))
    }
}

fn mac(key: &RefreshKey, label: &[u8; 4], session: SessionId, data: &[u8]) -> [u8; 32] {
    // HMAC pads a short key with zeros to the hash's block size (RFC 2104, section 2).
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(label);
    mac.update(&session.0);
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn first_half(bytes: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(bytes) {
        *to = *from;
    }
    half
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const KEY: RefreshKey = [7; 32];

    #[test]
    fn token_round_trips_in_documented_format() {
        let token = RefreshToken::first(&KEY, SessionId([0xab; 32]));
        let text = token.expose();
        assert_eq!(text.len(), 64 + 1 + 43);
        assert_eq!(RefreshToken::parse(&text), Some(token));
        let bad = [
            "",
            ".",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}="),
            &format!("{text}A"),
            &text.to_uppercase(),
            &text.replace('.', ":"),
        ];
        for bad in bad {
            assert_eq!(RefreshToken::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn last_character_has_one_encoding() {
        let text = RefreshToken::first(&KEY, SessionId([1; 32])).expose();
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (head, _) = text.split_at(text.len() - 1);
        let read = alphabet
            .chars()
            .filter(|last| RefreshToken::parse(&format!("{head}{last}")).is_some());
        assert_eq!(read.count(), 16);
    }

    #[test]
    fn successor_is_deterministic_and_genuine() {
        let token = RefreshToken::first(&KEY, SessionId([1; 32]));
        let next = token.successor(&KEY);
        assert_eq!(next, token.successor(&KEY));
        assert_ne!(next, token);
        assert!(next.is_genuine(&KEY) && next.successor(&KEY).is_genuine(&KEY));
        assert_ne!(next, token.successor(&[8; 32]));
    }

    #[test]
    fn forged_token_is_not_genuine() {
        let token = RefreshToken::first(&KEY, SessionId([1; 32]));
        assert!(token.is_genuine(&KEY));
        assert!(!token.is_genuine(&[8; 32]));
        let moved = RefreshToken {
            session: SessionId([2; 32]),
            ..token.clone()
        };
        assert!(!moved.is_genuine(&KEY));
        let mut changed = token;
        *changed.secret.last_mut().unwrap() ^= 1;
        assert!(!changed.is_genuine(&KEY));
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let token = RefreshToken::first(&KEY, SessionId([1; 32]));
        let text = token.expose();
        let (_, secret) = text.split_once('.').unwrap();
        assert!(!format!("{token:?}").contains(secret));
    }
}
