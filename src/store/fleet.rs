//! The gateways that share the store: which there are, and up to when each has heard of changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Engine, Store, StoreError};
use crate::auth::session::Millis;
use crate::telemetry::metrics::StoreOperation;

/// How often a gateway says that it is there.
const PRESENCE_INTERVAL: Duration = Duration::from_millis(200);
/// How long that counts: one that has died is waited for no longer.
pub(super) const PRESENCE_TTL: Duration = Duration::from_secs(3);
/// How long anybody waits for the fleet: a little longer.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(4);
/// How often the others are looked at meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A gateway that does not hear of changes asks for everything: within so long it has looked at what
/// is open.
const SWEEP_BOUND: Millis = 1_000;

/// Who has confirmed what was in the store at a moment, and who has not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FleetConfirmation {
    pub confirmed: Vec<String>,
    pub unconfirmed: Vec<String>,
}

impl Store {
    /// Says for ever that the gateway of this name is there, and up to when it has heard of changes.
    pub async fn announce_presence(self, name: Arc<str>) {
        let Engine::Redis(redis) = &self.engine else {
            // There is no other.
            return;
        };
        // It has one name for as long as it runs.
        let _ = self.shared.gateway_name.set(Arc::clone(&name));
        let mut tick = interval(PRESENCE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let heard = if self.shared.near_cache.is_fresh() {
                self.shared.confirmed_up_to.load(Ordering::SeqCst)
            } else {
                self.clock().saturating_sub(SWEEP_BOUND)
            };
            let present = self.measured(
                StoreOperation::Presence,
                redis.announce_presence(&name, heard),
            );
            if let Ok(present) = present.await {
                self.shared
                    .gateway_count
                    .store(present.max(1), Ordering::Relaxed);
            }
        }
    }

    /// Says that the gateway of this name is not there any more.
    pub async fn withdraw_presence(&self, name: &str) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Memory(_) => Ok(()),
            Engine::Redis(redis) => {
                self.measured(StoreOperation::Presence, redis.withdraw_presence(name))
                    .await
            }
        }
    }

    /// How many gateways there were when this one last looked.
    pub fn gateway_count(&self) -> u64 {
        self.shared.gateway_count.load(Ordering::Relaxed)
    }

    /// Waits until every gateway has heard of all that is in the store now, or it is clear which
    /// does not: four seconds at most. Those that come meanwhile know of nothing older. This one is
    /// always among them, even where the store has lost who is there.
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
            let mut still = Vec::new();
            for name in names {
                match present.get(&name) {
                    Some(heard) if *heard >= now => outcome.confirmed.push(name),
                    Some(_) if Instant::now() < deadline => still.push(name),
                    None if self.is_own_name(&name) && Instant::now() < deadline => {
                        still.push(name)
                    }
                    // Whether one that is silent by now has died nobody can tell.
                    Some(_) | None => outcome.unconfirmed.push(name),
                }
            }
            if still.is_empty() {
                return Ok(outcome);
            }
            waiting = Some(still);
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Whether this gateway has that name.
    fn is_own_name(&self, name: &str) -> bool {
        self.shared
            .gateway_name
            .get()
            .is_some_and(|own| **own == *name)
    }
}
