//! Admission: whether a request may pass. The checks are ordered by cost.

use std::sync::Arc;

pub use crate::auth::principal::Principal;
use crate::clock;
use crate::events::Events;
use crate::identity::oidc::ProviderTokens;
use crate::limits::{Charge, Decision};
use crate::pipeline::facts::RequestFacts;
use crate::pipeline::snapshot::Snapshot;
use crate::rejection::{Reason, Refusal, Rejection};
use crate::routing::{Auth, Requirements, Route};
use crate::sessions::{Credential, CredentialCheck, LookupCharges, Sessions, Verdict};
use crate::store::Store;
use crate::telemetry::metrics::{LimitOutcome, Metrics};
use crate::telemetry::request_id::RequestId;

mod api_keys;
mod charges;
mod claim;
mod confirm;
mod degraded;
mod identity;
mod introspection;
mod memo;
mod provider_token;
mod rejection_details;
mod requirements;
mod services;
mod verdict;

use api_keys::is_of_api_key;
pub use charges::counter_from_key_parts;
use claim::{Claim, CredentialFault, Presented, accepted_on};
pub use memo::Memo;
use memo::MemoKey;
pub use services::AdmissionServices;
pub(in crate::pipeline) use verdict::RenderedIdentity;
pub use verdict::{CredentialKind, Identity, Permit};

/// Decides requests by one configuration.
#[derive(Clone, Copy)]
pub struct Admission<'a> {
    pub snapshot: &'a Snapshot,
    pub store: &'a Store,
    pub sessions: &'a Sessions,
    pub metrics: &'a Metrics,
    /// `None`: nothing is reported.
    pub events: Option<&'a Events>,
    pub memo: &'a Memo,
    pub provider_tokens: &'a ProviderTokens,
    /// The request's identifier, for its events.
    pub request_id: &'a RequestId,
}

impl Admission<'_> {
    /// Admits a request or rejects it.
    ///
    /// # Errors
    /// The refusal, with the limit decisions that its response must carry.
    pub async fn admit(
        &self,
        route: &Arc<Route>,
        facts: &RequestFacts<'_>,
    ) -> Result<Permit, Rejection> {
        if route.auth == Auth::None {
            if route.limits_before.is_empty() && route.limits_after.is_empty() {
                return permit_anonymous(route, Vec::new(), false);
            }
            let before = charges::before_auth(route, facts);
            return self.admit_anonymous(route, facts, &before, false).await;
        }
        // Before the credential is read: it has been read before.
        if let Some(key) = MemoKey::authorization(facts)
            && self.api_key_fields(facts).next().is_none()
            && let Some(recalled) = self.recall(route, key, facts)
        {
            return self.admit_recalled(route, facts, recalled).await;
        }
        let presented = self.read_credential(facts);
        let key = match presented {
            Ok(Presented::Session(id, kind)) => Some(MemoKey::Session(id, kind)),
            Ok(Presented::ApiKey(key)) => Some(MemoKey::ApiKey(key)),
            Ok(Presented::Token(_)) | Err(_) => None,
        };
        if let Some(key) = key
            && let Some(recalled) = self.recall(route, key, facts)
        {
            return self.admit_recalled(route, facts, recalled).await;
        }
        if is_of_api_key(&presented) {
            // Boxed: a known key does not come here.
            return Box::pin(self.admit_api_key(route, facts, presented)).await;
        }
        self.admit_presented(route, facts, presented).await
    }

    async fn admit_api_key(
        &self,
        route: &Arc<Route>,
        facts: &RequestFacts<'_>,
        presented: Result<Presented<'_>, CredentialFault>,
    ) -> Result<Permit, Rejection> {
        let started = clock::monotonic();
        let admitted = self.admit_presented(route, facts, presented).await;
        self.complete_api_key(facts, started, admitted).await
    }

    /// Admits a request by the credential that it presents, if any.
    async fn admit_presented(
        &self,
        route: &Arc<Route>,
        facts: &RequestFacts<'_>,
        presented: Result<Presented<'_>, CredentialFault>,
    ) -> Result<Permit, Rejection> {
        let before = charges::before_auth(route, facts);
        let verified = match accepted_on(route, presented) {
            Ok(presented) => {
                self.spare_call_over_limit(presented, facts, &before)?;
                let claimed = self.verify(presented, facts).await;
                claimed.map(|claimed| (claimed, presented))
            }
            Err(fault) if fault.is_anonymous() && route.auth == Auth::Optional => {
                return self.admit_anonymous(route, facts, &before, false).await;
            }
            Err(fault) => Err(fault.into()),
        };
        let (claimed, presented) = match verified {
            Ok(verified) => verified,
            Err(refused)
                if route.auth == Auth::Optional
                    && refused.clear_cookie
                    && refused.refusal != Refusal::AmbiguousCredentials =>
            {
                return self.admit_anonymous(route, facts, &before, true).await;
            }
            Err(refused) => return Err(self.charge_and_reject(&before, refused).await),
        };
        // Boxed: the memo spares most requests of it, and all would have its size.
        let confirmed = Box::pin(self.confirm(route, facts, &before, &claimed)).await;
        if confirmed.as_ref().map_or_else(is_over_limit, |_| true) {
            self.memorize(route, presented, &claimed, facts);
        }
        match confirmed {
            Ok(permit) if self.concerns_provider(route, permit.session()) => {
                // Boxed: few requests are forwarded with a provider's token.
                Box::pin(self.add_provider_token(permit, facts)).await
            }
            Ok(permit) => Ok(permit),
            // A stale cookie is ignored on a route with optional authentication.
            Err(refused)
                if route.auth == Auth::Optional
                    && claimed.credential_kind == CredentialKind::Cookie
                    && refused.clear_cookie =>
            {
                self.admit_anonymous_after_charge(route, facts, &before, refused.decisions)
                    .await
            }
            Err(refused) => Err(self.add_caller_details(&claimed, refused)),
        }
    }

    /// Identifies the caller of one of the gateway's own endpoints. `None`: no credential.
    ///
    /// # Errors
    /// The credential is not valid, or the store cannot tell.
    pub async fn identify(&self, facts: &RequestFacts<'_>) -> Result<Option<Identity>, Rejection> {
        self.identify_by(self.read_credential(facts), facts).await
    }

    async fn identify_by(
        &self,
        presented: Result<Presented<'_>, CredentialFault>,
        facts: &RequestFacts<'_>,
    ) -> Result<Option<Identity>, Rejection> {
        let is_api_key = is_of_api_key(&presented);
        let started = clock::monotonic();
        let identified = match presented {
            Ok(presented) => self.identify_presented(presented, facts).await.map(Some),
            Err(CredentialFault::Absent) => return Ok(None),
            Err(fault) => Err(fault.into()),
        };
        match is_api_key {
            true => self.complete_api_key(facts, started, identified).await,
            false => identified,
        }
    }

    async fn identify_presented(
        &self,
        presented: Presented<'_>,
        facts: &RequestFacts<'_>,
    ) -> Result<Identity, Rejection> {
        let claimed = self.verify(presented, facts).await?;
        let check = self.credential_check(&claimed, facts);
        let last_seen = self.sessions.last_seen(&claimed.credential);
        let charges = LookupCharges::none();
        let found = match self.sessions.look_up(check, last_seen, charges).await {
            Ok(found) => found,
            Err(error) if self.sessions.is_durable() || claimed.credential.api_key().is_some() => {
                let identity = self.identify_degraded(facts, &claimed, error).await;
                return identity.map_err(|refused| match refused.refusal {
                    // Sign-out needs only the database.
                    Refusal::StoreUnavailable => Rejection {
                        lapsed_claims: claimed.token().cloned(),
                        ..refused
                    },
                    _ => refused,
                });
            }
            Err(error) => return Err(error.into()),
        };
        match found.verdict {
            Verdict::Unknown(error) => Err(error.into()),
            Verdict::Unconfirmed(error) => Err(Rejection {
                lapsed_claims: claimed.token().cloned(),
                ..error.into()
            }),
            verdict => self
                .identity_of(&claimed, verdict, facts, found.confirmed_at)
                .map_err(|refused| self.add_caller_details(&claimed, refused)),
        }
    }

    fn credential_check<'c>(
        &self,
        claimed: &'c Claim,
        facts: &RequestFacts<'_>,
    ) -> CredentialCheck<'c> {
        CredentialCheck {
            credential: &claimed.credential,
            ip: facts.client.ip,
            idle: match claimed.credential {
                Credential::ApiKey(_) => None,
                _ => self.snapshot.settings.sessions.idle_timeout,
            },
            now: facts.now,
        }
    }

    /// Continues without the session of a stale cookie: the limits before authentication are spent
    /// by now, and are refunded when one of those after it refuses.
    async fn admit_anonymous_after_charge(
        &self,
        route: &Arc<Route>,
        facts: &RequestFacts<'_>,
        before: &[Charge],
        spent: Vec<Decision>,
    ) -> Result<Permit, Rejection> {
        let joined = |more: Vec<Decision>| spent.iter().cloned().chain(more).collect();
        match self.admit_anonymous(route, facts, &[], true).await {
            Ok(permit) => Ok(Permit {
                decisions: joined(permit.decisions),
                ..permit
            }),
            Err(refused) => {
                if refused.refusal == Refusal::RateLimited {
                    self.refund(before);
                }
                Err(Rejection {
                    decisions: joined(refused.decisions),
                    ..refused
                })
            }
        }
    }

    async fn admit_anonymous(
        &self,
        route: &Arc<Route>,
        facts: &RequestFacts<'_>,
        before: &[Charge],
        clear_cookie: bool,
    ) -> Result<Permit, Rejection> {
        let mut all = before.to_vec();
        all.extend(
            charges::after_auth(route, facts, None)
                .into_iter()
                .filter(|charge| charge.limit.applies_to(&[])),
        );
        let with_cookie = |refused| Rejection {
            clear_cookie,
            ..refused
        };
        let decisions = self.charge(&all).await.map_err(with_cookie)?;
        let decisions = reject_over_limit(decisions).map_err(with_cookie)?;
        permit_anonymous(route, decisions, clear_cookie)
    }

    /// A request that fails authentication has spent the limits that need no identity; over one of
    /// them it is a 429 whatever its credential.
    async fn charge_and_reject(&self, before: &[Charge], refused: Rejection) -> Rejection {
        if before.is_empty() {
            return refused;
        }
        match self.charge(before).await {
            Ok(decisions) => match reject_over_limit(decisions) {
                Ok(decisions) => Rejection {
                    decisions,
                    ..refused
                },
                // The log names the caller all the same.
                Err(over) => Rejection {
                    lapsed_claims: refused.lapsed_claims,
                    credential: refused.credential,
                    ..over
                },
            },
            Err(unavailable) => Rejection {
                credential: refused.credential,
                ..unavailable
            },
        }
    }

    /// Charges limits alone, by the store or in degraded mode.
    async fn charge(&self, charges: &[Charge]) -> Result<Vec<Decision>, Rejection> {
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        let decisions = match self.store.charge(charges).await {
            Ok(decisions) => decisions,
            Err(_) => self.charge_degraded(charges)?,
        };
        self.count_decisions(&decisions);
        Ok(decisions)
    }

    /// Refunds a recent charge, off the request path. It is tried once: after a timeout it is
    /// unknown whether the refund was made, and a second one would admit more than the limit
    /// allows.
    fn refund(&self, charges: &[Charge]) {
        if charges.is_empty() {
            return;
        }
        let (store, charges) = (self.store.clone(), charges.to_vec());
        tokio::spawn(async move {
            if store.refund(&charges).await.is_err() {
                tracing::debug!("a limit could not be refunded");
            }
        });
    }

    /// Counts each limit's decision.
    fn count_decisions(&self, decisions: &[Decision]) {
        for decision in decisions {
            let outcome = match (decision.degraded, decision.allowed, decision.limit.shadow) {
                (true, _, _) => LimitOutcome::Degraded,
                (false, false, true) => LimitOutcome::ShadowLimited,
                (false, false, false) => LimitOutcome::Limited,
                (false, true, _) => LimitOutcome::Allowed,
            };
            self.metrics
                .count_limit_decision(&decision.limit.name, outcome);
        }
    }
}

/// Permits a request without a caller, unless the route requires one.
fn permit_anonymous(
    route: &Arc<Route>,
    decisions: Vec<Decision>,
    clear_cookie: bool,
) -> Result<Permit, Rejection> {
    if route.require != Requirements::default() {
        return Err(Rejection {
            decisions,
            clear_cookie,
            ..Rejection::new(Refusal::Unauthenticated, Reason::AnonymousNotAllowed)
        });
    }
    Ok(Permit {
        decisions,
        clear_cookie,
        ..Permit::anonymous(route)
    })
}

fn is_over_limit(refused: &Rejection) -> bool {
    refused.refusal == Refusal::RateLimited
}

/// Returns the decisions unless one of them refuses.
fn reject_over_limit(decisions: Vec<Decision>) -> Result<Vec<Decision>, Rejection> {
    if !decisions.iter().any(Decision::refuses) {
        return Ok(decisions);
    }
    Err(Rejection {
        decisions,
        ..Rejection::new(Refusal::RateLimited, Reason::OverLimit)
    })
}
