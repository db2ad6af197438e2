//! Whether the store may be trusted. It may lack what is written here, and it may have lost its data:
//! each time that it is found, it is looked at, told what it lacks, and trusted from then on. Until
//! then no token passes by its word.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Durable;
use super::telling::Untold;
use crate::auth::session::Millis;
use crate::directory::KeptMarker;
use crate::store::{Marked, Marker, Store};

/// How often the marker is looked at without any reason, and what waits is told.
const EVERY: Duration = Duration::from_secs(1);
/// How long a database is waited for that is no part of the promise.
const WITHOUT_IT: Duration = Duration::from_secs(1);
/// The pause after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Trust {
    /// How often there was a reason to doubt when last everything was in order.
    settled: AtomicU64,
    /// Reasons besides those that the store gives.
    doubts: AtomicU64,
    /// Told when everything is in order.
    changed: Notify,
    known: Mutex<Option<Known>>,
    /// A loss was noticed, and is not made good.
    noticed: AtomicBool,
}

/// What the store was known by, and the second at which it was last found so.
#[derive(Debug, Clone)]
struct Known {
    marker: Marker,
    at: u64,
    /// Every revocation in it is in the database.
    complete: bool,
}

/// That the store was in order at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Ticket(u64);

/// What was found of the store's data.
enum Found {
    Intact(Marker),
    /// A first start.
    New,
    /// Lost, when it is not known what was refused up to this second.
    Lost(u64),
}

impl Trust {
    /// `doubtful`: not even a store that says nothing against it is trusted at the start.
    pub(super) fn new(doubtful: bool) -> Trust {
        Trust {
            settled: AtomicU64::new(0),
            doubts: AtomicU64::new(u64::from(doubtful)),
            changed: Notify::new(),
            known: Mutex::default(),
            noticed: AtomicBool::new(false),
        }
    }

    fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
    }

    /// Looks at everything again as at the start.
    pub(super) fn begin_anew(&self) {
        *self.known.lock() = None;
    }
}

impl Durable {
    /// Whether the store may lack revocations: it has come back, has lost its data, or this gateway
    /// could not tell it of one.
    pub(super) fn is_behind(&self, store: &Store) -> bool {
        self.shared.trust.settled.load(Ordering::Acquire) != self.doubts(store)
    }

    fn doubts(&self, store: &Store) -> u64 {
        let doubts = self.shared.trust.doubts.load(Ordering::Acquire);
        store.risings().wrapping_add(doubts)
    }

    /// Takes note that the store could not be told of a revocation.
    pub fn could_not_tell(&self) {
        self.shared.trust.doubt();
    }

    /// To be taken before the store is asked, for [`Durable::holds`]. `None`: it may lack revocations.
    pub fn ticket(&self, store: &Store) -> Option<Ticket> {
        let doubts = self.doubts(store);
        let settled = self.shared.trust.settled.load(Ordering::Acquire);
        (settled == doubts).then_some(Ticket(doubts))
    }

    /// Whether nothing has spoken against the store since the ticket was taken: what it does not
    /// refuse may pass.
    pub fn holds(&self, store: &Store, ticket: Option<Ticket>) -> bool {
        ticket.is_some_and(|Ticket(doubts)| doubts == self.doubts(store))
    }

    /// Waits until the store is in order, as long as for any answer of it. What it has answered before
    /// does not count.
    pub async fn comes_to_trust(&self, store: &Store) -> bool {
        let in_order = async {
            loop {
                let changed = self.shared.trust.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if !self.is_behind(store) {
                    return;
                }
                changed.await;
            }
        };
        timeout(store.patience(), in_order).await.is_ok()
    }

    /// Whether every revocation is in the database.
    pub(super) fn is_complete(&self) -> bool {
        let known = self.shared.trust.known.lock();
        known.as_ref().is_some_and(|known| known.complete)
    }

    /// Keeps the store in order for ever. `lost` is called once whenever it has lost its data.
    pub async fn keep_in_order(self, store: Store, lost: impl Fn()) {
        loop {
            let pause = match self.settle(&store, &lost).await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::debug!(%error, "the store is not told yet what it may lack");
                    PAUSE
                }
            };
            tokio::select! {
                () = store.doubted() => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn settle(&self, store: &Store, lost: &impl Fn()) -> Result<(), Untold> {
        let trust = &self.shared.trust;
        if store.is_in_process() && self.on().is_none() {
            // It ends with this process, and nothing is kept elsewhere.
            trust.settled.store(self.doubts(store), Ordering::Release);
            return Ok(());
        }
        let mut doubts = self.doubts(store);
        let now = store.now().await?;
        let row = self.kept_marker(store).await?;
        let complete = self.is_complete() || row.as_ref().is_some_and(|row| row.complete);
        match self.look(store, row.as_ref()).await? {
            Found::Intact(marker) => {
                if self.on().is_some() && self.is_behind(store) {
                    self.tell_again(store, now).await?;
                }
                self.know(store, marker, complete, now).await?;
            }
            Found::New => {
                let marker = store.mark(0).await?;
                self.know(store, marker, false, now).await?;
            }
            Found::Lost(second) => {
                // From here on, however it was found.
                trust.doubt();
                doubts = self.doubts(store);
                if !trust.noticed.swap(true, Ordering::AcqRel) && !store.is_in_process() {
                    lost();
                }
                self.make_good(store, second, now).await?;
                trust.noticed.store(false, Ordering::Release);
            }
        }
        if self.on().is_some()
            && let Err(error) = self.tell_untold(store, now).await
        {
            if let Untold::Store(_) = error {
                // It may serve reads all the same, and lacks what it was not told, perhaps by others.
                trust.doubt();
            }
            return Err(error);
        }
        trust.settled.store(doubts, Ordering::Release);
        trust.changed.notify_waiters();
        self.complete(store, now).await
    }

    /// Restores what was lost; where not all of it is known, refuses what was issued up to a second.
    async fn make_good(&self, store: &Store, second: u64, now: Millis) -> Result<(), Untold> {
        let mut refused = second.min(now / 1000);
        if self.on().is_some() {
            let row = self.directory.store_marker(store.prefix()).await?;
            if self.is_complete() || row.is_some_and(|row| row.complete) {
                refused = 0;
            }
            self.restore(store, now).await?;
            self.tell_again(store, now).await?;
        }
        let marker = store.mark(refused).await?;
        // What it may lack of the time before is refused.
        self.know(store, marker, true, now).await
    }

    /// Writes what was revoked in the store before the database kept such things.
    async fn complete(&self, store: &Store, now: Millis) -> Result<(), Untold> {
        if self.on().is_none() || self.is_complete() {
            return Ok(());
        }
        let standing = store.standing().await?;
        self.keep_what_stands(store, standing).await?;
        let known = self.shared.trust.known.lock().clone();
        if let Some(Known { marker, .. }) = known {
            self.know(store, marker, true, now).await?;
        }
        Ok(())
    }

    /// What the database knows the store by. It is asked only when this gateway does not know.
    async fn kept_marker(&self, store: &Store) -> Result<Option<KeptMarker>, Untold> {
        if self.shared.trust.known.lock().is_some() {
            return Ok(None);
        }
        let reading = self.directory.store_marker(store.prefix());
        if self.on().is_some() {
            return Ok(reading.await?);
        }
        // Without it only what was lost while no gateway was there goes unnoticed.
        let row = timeout(WITHOUT_IT, reading).await;
        Ok(row.ok().and_then(Result::ok).flatten())
    }

    async fn look(&self, store: &Store, row: Option<&KeptMarker>) -> Result<Found, Untold> {
        let known = self.shared.trust.known.lock().clone();
        let before = match &known {
            Some(known) => Some(known.marker.id.as_str()),
            None => row.map(|row| row.marker.as_str()),
        };
        let last_seen = known.as_ref().map_or(u64::MAX, |known| known.at);
        Ok(match (store.marked().await?, before) {
            (Marked::Whole(marker), None) => Found::Intact(marker),
            (Marked::Whole(marker), Some(before)) if marker.id == before => Found::Intact(marker),
            (Marked::Nowhere, None) => Found::New,
            // Another gateway has noticed it, and refuses what it has to.
            (Marked::Whole(marker), Some(_)) if last_seen <= marker.refused => {
                Found::Lost(marker.refused)
            }
            (Marked::Whole(_) | Marked::Partly(_) | Marked::Nowhere, _) => Found::Lost(u64::MAX),
        })
    }

    /// From now on the store is known by this.
    async fn know(
        &self,
        store: &Store,
        marker: Marker,
        complete: bool,
        now: Millis,
    ) -> Result<(), Untold> {
        store.refuse_up_to(marker.refused);
        let complete = complete && self.on().is_some();
        let same = |known: &Known| known.marker.id == marker.id && known.complete == complete;
        let known = self.shared.trust.known.lock().as_ref().is_some_and(same);
        if !known {
            let kept = KeptMarker {
                marker: marker.id.clone(),
                complete,
            };
            let writing = self.directory.keep_store_marker(store.prefix(), &kept);
            if self.on().is_some() {
                writing.await?;
            } else if !matches!(timeout(WITHOUT_IT, writing).await, Ok(Ok(()))) {
                tracing::debug!("what the store is known by is not in the database");
            }
        }
        let at = now / 1000;
        *self.shared.trust.known.lock() = Some(Known {
            marker,
            at,
            complete,
        });
        Ok(())
    }
}
