//! What this process owes the store: permits that were not used, and what it is told of when it answers
//! again after an outage.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::local_limits::PendingReport;
use super::{Engine, Store, StoreError};
use crate::limits::{Decision, Micros};
use crate::telemetry::metrics::StoreOperation;

/// How often it is looked whether there is something to tell.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(100);
/// After so many looks counters that are whole again are dropped.
const CLEAN_UP_EVERY_TICKS: u32 = 20;
/// How many counters the store is told of at once.
const BATCH_SIZE: usize = 200;

impl Store {
    /// Tends the limits of this process for ever.
    pub async fn run_limit_reconciliation(self) {
        if let Engine::Memory(_) = self.engine {
            return;
        }
        let mut tick = interval(RECONCILE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0_u32;
        loop {
            tick.tick().await;
            self.return_expired_units().await;
            if self.shared.local_limits.is_empty() {
                continue;
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(CLEAN_UP_EVERY_TICKS) {
                self.shared.local_limits.clean_up(self.clock() * 1000);
            }
            self.report_admitted().await;
        }
    }

    /// Has the store spend what was admitted without it, if it answers, and forgets the counters that
    /// were kept in its place. What it may have been told it is not told again.
    pub async fn report_admitted(&self) {
        let Engine::Redis(redis) = &self.engine else {
            return;
        };
        // Asked first: whatever is sent to a server that does not answer may be done or not.
        if !self.is_up() || self.now().await.is_err() {
            return;
        }
        let now = self.clock() * 1000;
        let mut all = true;
        for untold in self
            .shared
            .local_limits
            .take_pending(now)
            .chunks(BATCH_SIZE)
        {
            let asked = self.shared.leases.steady_now();
            let told = if all {
                self.measured(StoreOperation::Charge, redis.spend(untold))
                    .await
            } else {
                Err(StoreError::Refused)
            };
            all &= self.record_outcomes(untold, told, asked);
        }
        if all {
            self.shared.local_limits.remove_reported(now);
        }
    }

    /// Notes what the store answered; tells whether it did all.
    fn record_outcomes(
        &self,
        untold: &[PendingReport],
        told: Result<Vec<Result<Decision, StoreError>>, StoreError>,
        asked: Micros,
    ) -> bool {
        let now = self.clock() * 1000;
        let told = match told {
            Ok(told) => told,
            Err(StoreError::Refused) => untold.iter().map(|_| Err(StoreError::Refused)).collect(),
            // It may have been done.
            Err(_) => return false,
        };
        let mut all = true;
        for (one, told) in untold.iter().zip(told) {
            match told {
                Ok(decision) => self
                    .shared
                    .local_limits
                    .record_decision(&one.0, &decision, now, asked),
                Err(_) => {
                    self.shared.local_limits.restore_pending(one, now);
                    all = false;
                }
            }
        }
        all
    }
}
