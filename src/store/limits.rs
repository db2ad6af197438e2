//! Decisions on the request path: look-ups and charges in one query, and charges alone.

use std::time::Duration;

use super::{Engine, Query, QueryResult, Store, StoreError};
use crate::auth::session::Millis;
use crate::limits::{Charge, Decision, Micros};
use crate::routing::Requirements;
use crate::telemetry::metrics::StoreOperation;

impl Store {
    /// Answers a request's query in at most one round trip and one atomic step.
    ///
    /// Fresh cache entries are not queried. If a limit refuses, nothing is spent. If the session, the
    /// blacklist or the requirements reject the request, the charges before authentication are spent
    /// and those after it are not evaluated.
    pub async fn decide(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
    ) -> Result<QueryResult, StoreError> {
        let cache = &self.shared.near_cache;
        let now = self.clock();
        let cached = cache.look_up(query, idle, now);
        if cached.needs_refresh {
            self.refresh_ahead(query, idle);
        }
        let charges_after_auth = cached.charges_after_auth(query);
        let remaining = cached.remaining_query(query, &charges_after_auth);
        let mut result = match remaining.is_empty() {
            true => QueryResult::empty(now),
            false => self.decide_remaining(&remaining, idle, now).await?,
        };
        cached.merge_into(&mut result);
        if query.cut_off_user.is_some() {
            result.cut_off = cache.effective_cut_off(result.cut_off);
        }
        Ok(result)
    }

    /// Charges the limits of a caller who is identified already; see [`Store::decide`].
    pub async fn charge_admitted(
        &self,
        before_auth: &[Charge],
        after_auth: &[Charge],
    ) -> Result<Vec<Decision>, StoreError> {
        if before_auth.is_empty() && after_auth.is_empty() {
            return Ok(Vec::new());
        }
        let requested_at = self.shared.leases.steady_now();
        if let Some(decisions) = self.cached_refusal(before_auth, after_auth, requested_at) {
            return Ok(decisions);
        }
        let by_leases = self.charge_leased(before_auth, after_auth, requested_at);
        if let Some(decisions) = by_leases.await {
            return decisions;
        }
        let no_requirements = Requirements::default();
        let query = Query {
            charges_before_auth: before_auth,
            charges_after_auth: after_auth,
            ..Query::empty(&no_requirements)
        };
        let result = self.decide_in_store(&query, None, requested_at).await?;
        Ok(result.decisions)
    }

    /// Answers what the near cache does not.
    async fn decide_remaining(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
        now: Millis,
    ) -> Result<QueryResult, StoreError> {
        // Read once for all that is decided here.
        let requested_at = self.shared.leases.steady_now();
        // Charges after authentication are included only if the identity is established, as in the store.
        let after_auth = match query.has_identity() {
            true => &[],
            false => query.charges_after_auth,
        };
        let refused = self.cached_refusal(query.charges_before_auth, after_auth, requested_at);
        if let Some(decisions) = refused {
            return Ok(QueryResult {
                decisions,
                ..QueryResult::empty(now)
            });
        }
        let by_leases = self.decide_by_leases(query, now, requested_at);
        if let Some(result) = by_leases.await {
            return result;
        }
        self.decide_in_store(query, idle, requested_at).await
    }

    async fn decide_in_store(
        &self,
        query: &Query<'_>,
        idle: Option<Duration>,
        requested_at: Micros,
    ) -> Result<QueryResult, StoreError> {
        let cache = &self.shared.near_cache;
        let stamps = cache.stamp_query(query);
        // Boxed, as the charge below: most requests do not wait for the store.
        let deciding = Box::pin(async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.decide(query, idle)),
                Engine::Redis(redis) => redis.decide(query, idle).await,
            }
        });
        let result = self.measured(StoreOperation::Decide, deciding).await?;
        self.observe_revocation_lag(query, &result);
        cache.cache_result(&stamps, query, &result);
        self.record_decisions(query, &result, requested_at);
        Ok(result)
    }

    /// Returns the decisions of a cached refusal that still holds. One before authentication stands
    /// alone.
    fn cached_refusal(
        &self,
        before: &[Charge],
        after: &[Charge],
        steady: Micros,
    ) -> Option<Vec<Decision>> {
        let local = &self.shared.local_limits;
        if !local.has_refused() {
            return None;
        }
        let of_before = match before {
            [] => None,
            _ => local.cached_refusal(before.iter(), steady),
        };
        match after {
            [] => of_before,
            _ => of_before.or_else(|| local.cached_refusal(before.iter().chain(after), steady)),
        }
    }

    /// Returns the decisions of these limits if one of them refuses, as far as this gateway knows without a
    /// round trip. Nothing is spent.
    pub fn known_refusal(&self, charges: &[Charge]) -> Option<Vec<Decision>> {
        match &self.engine {
            _ if charges.is_empty() => None,
            Engine::Memory(memory) => memory.refusal(charges),
            Engine::Redis(_) => {
                let requested_at = self.shared.leases.steady_now();
                self.cached_refusal(charges, &[], requested_at)
            }
        }
    }

    /// Records the delay with which the end of a session was detected on this gateway.
    pub(super) fn observe_revocation_lag(&self, query: &Query<'_>, result: &QueryResult) {
        let lag = query.session.and_then(|id| {
            self.shared
                .near_cache
                .revocation_lag(id, &result.session, result.now)
        });
        if let Some(lag) = lag {
            self.shared.metrics.observe_revocation_lag(lag);
        }
    }

    /// Spends one request from each of these limits, or from none if one refuses.
    pub async fn charge(&self, charges: &[Charge]) -> Result<Vec<Decision>, StoreError> {
        if charges.is_empty() {
            return Ok(Vec::new());
        }
        let requested_at = self.shared.leases.steady_now();
        if let Some(decisions) = self
            .shared
            .local_limits
            .cached_refusal(charges.iter(), requested_at)
        {
            return Ok(decisions);
        }
        if let Some(decisions) = self.charge_leased(charges, &[], requested_at).await {
            return decisions;
        }
        let charging = Box::pin(async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.charge(charges)),
                Engine::Redis(redis) => {
                    let no_requirements = Requirements::default();
                    let query = Query {
                        charges_before_auth: charges,
                        ..Query::empty(&no_requirements)
                    };
                    let result = redis.decide(&query, None).await?;
                    self.record_decisions(&query, &result, requested_at);
                    Ok(result.decisions)
                }
            }
        });
        self.measured(StoreOperation::Charge, charging).await
    }

    /// As [`Store::charge`], but with this process's counters and this gateway's share of the limits.
    ///
    /// It cannot fail; its decisions are marked as degraded.
    pub fn charge_locally(&self, charges: &[Charge]) -> Vec<Decision> {
        let (gateways, now) = (self.gateway_count(), self.clock() * 1000);
        self.shared.local_limits.charge(charges, gateways, now)
    }

    /// Refunds one request, spent a moment ago, to each of these limits.
    pub async fn refund(&self, charges: &[Charge]) -> Result<(), StoreError> {
        self.measured(StoreOperation::Refund, async {
            match &self.engine {
                Engine::Memory(memory) => {
                    memory.refund(charges);
                    Ok(())
                }
                Engine::Redis(redis) => redis.refund(charges).await,
            }
        })
        .await
    }

    /// Reads a counter without spending.
    pub async fn peek_limit(&self, charge: &Charge) -> Result<Decision, StoreError> {
        self.measured(StoreOperation::PeekLimit, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.peek(charge)),
                Engine::Redis(redis) => redis.peek(charge).await,
            }
        })
        .await
    }

    /// Reads a counter of this process without spending.
    pub fn peek_locally(&self, charge: &Charge) -> Decision {
        let (gateways, now) = (self.gateway_count(), self.clock() * 1000);
        self.shared.local_limits.peek(charge, gateways, now)
    }

    /// Resets a counter; returns whether it existed.
    pub async fn reset_limit(&self, charge: &Charge) -> Result<bool, StoreError> {
        self.shared.local_limits.remove(&charge.counter);
        self.shared.leases.reset(charge);
        self.measured(StoreOperation::ResetLimit, async {
            match &self.engine {
                Engine::Memory(memory) => Ok(memory.reset(charge)),
                Engine::Redis(redis) => redis.reset(charge).await,
            }
        })
        .await
    }
}
