//! API keys: how a request presents one, and what all refusals of one have in common.

use std::time::{Duration, Instant};

use super::claim::{CredentialFault, Presented};
use super::{Admission, Rejection};
use crate::auth::api_key::PresentedApiKey;
use crate::auth::credential::{BearerForm, CredentialType, bearer_form};
use crate::clock;
use crate::events::{Event, EventKind};
use crate::pipeline::facts::RequestFacts;
use crate::rejection::{Reason, Refusal};
use crate::settings;

/// A key that is not valid is refused at a multiple of this time after its arrival, so that no client can
/// measure whether a key of its ID exists.
const REFUSAL_STEP: Duration = Duration::from_millis(50);

impl Admission<'_> {
    fn api_keys(&self) -> Option<&settings::ApiKeys> {
        self.snapshot.settings.api_keys.as_ref()
    }

    /// The values of the header of API keys, where one is configured.
    pub(super) fn api_key_fields<'f>(
        &self,
        facts: &RequestFacts<'f>,
    ) -> impl Iterator<Item = &'f [u8]> {
        let header = self.api_keys().and_then(|keys| keys.header.as_ref());
        let fields = facts.head.fields;
        header
            .into_iter()
            .flat_map(move |name| fields.named(name.as_str()))
    }

    /// Whether a bearer token is an API key, by its beginning. It is sent to no introspection endpoint.
    pub(super) fn is_api_key(&self, token: &str) -> bool {
        self.api_keys()
            .is_some_and(|keys| bearer_form(token, Some(&keys.prefix)) == BearerForm::ApiKey)
    }

    /// Reads a bearer token, whose characters are checked.
    pub(super) fn read_bearer<'t>(&self, token: &'t str) -> Result<Presented<'t>, CredentialFault> {
        match self.is_api_key(token) {
            true => self.read_api_key(token.as_bytes()),
            false => Ok(Presented::Token(token)),
        }
    }

    pub(super) fn read_api_key(&self, key: &[u8]) -> Result<Presented<'static>, CredentialFault> {
        let parse = |key| PresentedApiKey::parse(key, &self.api_keys()?.prefix);
        let presented = std::str::from_utf8(key).ok().and_then(parse);
        presented
            .map(Presented::ApiKey)
            .ok_or(CredentialFault::MalformedApiKey)
    }

    /// Completes the outcome of a request that presents an API key: reports a refused key, and refuses those
    /// that are not valid after an even time.
    pub(super) async fn complete_api_key<T>(
        &self,
        facts: &RequestFacts<'_>,
        started: Instant,
        outcome: Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let Err(refused) = outcome else {
            return outcome;
        };
        let refused = Rejection {
            credential: refused.credential.or(Some(CredentialType::ApiKey)),
            ..refused
        };
        if let Some(reason) = refused.reason.filter(|reason| reason.concerns_api_key()) {
            self.report_refused_key(facts, &refused, reason);
        }
        if matches!(
            refused.refusal,
            Refusal::TokenInvalid | Refusal::StoreUnavailable
        ) {
            wait_for_step(started).await;
        }
        Err(refused)
    }

    fn report_refused_key(&self, facts: &RequestFacts<'_>, refused: &Rejection, reason: Reason) {
        let Some(events) = self.events else { return };
        let event = Event::new(EventKind::ApiKeyRefused)
            .ip(facts.client.ip)
            .reason(reason.as_str())
            .request(self.request_id);
        let details = refused.details.as_ref();
        // An invented ID is the client's text.
        let id = details.and_then(|details| details.api_key);
        let is_known = refused.refusal != Refusal::TokenInvalid;
        events.record(match id.filter(|_| is_known) {
            Some(id) => event.api_key(id),
            None => event,
        });
    }
}

/// Whether a request presents an API key, of whatever form.
pub(super) fn is_of_api_key(presented: &Result<Presented<'_>, CredentialFault>) -> bool {
    matches!(
        presented,
        Ok(Presented::ApiKey(_)) | Err(CredentialFault::MalformedApiKey)
    )
}

async fn wait_for_step(started: Instant) {
    let elapsed = clock::monotonic().saturating_duration_since(started);
    let steps = elapsed.as_millis() / REFUSAL_STEP.as_millis() + 1;
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    let until = started + REFUSAL_STEP.saturating_mul(steps);
    tokio::time::sleep_until(until.into()).await;
}
