//! The tokens of a session as they are sealed, and the rules for their exchange.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;
use zeroize::Zeroizing;

use crate::auth::sealing::{KeyRing, Opened};
use crate::auth::session::{Millis, SessionId};
use crate::identity::oidc::TokenResponse;
use crate::routing::ProviderTokenKind;
use crate::settings::provider::{Issuer, Provider, RecheckOutage};

/// Purpose of the associated data, so that no other sealed text of a session opens as its tokens.
const PURPOSE: &[u8] = b"provider tokens\0";
/// Remaining validity below which a token is refreshed before it is forwarded.
const MIN_VALIDITY: Millis = 10_000;
/// How long the tokens of an exchange are forwarded in any case, if they are valid: some providers issue none
/// that lives longer, and the requests that wait share one exchange.
const SHARED_FOR: Millis = 2_000;
/// Pause after the first exchange that fails; it doubles with each further one.
const FIRST_PAUSE: Millis = 10_000;
/// Maximum pause between exchanges that fail.
const MAX_PAUSE: Millis = 5 * 60 * 1000;
/// Pause after an exchange that fails, before another one for a request that waits for it.
const FORWARD_PAUSE: Millis = 1000;

/// Provider tokens of a session. They are not printed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct KeptTokens {
    /// Name of the provider.
    pub(super) provider: String,
    /// Issuer and client of the tokens: a name may pass to another provider, which must not receive them.
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    client_id: String,
    #[serde(with = "secret")]
    pub(super) access_token: SecretString,
    /// `None`: the provider does not say when it expires.
    pub(super) access_expires_at: Option<Millis>,
    #[serde(with = "optional_secret", default)]
    pub(super) id_token: Option<SecretString>,
    pub(super) id_expires_at: Option<Millis>,
    /// Whether the latest response had an ID token.
    pub(super) renews_id_token: bool,
    #[serde(with = "optional_secret", default)]
    pub(super) refresh_token: Option<SecretString>,
    /// When the provider last confirmed the session.
    pub(super) confirmed_at: Millis,
    /// When the tokens were last exchanged.
    #[serde(default)]
    pub(super) exchanged_at: Option<Millis>,
    pub(super) progress: Progress,
    #[serde(default)]
    pub(super) failures: Option<Failures>,
    /// Whether an exchange that was lost may have used up the refresh token, so that `invalid_grant` is no
    /// clear response.
    #[serde(default)]
    pub(super) is_doubtful: bool,
}

/// Whether a gateway is exchanging the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Progress {
    Idle,
    /// The refresh token may be used. The holder writes the outcome before this time; afterward, the
    /// exchange is lost.
    Exchanging {
        until: Millis,
    },
    /// The successor of the refresh token is kept, and the rest of the response is evaluated.
    Evaluating {
        until: Millis,
    },
}

/// Exchanges that failed since the provider last confirmed the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failures {
    pub(super) count: u32,
    pub(super) first_at: Millis,
    pub(super) latest_at: Millis,
}

/// Why an exchange is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The provider has not confirmed the session for this long.
    Recheck(Duration),
    /// A request waits for a token.
    Forward(ProviderTokenKind),
}

impl KeptTokens {
    /// The tokens of a sign-in. An ID token that was not verified, which has no expiry, is not kept.
    pub(super) fn of_sign_in(
        provider: &Provider,
        tokens: &TokenResponse,
        id_expires_at: Option<Millis>,
        now: Millis,
    ) -> KeptTokens {
        KeptTokens {
            provider: provider.name.as_ref().to_owned(),
            issuer: issuer_of(provider),
            client_id: provider.client_id.clone(),
            access_token: tokens.access_token.clone(),
            access_expires_at: expiry(tokens.expires_in, now),
            id_token: tokens.id_token.clone().filter(|_| id_expires_at.is_some()),
            id_expires_at,
            renews_id_token: id_expires_at.is_some(),
            refresh_token: tokens.refresh_token.clone(),
            confirmed_at: now,
            exchanged_at: None,
            progress: Progress::Idle,
            failures: None,
            is_doubtful: false,
        }
    }

    /// Whether a provider issued the tokens, to the client that it has now.
    pub(super) fn are_of(&self, provider: &Provider) -> bool {
        *self.provider == *provider.name
            && self.issuer == issuer_of(provider)
            && self.client_id == provider.client_id
    }

    /// Records a failed exchange.
    pub(super) fn fail(&mut self, now: Millis) {
        self.progress = Progress::Idle;
        let previous = self.failures;
        self.failures = Some(Failures {
            count: previous.map_or(1, |previous| previous.count.saturating_add(1)),
            first_at: previous.map_or(now, |previous| previous.first_at),
            latest_at: now,
        });
    }

    /// Claims the tokens for an exchange. A claim that is over without an outcome is an exchange that was
    /// lost.
    pub(super) fn claim(&mut self, until: Millis) {
        if matches!(self.progress, Progress::Exchanging { .. }) {
            self.is_doubtful = true;
        }
        self.progress = Progress::Exchanging { until };
    }

    /// Until when a gateway has claimed the tokens.
    pub(super) fn claimed_until(&self) -> Millis {
        match self.progress {
            Progress::Idle => 0,
            Progress::Exchanging { until } | Progress::Evaluating { until } => until,
        }
    }

    /// Keeps the successor of the refresh token, before anything else of the response is evaluated.
    /// Without one, the token stays valid.
    pub(super) fn keep_successor(&mut self, successor: Option<SecretString>, until: Millis) {
        if let Some(successor) = successor {
            self.refresh_token = Some(successor);
        }
        self.progress = Progress::Evaluating { until };
        self.is_doubtful = false;
    }

    /// Takes over the tokens of a response by which the provider has confirmed the session.
    pub(super) fn confirm(
        &mut self,
        tokens: &TokenResponse,
        id_expires_at: Option<Millis>,
        now: Millis,
    ) {
        self.access_token = tokens.access_token.clone();
        self.access_expires_at = expiry(tokens.expires_in, now);
        self.renews_id_token = id_expires_at.is_some();
        if id_expires_at.is_some() {
            self.id_token = tokens.id_token.clone();
            self.id_expires_at = id_expires_at;
        }
        self.progress = Progress::Idle;
        self.confirmed_at = now;
        self.exchanged_at = Some(now);
        self.failures = None;
    }

    /// The token to forward, if it is valid for long enough: until it expires where nothing replaces it.
    pub(super) fn usable(&self, kind: ProviderTokenKind, now: Millis) -> Option<&SecretString> {
        let (token, expires_at) = match kind {
            ProviderTokenKind::Access => (Some(&self.access_token), self.access_expires_at),
            ProviderTokenKind::Id => (self.id_token.as_ref(), self.id_expires_at),
        };
        let is_shared = self.exchanged_at.is_some_and(|at| now < at + SHARED_FOR);
        let is_final = self.refresh_token.is_none();
        let required = if is_shared || is_final {
            1
        } else {
            MIN_VALIDITY
        };
        let is_valid = expires_at.is_none_or(|at| at >= now.saturating_add(required));
        token.filter(|_| is_valid)
    }

    /// Whether the session has a token of this kind, which the provider may have to renew.
    pub(super) fn has(&self, kind: ProviderTokenKind) -> bool {
        match kind {
            ProviderTokenKind::Access => true,
            ProviderTokenKind::Id => self.id_token.is_some() && self.renews_id_token,
        }
    }

    /// Whether nothing is left to do for this purpose.
    pub(super) fn satisfies(&self, purpose: Purpose, now: Millis) -> bool {
        match purpose {
            Purpose::Recheck(interval) => now < self.confirmed_at.saturating_add(millis(interval)),
            Purpose::Forward(kind) => self.usable(kind, now).is_some(),
        }
    }

    /// When an exchange for this purpose is due, at the earliest.
    pub(super) fn due_at(&self, purpose: Purpose) -> Millis {
        let failures = self.failures;
        match purpose {
            Purpose::Recheck(interval) => {
                let due = self.confirmed_at.saturating_add(millis(interval));
                due.max(failures.map_or(0, |failures| failures.retry_at()))
            }
            Purpose::Forward(_) => failures.map_or(0, |failures| {
                failures.latest_at.saturating_add(FORWARD_PAUSE)
            }),
        }
    }

    /// When another look at the tokens is worthwhile.
    pub(super) fn next_look(&self, purpose: Purpose) -> Millis {
        self.due_at(purpose).max(self.claimed_until())
    }

    /// When requests of the session are rejected until the provider confirms it.
    pub(super) fn lapses_at(&self, on_outage: RecheckOutage) -> Option<Millis> {
        let RecheckOutage::For(duration) = on_outage else {
            return None;
        };
        let failures = self.failures?;
        Some(failures.first_at.saturating_add(millis(duration)))
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        let optional = [&self.id_token, &self.refresh_token].into_iter().flatten();
        let tokens = optional.chain([&self.access_token]);
        let tokens = tokens.map(|token| token.expose_secret().len());
        let names = self.provider.len() + self.issuer.len() + self.client_id.len();
        size_of::<KeptTokens>() + names + tokens.sum::<usize>()
    }

    pub(super) fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        serde_json::to_vec(self).ok().map(Zeroizing::new)
    }

    /// Seals the tokens for a session.
    pub(super) fn seal(&self, keys: &KeyRing, session: SessionId) -> Option<Vec<u8>> {
        keys.seal(&associated_data(session), &self.encode()?)
    }

    /// Opens the tokens of a session, and tells whether an older key sealed them.
    pub(super) fn open(
        keys: &KeyRing,
        session: SessionId,
        sealed: &[u8],
    ) -> Option<(KeptTokens, bool)> {
        let Opened { plain, is_outdated } = keys.open(&associated_data(session), sealed)?;
        let tokens = serde_json::from_slice(&plain).ok()?;
        Some((tokens, is_outdated))
    }
}

impl Failures {
    fn retry_at(self) -> Millis {
        let doublings = self.count.saturating_sub(1).min(16);
        let pause = (FIRST_PAUSE << doublings).min(MAX_PAUSE);
        self.latest_at.saturating_add(pause)
    }
}

/// The issuer of a provider's tokens; without one, the address that issues them stands for it.
fn issuer_of(provider: &Provider) -> String {
    let token = provider.endpoints.token.as_ref().map(Url::as_str);
    let issuer = provider.issuer.as_ref().map(Issuer::text);
    issuer.or(token).unwrap_or_default().to_owned()
}

fn associated_data(session: SessionId) -> Vec<u8> {
    [PURPOSE, &session.0].concat()
}

fn expiry(expires_in: Option<Duration>, now: Millis) -> Option<Millis> {
    expires_in.map(|expires_in| now.saturating_add(millis(expires_in)))
}

pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// Serializes a secret, for a text that is sealed next.
mod secret {
    use super::{Deserialize, Deserializer, ExposeSecret, SecretString, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &SecretString,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose_secret())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SecretString, D::Error> {
        String::deserialize(deserializer).map(SecretString::from)
    }
}

/// As [`secret`], for one that may be absent.
mod optional_secret {
    use super::{Deserialize, Deserializer, ExposeSecret, SecretString, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<SecretString>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = secret.as_ref().map(ExposeSecret::expose_secret);
        text.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SecretString>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.map(SecretString::from))
    }
}

#[cfg(test)]
mod tests;
