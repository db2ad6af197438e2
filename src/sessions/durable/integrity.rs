//! Whether the store may be trusted. It may lack what is written here, and it may have lost its data:
//! each time that it is found, it is looked at, told what it lacks, and trusted from then on. Until
//! then no token passes by its word.

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

/// How often the marker is looked at without any reason, and what waits is told.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a database is waited for that is no part of the promise.
const OPTIONAL_DATABASE_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after an attempt that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Integrity {
    /// How often there was a reason to doubt when last everything was in order.
    verified_epoch: AtomicU64,
    /// Reasons besides those that the store gives.
    local_epoch: AtomicU64,
    /// Told when everything is in order.
    verified: Notify,
    verified_marker: Mutex<Option<VerifiedMarker>>,
    /// A loss was noticed, and is not made good.
    is_loss_reported: AtomicBool,
}

/// What the store was known by, and the second at which it was last found so.
#[derive(Debug, Clone)]
struct VerifiedMarker {
    marker: Marker,
    verified_at: u64,
    /// Every revocation in it is in the database.
    is_log_complete: bool,
}

/// That the store was in order at a moment.
#[derive(Debug, Clone, Copy)]
pub(in crate::sessions) struct Epoch(u64);

/// What was found of the store's data.
enum MarkerCheck {
    Intact(Marker),
    /// A first start.
    FirstStart,
    /// Lost, when it is not known what was refused up to this second.
    Lost(u64),
}

impl Integrity {
    /// `doubtful`: not even a store that says nothing against it is trusted at the start.
    pub(super) fn new(doubtful: bool) -> Integrity {
        Integrity {
            verified_epoch: AtomicU64::new(0),
            local_epoch: AtomicU64::new(u64::from(doubtful)),
            verified: Notify::new(),
            verified_marker: Mutex::default(),
            is_loss_reported: AtomicBool::new(false),
        }
    }

    fn advance_epoch(&self) {
        self.local_epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Looks at everything again as at the start.
    pub(super) fn reset(&self) {
        *self.verified_marker.lock() = None;
    }
}

impl DurableSessions {
    /// Whether the store may lack revocations: it has come back, has lost its data, or this gateway
    /// could not tell it of one.
    pub(super) fn is_store_unverified(&self, store: &Store) -> bool {
        self.shared.integrity.verified_epoch.load(Ordering::Acquire) != self.current_epoch(store)
    }

    fn current_epoch(&self, store: &Store) -> u64 {
        let doubts = self.shared.integrity.local_epoch.load(Ordering::Acquire);
        store.reconnects().wrapping_add(doubts)
    }

    /// Takes note that the store could not be told of a revocation.
    pub(in crate::sessions) fn mark_store_incomplete(&self) {
        self.shared.integrity.advance_epoch();
    }

    /// To be taken before the store is asked, for [`DurableSessions::still_valid`]. `None`: it may lack revocations.
    pub(in crate::sessions) fn epoch(&self, store: &Store) -> Option<Epoch> {
        let doubts = self.current_epoch(store);
        let settled = self.shared.integrity.verified_epoch.load(Ordering::Acquire);
        (settled == doubts).then_some(Epoch(doubts))
    }

    /// Whether nothing has spoken against the store since the ticket was taken: what it does not
    /// refuse may pass.
    pub(in crate::sessions) fn still_valid(&self, store: &Store, ticket: Option<Epoch>) -> bool {
        ticket.is_some_and(|Epoch(doubts)| doubts == self.current_epoch(store))
    }

    /// Waits until the store is in order, as long as for any answer of it. What it has answered before
    /// does not count.
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

    /// Keeps the store in order for ever. `lost` is called once whenever it has lost its data.
    pub(in crate::sessions) async fn run_integrity_checks(self, store: Store, lost: impl Fn()) {
        loop {
            let pause = match self.check_integrity(&store, &lost).await {
                Ok(()) => CHECK_INTERVAL,
                Err(error) => {
                    tracing::debug!(%error, "the store is not told yet what it may lack");
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
        let trust = &self.shared.integrity;
        if store.is_in_process() && self.if_enabled().is_none() {
            // It ends with this process, and nothing is kept elsewhere.
            trust
                .verified_epoch
                .store(self.current_epoch(store), Ordering::Release);
            return Ok(());
        }
        let mut doubts = self.current_epoch(store);
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
                // From here on, however it was found.
                trust.advance_epoch();
                doubts = self.current_epoch(store);
                if !trust.is_loss_reported.swap(true, Ordering::AcqRel) && !store.is_in_process() {
                    lost();
                }
                self.recover_lost_data(store, second, now).await?;
                trust.is_loss_reported.store(false, Ordering::Release);
            }
        }
        if self.if_enabled().is_some()
            && let Err(error) = self.replay_pending(store, now).await
        {
            if let SessionError::Store(_) = error {
                // It may serve reads all the same, and lacks what it was not told, perhaps by others.
                trust.advance_epoch();
            }
            return Err(error);
        }
        trust.verified_epoch.store(doubts, Ordering::Release);
        trust.verified.notify_waiters();
        self.complete_log(store, now).await
    }

    /// Restores what was lost; where not all of it is known, refuses what was issued up to a second.
    async fn recover_lost_data(
        &self,
        store: &Store,
        second: u64,
        now: Millis,
    ) -> Result<(), SessionError> {
        let mut refused = second.min(now / 1000);
        if self.if_enabled().is_some() {
            let row = self.database.store_marker(store.key_prefix()).await?;
            if self.is_log_complete() || row.is_some_and(|row| row.is_log_complete) {
                refused = 0;
            }
            self.replay_all_revocations(store, now).await?;
            self.replay_recent(store, now).await?;
        }
        let marker = store.write_marker(refused).await?;
        // What it may lack of the time before is refused.
        self.record_marker(store, marker, true, now).await
    }

    /// Writes what was revoked in the store before the database kept such things.
    async fn complete_log(&self, store: &Store, now: Millis) -> Result<(), SessionError> {
        if self.if_enabled().is_none() || self.is_log_complete() {
            return Ok(());
        }
        let standing = store.list_revocations().await?;
        self.record_existing_revocations(store, standing).await?;
        let known = self.shared.integrity.verified_marker.lock().clone();
        if let Some(VerifiedMarker { marker, .. }) = known {
            self.record_marker(store, marker, true, now).await?;
        }
        Ok(())
    }

    /// What the database knows the store by. It is asked only when this gateway does not know.
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
        // Without it only what was lost while no gateway was there goes unnoticed.
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
            // Another gateway has noticed it, and refuses what it has to.
            (MarkerState::Complete(marker), Some(_)) if last_seen <= marker.global_cut_off => {
                MarkerCheck::Lost(marker.global_cut_off)
            }
            (MarkerState::Complete(_) | MarkerState::Partial(_) | MarkerState::Absent, _) => {
                MarkerCheck::Lost(u64::MAX)
            }
        })
    }

    /// From now on the store is known by this.
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
            let kept = StoreMarker {
                marker: marker.id.clone(),
                is_log_complete: complete,
            };
            let writing = self.database.upsert_store_marker(store.key_prefix(), &kept);
            if self.if_enabled().is_some() {
                writing.await?;
            } else if !matches!(
                timeout(OPTIONAL_DATABASE_TIMEOUT, writing).await,
                Ok(Ok(()))
            ) {
                tracing::debug!("what the store is known by is not in the database");
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
