//! Presence of the fleet's gateways, and the time up to which each has confirmed changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Engine, Store, StoreError};
use crate::auth::session::Millis;
use crate::telemetry::metrics::StoreOperation;

/// Interval at which a gateway announces its presence.
const PRESENCE_INTERVAL: Duration = Duration::from_millis(200);
/// Validity of an announcement; a gateway that has crashed is not waited for beyond it.
pub(super) const PRESENCE_TTL: Duration = Duration::from_secs(3);
/// Longest wait for the fleet's confirmation: longer than [`PRESENCE_TTL`].
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(4);
/// Interval at which presence is polled during that wait.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A gateway without invalidations queries the store for every request, and has checked its open
/// streams within this time.
const SWEEP_BOUND: Millis = 1_000;

/// Gateways that have confirmed all changes up to a time, and those that have not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FleetConfirmation {
    pub confirmed: Vec<String>,
    pub unconfirmed: Vec<String>,
}

impl Store {
    /// Announces this gateway's presence and confirmation under the given name; runs forever.
    pub async fn announce_presence(self, name: Arc<str>) {
        let Engine::Redis(redis) = &self.engine else {
            // The process is the whole fleet.
            return;
        };
        // Set once: the name does not change while the process runs.
        let _ = self.shared.gateway_name.set(Arc::clone(&name));
        let mut tick = interval(PRESENCE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let confirmed_up_to = if self.shared.near_cache.is_fresh() {
                self.shared.confirmed_up_to.load(Ordering::SeqCst)
            } else {
                self.clock().saturating_sub(SWEEP_BOUND)
            };
            let announcement = redis.announce_presence(&name, confirmed_up_to);
            if let Ok(count) = self.measured(StoreOperation::Presence, announcement).await {
                self.shared
                    .gateway_count
                    .store(count.max(1), Ordering::Relaxed);
            }
        }
    }

    /// Removes the presence of the gateway with this name.
    pub async fn withdraw_presence(&self, name: &str) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Memory(_) => Ok(()),
            Engine::Redis(redis) => {
                self.measured(StoreOperation::Presence, redis.withdraw_presence(name))
                    .await
            }
        }
    }

    /// Number of gateways in the fleet, as last observed.
    pub fn gateway_count(&self) -> u64 {
        self.shared.gateway_count.load(Ordering::Relaxed)
    }

    /// Waits up to four seconds for every gateway to confirm the current state of the store.
    ///
    /// Gateways that start meanwhile have no older state. This gateway is always waited for, even if
    /// the store has lost the presence data.
    pub async fn wait_for_confirmation(&self) -> Result<FleetConfirmation, StoreError> {
        let Engine::Redis(redis) = &self.engine else {
            return Ok(FleetConfirmation::default());
        };
        let now = self.fetch_time().await?;
        let deadline = Instant::now() + CONFIRMATION_TIMEOUT;
        let mut outcome = FleetConfirmation::default();
        let mut waiting: Option<Vec<String>> = None;
        loop {
            let present = self
                .measured(StoreOperation::Presence, redis.present_gateways())
                .await?;
            let names = waiting.unwrap_or_else(|| {
                let own = self.shared.gateway_name.get().map(|name| name.to_string());
                let all: BTreeSet<String> = present.keys().cloned().chain(own).collect();
                all.into_iter().collect()
            });
            let mut pending = Vec::new();
            for name in names {
                match present.get(&name) {
                    Some(confirmed_up_to) if *confirmed_up_to >= now => {
                        outcome.confirmed.push(name)
                    }
                    Some(_) if Instant::now() < deadline => pending.push(name),
                    None if self.is_own_name(&name) && Instant::now() < deadline => {
                        pending.push(name)
                    }
                    // A missing gateway may have crashed or be disconnected.
                    Some(_) | None => outcome.unconfirmed.push(name),
                }
            }
            if pending.is_empty() {
                return Ok(outcome);
            }
            waiting = Some(pending);
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Whether this is the name of this gateway.
    fn is_own_name(&self, name: &str) -> bool {
        self.shared
            .gateway_name
            .get()
            .is_some_and(|own| **own == *name)
    }
}
