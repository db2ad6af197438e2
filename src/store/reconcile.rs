//! Reconciliation of limits: refunds unused lease units, and reports admissions after an outage.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::local_limits::PendingReport;
use super::{Engine, Store, StoreError};
use crate::limits::{Decision, Micros};
use crate::telemetry::metrics::StoreOperation;

const RECONCILE_INTERVAL: Duration = Duration::from_millis(100);
/// Number of ticks between two clean-ups of the local counters.
const CLEAN_UP_EVERY_TICKS: u32 = 20;
/// Number of counters reported at once.
const BATCH_SIZE: usize = 200;

impl Store {
    /// Reconciles this process's limits with the store; runs forever.
    pub async fn run_limit_reconciliation(self) {
        if let Engine::Memory(_) = self.engine {
            return;
        }
        let mut tick = interval(RECONCILE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            tick.tick().await;
            self.return_expired_units().await;
            if self.shared.local_limits.is_empty() {
                continue;
            }
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(CLEAN_UP_EVERY_TICKS) {
                self.shared.local_limits.clean_up(self.clock() * 1000);
            }
            self.report_admitted().await;
        }
    }

    /// Reports locally admitted requests to the store, if it responds, and drops the local counters.
    ///
    /// Admissions that may have been counted already are not reported again.
    pub async fn report_admitted(&self) {
        let Engine::Redis(redis) = &self.engine else {
            return;
        };
        // Checked first: a write to a server that does not respond may or may not take effect.
        if !self.is_up() || self.now().await.is_err() {
            return;
        }
        let now = self.clock() * 1000;
        let mut all_reported = true;
        for batch in self
            .shared
            .local_limits
            .take_pending(now)
            .chunks(BATCH_SIZE)
        {
            let requested_at = self.shared.leases.steady_now();
            let outcomes = if all_reported {
                self.measured(StoreOperation::Charge, redis.spend(batch))
                    .await
            } else {
                Err(StoreError::Refused)
            };
            all_reported &= self.record_outcomes(batch, outcomes, requested_at);
        }
        if all_reported {
            self.shared.local_limits.remove_reported(now);
        }
    }

    /// Records the outcomes of a batch of reports; returns whether all of them were counted.
    fn record_outcomes(
        &self,
        batch: &[PendingReport],
        outcomes: Result<Vec<Result<Decision, StoreError>>, StoreError>,
        requested_at: Micros,
    ) -> bool {
        let now = self.clock() * 1000;
        let local = &self.shared.local_limits;
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(StoreError::Refused) => batch.iter().map(|_| Err(StoreError::Refused)).collect(),
            // The reports may have been counted.
            Err(_) => return false,
        };
        let mut all_counted = true;
        for (report, outcome) in batch.iter().zip(outcomes) {
            match outcome {
                Ok(decision) => local.record_decision(&report.0, &decision, now, requested_at),
                Err(_) => {
                    local.restore_pending(report, now);
                    all_counted = false;
                }
            }
        }
        all_counted
    }
}
