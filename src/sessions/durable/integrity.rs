//! Integrity of the store. The store may lack revocations that the database has, and it may have
//! lost its data. Each time that it comes back, it is checked, the missing entries are replayed,
//! and then it is trusted. Until then no token is accepted on its word alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::super::SessionError;
use super::DurableSessions;
use crate::auth::session::Millis;
use crate::database::StoreMarker;
use crate::store::{Marker, MarkerState, Store};

/// Interval of marker checks without a specific reason, and of replays.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout of the database where it is optional.
const OPTIONAL_DATABASE_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a failed attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Integrity {
    /// The epoch at which everything was last in order.
    verified_epoch: AtomicU64,
    /// Number of reasons for doubt besides those that the store reports.
    local_epoch: AtomicU64,
    /// Notified when everything is in order.
    verified: Notify,
    verified_marker: Mutex<Option<VerifiedMarker>>,
    /// A loss was noticed, and is not recovered yet.
    is_loss_reported: AtomicBool,
}

/// The store's marker, and the second at which it was last verified.
#[derive(Debug, Clone)]
struct VerifiedMarker {
    marker: Marker,
    verified_at: u64,
    /// Every revocation in it is in the database.
    is_log_complete: bool,
}

/// Proof that the store was in order at a moment.
#[derive(Debug, Clone, Copy)]
pub(in crate::sessions) struct Epoch(u64);

/// The result of a marker check.
enum MarkerCheck {
    Intact(Marker),
    /// A first start.
    FirstStart,
    /// Lost, where the revocations up to this second are unknown.
    Lost(u64),
}

impl Integrity {
    /// `starts_unverified`: the store is not trusted at the start, even if there is no sign of a loss.
    pub(super) fn new(starts_unverified: bool) -> Integrity {
        Integrity {
            verified_epoch: AtomicU64::new(0),
            local_epoch: AtomicU64::new(u64::from(starts_unverified)),
            verified: Notify::new(),
            verified_marker: Mutex::default(),
            is_loss_reported: AtomicBool::new(false),
        }
    }

    fn advance_epoch(&self) {
        self.local_epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Checks everything again as at the start.
    pub(super) fn reset(&self) {
        *self.verified_marker.lock() = None;
    }
}

impl DurableSessions {
    /// Whether the store may lack revocations: it has come back, has lost its data, or a write of
    /// this gateway failed.
    pub(in crate::sessions) fn is_store_unverified(&self, store: &Store) -> bool {
        self.shared.integrity.verified_epoch.load(Ordering::Acquire) != self.current_epoch(store)
    }

    fn current_epoch(&self, store: &Store) -> u64 {
        let epoch = self.shared.integrity.local_epoch.load(Ordering::Acquire);
        store.reconnects().wrapping_add(epoch)
    }

    /// Records that a revocation could not be written to the store.
    pub(in crate::sessions) fn mark_store_incomplete(&self) {
        self.shared.integrity.advance_epoch();
    }

    /// Taken before the store is queried, for [`DurableSessions::still_valid`]. `None`: the store
    /// may lack revocations.
    pub(in crate::sessions) fn epoch(&self, store: &Store) -> Option<Epoch> {
        let epoch = self.current_epoch(store);
        let verified = self.shared.integrity.verified_epoch.load(Ordering::Acquire);
        (verified == epoch).then_some(Epoch(epoch))
    }

    /// Whether the epoch has not changed since it was taken: a token that the store does not revoke
    /// may pass.
    pub(in crate::sessions) fn still_valid(&self, store: &Store, epoch: Option<Epoch>) -> bool {
        epoch.is_some_and(|Epoch(epoch)| epoch == self.current_epoch(store))
    }

    /// Waits until the store is in order, for at most the store's timeout. Earlier responses of the
    /// store do not count.
    pub(in crate::sessions) async fn wait_until_verified(&self, store: &Store) -> bool {
        let in_order = async {
            loop {
                let changed = self.shared.integrity.verified.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if !self.is_store_unverified(store) {
                    return;
                }
                changed.await;
            }
        };
        timeout(store.timeout(), in_order).await.is_ok()
    }

    /// Whether every revocation is in the database.
    pub(super) fn is_log_complete(&self) -> bool {
        let known = self.shared.integrity.verified_marker.lock();
        known.as_ref().is_some_and(|known| known.is_log_complete)
    }

    /// Keeps the store in order, forever. `lost` is called once for each loss of data.
    pub(in crate::sessions) async fn run_integrity_checks(self, store: Store, lost: impl Fn()) {
        loop {
            let pause = match self.check_integrity(&store, &lost).await {
                Ok(()) => CHECK_INTERVAL,
                Err(error) => {
                    tracing::debug!(%error, "revocations are not replayed to the store yet");
                    RETRY_PAUSE
                }
            };
            tokio::select! {
                () = store.data_may_have_changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn check_integrity(&self, store: &Store, lost: &impl Fn()) -> Result<(), SessionError> {
        let integrity = &self.shared.integrity;
        if store.is_in_process() && self.if_enabled().is_none() {
            // The state ends with this process, and is kept nowhere else.
            integrity
                .verified_epoch
                .store(self.current_epoch(store), Ordering::Release);
            return Ok(());
        }
        let mut epoch = self.current_epoch(store);
        let now = store.now().await?;
        let row = self.load_expected_marker(store).await?;
        let complete =
            self.is_log_complete() || row.as_ref().is_some_and(|row| row.is_log_complete);
        match self.compare_marker(store, row.as_ref()).await? {
            MarkerCheck::Intact(marker) => {
                if self.if_enabled().is_some() && self.is_store_unverified(store) {
                    self.replay_recent(store, now).await?;
                }
                self.record_marker(store, marker, complete, now).await?;
            }
            MarkerCheck::FirstStart => {
                let marker = store.write_marker(0).await?;
                self.record_marker(store, marker, false, now).await?;
            }
            MarkerCheck::Lost(second) => {
                // From here on, in every case.
                integrity.advance_epoch();
                epoch = self.current_epoch(store);
                if !integrity.is_loss_reported.swap(true, Ordering::AcqRel)
                    && !store.is_in_process()
                {
                    lost();
                }
                self.recover_lost_data(store, second, now).await?;
                integrity.is_loss_reported.store(false, Ordering::Release);
            }
        }
        if self.if_enabled().is_some()
            && let Err(error) = self.replay_pending(store, now).await
        {
            if let SessionError::Store(_) = error {
                // It may still serve reads, and may lack writes of this gateway and of others.
                integrity.advance_epoch();
            }
            return Err(error);
        }
        integrity.verified_epoch.store(epoch, Ordering::Release);
        integrity.verified.notify_waiters();
        self.complete_log(store, now).await
    }

    /// Recovers lost data; where not all of it is known, revokes tokens issued up to a second.
    async fn recover_lost_data(
        &self,
        store: &Store,
        second: u64,
        now: Millis,
    ) -> Result<(), SessionError> {
        let mut cut_off = second.min(now / 1000);
        if self.if_enabled().is_some() {
            let row = self.database.store_marker(store.key_prefix()).await?;
            if self.is_log_complete() || row.is_some_and(|row| row.is_log_complete) {
                cut_off = 0;
            }
            self.replay_all_revocations(store, now).await?;
            self.replay_recent(store, now).await?;
        }
        let marker = store.write_marker(cut_off).await?;
        // Tokens from before, whose revocation it may lack, are revoked.
        self.record_marker(store, marker, true, now).await
    }

    /// Logs the revocations that the store held before the database had a log.
    async fn complete_log(&self, store: &Store, now: Millis) -> Result<(), SessionError> {
        if self.if_enabled().is_none() || self.is_log_complete() {
            return Ok(());
        }
        let existing = store.list_revocations().await?;
        self.record_existing_revocations(store, existing).await?;
        let known = self.shared.integrity.verified_marker.lock().clone();
        if let Some(VerifiedMarker { marker, .. }) = known {
            self.record_marker(store, marker, true, now).await?;
        }
        Ok(())
    }

    /// The marker that the database expects. It is queried only when this gateway has none.
    async fn load_expected_marker(
        &self,
        store: &Store,
    ) -> Result<Option<StoreMarker>, SessionError> {
        if self.shared.integrity.verified_marker.lock().is_some() {
            return Ok(None);
        }
        let reading = self.database.store_marker(store.key_prefix());
        if self.if_enabled().is_some() {
            return Ok(reading.await?);
        }
        // Without it, only a loss while no gateway was running goes unnoticed.
        let row = timeout(OPTIONAL_DATABASE_TIMEOUT, reading).await;
        Ok(row.ok().and_then(Result::ok).flatten())
    }

    async fn compare_marker(
        &self,
        store: &Store,
        row: Option<&StoreMarker>,
    ) -> Result<MarkerCheck, SessionError> {
        let known = self.shared.integrity.verified_marker.lock().clone();
        let before = match &known {
            Some(known) => Some(known.marker.id.as_str()),
            None => row.map(|row| row.marker.as_str()),
        };
        let last_seen = known.as_ref().map_or(u64::MAX, |known| known.verified_at);
        Ok(match (store.marker_state().await?, before) {
            (MarkerState::Complete(marker), None) => MarkerCheck::Intact(marker),
            (MarkerState::Complete(marker), Some(before)) if marker.id == before => {
                MarkerCheck::Intact(marker)
            }
            (MarkerState::Absent, None) => MarkerCheck::FirstStart,
            // Another gateway has noticed the loss, and has revoked what is affected.
            (MarkerState::Complete(marker), Some(_)) if last_seen <= marker.global_cut_off => {
                MarkerCheck::Lost(marker.global_cut_off)
            }
            (MarkerState::Complete(_) | MarkerState::Partial(_) | MarkerState::Absent, _) => {
                MarkerCheck::Lost(u64::MAX)
            }
        })
    }

    /// Records the marker by which the store is recognized from now on.
    async fn record_marker(
        &self,
        store: &Store,
        marker: Marker,
        complete: bool,
        now: Millis,
    ) -> Result<(), SessionError> {
        store.set_global_cut_off(marker.global_cut_off);
        let complete = complete && self.if_enabled().is_some();
        let same = |known: &VerifiedMarker| {
            known.marker.id == marker.id && known.is_log_complete == complete
        };
        let known = self
            .shared
            .integrity
            .verified_marker
            .lock()
            .as_ref()
            .is_some_and(same);
        if !known {
            let row = StoreMarker {
                marker: marker.id.clone(),
                is_log_complete: complete,
            };
            let writing = self.database.upsert_store_marker(store.key_prefix(), &row);
            if self.if_enabled().is_some() {
                writing.await?;
            } else if !matches!(
                timeout(OPTIONAL_DATABASE_TIMEOUT, writing).await,
                Ok(Ok(()))
            ) {
                tracing::debug!("the store's marker is not in the database");
            }
        }
        let at = now / 1000;
        *self.shared.integrity.verified_marker.lock() = Some(VerifiedMarker {
            marker,
            verified_at: at,
            is_log_complete: complete,
        });
        Ok(())
    }
}
