//! What this process owes the store: permits that were not used, and what it is told of when it answers
//! again after an outage.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::local::Untold;
use super::{Engine, Store, StoreError};
use crate::limits::{Decision, Micros};

/// How often it is looked whether there is something to tell.
const EVERY: Duration = Duration::from_millis(100);
/// After so many looks counters that are whole again are dropped.
const CLEAN_UP_AFTER: u32 = 20;
/// How many counters the store is told of at once.
const TOGETHER: usize = 200;

impl Store {
    /// Tends the limits of this process for ever.
    pub async fn tend_limits(self) {
        if let Engine::Memory(_) = self.engine {
            return;
        }
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0_u32;
        loop {
            tick.tick().await;
            self.give_back_expired().await;
            if self.shared.local.is_empty() {
                continue;
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(CLEAN_UP_AFTER) {
                self.shared.local.clean_up(self.clock() * 1000);
            }
            self.tell_admitted().await;
        }
    }

    /// Has the store spend what was admitted without it, if it answers, and forgets the counters that
    /// were kept in its place. What it may have been told it is not told again.
    pub async fn tell_admitted(&self) {
        let Engine::Redis(redis) = &self.engine else {
            return;
        };
        // Asked first: whatever is sent to a server that does not answer may be done or not.
        if !self.up() || self.now().await.is_err() {
            return;
        }
        let now = self.clock() * 1000;
        let mut all = true;
        for untold in self.shared.local.untold(now).chunks(TOGETHER) {
            let asked = self.shared.leases.now();
            let told = if all {
                self.measured("charge", redis.spend(untold)).await
            } else {
                Err(StoreError::Refused)
            };
            all &= self.is_told(untold, told, asked);
        }
        if all {
            self.shared.local.forget_told(now);
        }
    }

    /// Notes what the store answered; tells whether it did all.
    fn is_told(
        &self,
        untold: &[Untold],
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
                Ok(decision) => self.shared.local.note(&one.0, &decision, now, asked),
                Err(_) => {
                    self.shared.local.untell(one, now);
                    all = false;
                }
            }
        }
        all
    }
}
