//! Look-up of rows of the database on the request path: concurrent look-ups of one row share a query, rows
//! are cached briefly, and a database that does not respond is not queried for a while.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock;
use crate::database;

/// Maximum number of cached rows.
const CACHE_CAPACITY: usize = 20_000;
/// Maximum number of concurrent look-ups.
const MAX_CONCURRENT_LOOKUPS: usize = 8;
/// Timeout of a look-up with its wait; half of it is that of the database.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a database that has just failed is not queried.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Neither valid nor gone: the database did not respond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the database did not respond")]
pub(in crate::sessions) struct DatabaseUnavailable;

/// Look-ups of rows by their IDs.
pub(in crate::sessions) struct RowLookup<K, R> {
    cache: Cache<K, CachedRow<R>>,
    cache_ttl: Duration,
    /// Counts local changes: a row that was read before a change is not cached.
    changes: AtomicU64,
    slots: Semaphore,
    started: Instant,
    /// Until when the database is not queried, in milliseconds since `started`.
    paused_until: AtomicU64,
}

struct CachedRow<R> {
    row: Option<Arc<R>>,
    read_at: Instant,
}

impl<R> Clone for CachedRow<R> {
    fn clone(&self) -> CachedRow<R> {
        CachedRow {
            row: self.row.clone(),
            read_at: self.read_at,
        }
    }
}

impl<K: Copy + Eq + Hash, R> RowLookup<K, R> {
    /// `cache_ttl`: how long a row is cached. A change by another gateway may take effect here this much
    /// later.
    pub(in crate::sessions) fn new(cache_ttl: Duration) -> RowLookup<K, R> {
        RowLookup {
            cache: Cache::new(CACHE_CAPACITY),
            cache_ttl,
            changes: AtomicU64::new(0),
            slots: Semaphore::new(MAX_CONCURRENT_LOOKUPS),
            started: clock::monotonic(),
            paused_until: AtomicU64::new(0),
        }
    }

    /// The cached row, which may be none.
    pub(in crate::sessions) fn cached(&self, id: K) -> Option<Option<Arc<R>>> {
        let cached = self.cache.get(&id)?;
        (cached.read_at.elapsed() < self.cache_ttl).then_some(cached.row)
    }

    /// Reads a row, if there is one, by `fetch`, regardless of the cache.
    ///
    /// # Errors
    /// The database does not respond, or is not to be queried now.
    pub(in crate::sessions) async fn read(
        &self,
        id: K,
        fetch: impl Future<Output = Result<Option<R>, database::Error>>,
    ) -> Result<Option<Arc<R>>, DatabaseUnavailable> {
        // Not what another call is reading.
        if self.cache.get(&id).is_some() {
            self.cache.remove(&id);
        }
        let lookup = async {
            match self.cache.get_value_or_guard_async(&id).await {
                Ok(cached) => Ok(cached.row),
                Err(guard) => {
                    let before = self.changes.load(Ordering::Acquire);
                    let row = self.run(fetch).await?.map(Arc::new);
                    if self.changes.load(Ordering::Acquire) == before {
                        // If this fails, the row is merely not cached.
                        let _ = guard.insert(CachedRow {
                            row: row.clone(),
                            read_at: clock::monotonic(),
                        });
                    }
                    Ok(row)
                }
            }
        };
        let row = timeout(LOOKUP_TIMEOUT, lookup).await;
        row.unwrap_or(Err(DatabaseUnavailable))
    }

    /// Queries the database, among at most a few queries at a time.
    ///
    /// # Errors
    /// The database does not respond, or is not to be queried now.
    pub(in crate::sessions) async fn query<T>(
        &self,
        query: impl Future<Output = Result<T, database::Error>>,
    ) -> Result<T, DatabaseUnavailable> {
        let outcome = timeout(LOOKUP_TIMEOUT / 2, self.run(query)).await;
        outcome.unwrap_or(Err(DatabaseUnavailable))
    }

    async fn run<T>(
        &self,
        query: impl Future<Output = Result<T, database::Error>>,
    ) -> Result<T, DatabaseUnavailable> {
        self.check_not_paused()?;
        let slot = self.slots.acquire().await;
        let _slot = slot.map_err(|_| DatabaseUnavailable)?;
        self.check_not_paused()?;
        match timeout(LOOKUP_TIMEOUT / 2, query).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                self.pause();
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the database did not respond to a look-up");
                Err(DatabaseUnavailable)
            }
            Err(_) => {
                self.pause();
                tracing::warn!("the database did not respond to a look-up in time");
                Err(DatabaseUnavailable)
            }
        }
    }

    /// Invalidates the cached row, and those that are being read.
    pub(in crate::sessions) fn invalidate(&self, id: K) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.cache.remove(&id);
    }

    fn check_not_paused(&self) -> Result<(), DatabaseUnavailable> {
        if self.millis() < self.paused_until.load(Ordering::Relaxed) {
            return Err(DatabaseUnavailable);
        }
        Ok(())
    }

    fn pause(&self) {
        let pause = PAUSE_AFTER_FAILURE.as_millis() as u64;
        let until = self.millis().saturating_add(pause);
        self.paused_until.store(until, Ordering::Relaxed);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
