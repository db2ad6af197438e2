//! Confirmation of a claim: its credential is looked up, and limits are charged in the same
//! look-up.

use std::sync::Arc;

use super::charges::CountedToken;
use super::claim::Claim;
use super::memo::Recalled;
use super::{Admission, Identity, Permit, Rejection, charges, reject_over_limit};
use crate::auth::api_key::PresentedApiKey;
use crate::auth::session::Session;
use crate::limits::{Charge, Decision};
use crate::pipeline::facts::RequestFacts;
use crate::routing::Route;
use crate::sessions::{Credential, LastSeen, LookupCharges, Verdict};
use crate::telemetry::metrics::CacheName;

impl Admission<'_> {
    /// Verifies the credential and charges the limits, in one look-up where the user is known beforehand.
    pub(super) async fn confirm(
        &self,
        route: &Arc<Route>,
        facts: &RequestFacts<'_>,
        before: &[Charge],
        claimed: &Claim,
    ) -> Result<Permit, Rejection> {
        let last_seen = self.last_seen(claimed);
        let after = self.charges_of_known_user(route, facts, claimed, last_seen.session.as_deref());
        let charges = LookupCharges {
            before_auth: before,
            require: &route.require,
            after_auth: after.as_deref().unwrap_or_default(),
        };
        let check = self.credential_check(claimed, facts);
        let found = match self.sessions.look_up(check, last_seen, charges).await {
            Ok(found) => found,
            Err(error) => {
                return self
                    .admit_degraded(route, facts, before, claimed, error)
                    .await;
            }
        };
        self.count_decisions(&found.decisions);
        let session = found.session;
        let named = |rejected: Rejection| rejected.with_session(&session);
        let mut decisions = reject_over_limit(found.decisions).map_err(named)?;
        let identity = match found.verdict {
            Verdict::Unconfirmed(error) => self.identify_degraded(facts, claimed, error).await,
            verdict => self.identity_of(claimed, verdict, facts, found.confirmed_at),
        };
        let identity = identity.map_err(|rejected| named(with_decisions(rejected, &decisions)))?;
        self.check_requirements(&route.require, &identity, &decisions)?;
        if after.is_none() || found.is_restored {
            let late = self
                .charge_identity_limits(route, facts, claimed, &identity)
                .await;
            let late = late.inspect_err(|_| self.refund(before));
            decisions.extend(late.map_err(|rejected| named(with_decisions(rejected, &decisions)))?);
            let charged = reject_over_limit(decisions).inspect_err(|_| self.refund(before));
            decisions = charged.map_err(named)?;
        }
        Ok(Permit::of(route, identity, decisions))
    }

    /// Admits a caller of the memo, unless a limit refuses.
    pub(super) async fn admit_recalled(
        &self,
        route: &Arc<Route>,
        facts: &RequestFacts<'_>,
        recalled: Recalled,
    ) -> Result<Permit, Rejection> {
        let Recalled { identity, charges } = recalled;
        if route.limits_before.is_empty() && route.limits_after.is_empty() {
            return Ok(Permit::of(route, identity, Vec::new()));
        }
        let before = charges::before_auth(route, facts);
        let after = charges.unwrap_or_else(|| {
            let session = identity.session().map(|session| session.id);
            charges::for_identity(route, facts, session, &identity).collect()
        });
        let error = match self.store.charge_admitted(&before, &after).await {
            Ok(decisions) => {
                self.count_decisions(&decisions);
                return match reject_over_limit(decisions) {
                    Ok(decisions) => Ok(Permit::of(route, identity, decisions)),
                    Err(refused) => Err(refused.with_caller(&identity)),
                };
            }
            Err(error) => error,
        };
        let Some(claimed) = Claim::of(&identity) else {
            return Err(error.into());
        };
        // Boxed: rarely needed, and larger than its caller's future.
        let admitting = Box::pin(self.admit_degraded(route, facts, &before, &claimed, error));
        let admitted = admitting.await;
        admitted.map_err(|refused| self.add_caller_details(&claimed, refused))
    }

    /// Charges the limits with identity of a user who became known through the look-up.
    async fn charge_identity_limits(
        &self,
        route: &Arc<Route>,
        facts: &RequestFacts<'_>,
        claimed: &Claim,
        identity: &Identity,
    ) -> Result<Vec<Decision>, Rejection> {
        let late = charges::for_identity(route, facts, claimed.session(), identity);
        let late: Vec<Charge> = late.collect();
        self.charge(&late).await
    }

    /// The session as this gateway saw it last.
    fn last_seen(&self, claimed: &Claim) -> LastSeen {
        let last_seen = self.sessions.last_seen(&claimed.credential);
        let cache = match claimed.credential {
            Credential::ApiKey(_) => Some(CacheName::ApiKeys),
            _ => claimed.session().map(|_| CacheName::Sessions),
        };
        if let Some(cache) = cache {
            let is_hit = last_seen.session.is_some();
            self.metrics.count_cache_lookup(cache, is_hit);
        }
        last_seen
    }

    /// The limits with identity, where the user and the sign-in are known before the look-up. Both
    /// never change, so those of a session that was seen before are known.
    fn charges_of_known_user(
        &self,
        route: &Route,
        facts: &RequestFacts<'_>,
        claimed: &Claim,
        last_seen: Option<&Session>,
    ) -> Option<Vec<Charge>> {
        let user = match &claimed.credential {
            Credential::Token(claims, _) => {
                let identity = Identity::from_token(claims);
                return Some(match self.is_admitted(&route.require, &identity) {
                    true => charges::for_identity(route, facts, None, &identity).collect(),
                    false => Vec::new(),
                });
            }
            Credential::SessionToken(_, claims) => claims.user.as_str(),
            Credential::Session(_) => last_seen?.user.as_str(),
            Credential::ApiKey(presented) => {
                return charges_of_known_key(route, facts, presented, last_seen?);
            }
        };
        if !self.meets_sign_in(&route.require, last_seen, facts.now) {
            return None;
        }
        let token = claimed.token().map(|claims| CountedToken::Claims(claims));
        let subject = (user, claimed.session(), token);
        Some(charges::after_auth(route, facts, Some(subject)))
    }
}

/// The limits with identity of an API key whose secret is right as far as this gateway has seen. Otherwise
/// a client that knows an ID could spend the limits of its owner.
fn charges_of_known_key(
    route: &Route,
    facts: &RequestFacts<'_>,
    presented: &PresentedApiKey,
    record: &Session,
) -> Option<Vec<Charge>> {
    let grant = record.api_key.as_ref()?;
    grant
        .judge(&presented.hash, facts.client.ip, facts.now)
        .ok()?;
    if route.require.sign_in.is_some() {
        return None;
    }
    let token = Some(CountedToken::ApiKey(presented.id));
    let subject = (record.user.as_str(), None, token);
    Some(charges::after_auth(route, facts, Some(subject)))
}

/// The same rejection, with the decisions that its response must carry.
fn with_decisions(rejected: Rejection, decisions: &[Decision]) -> Rejection {
    Rejection {
        decisions: decisions.to_vec(),
        ..rejected
    }
}
