//! Series that were looked up by their labels before: a look-up compares every label, and a request counts
//! in several series.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;
use parking_lot::RwLock;
use prometheus::IntCounter;

/// The series of one metric by what their labels are made of. There are as many as there are labels, which
/// are bounded.
#[derive(Debug)]
pub struct SeriesCache<K, M = IntCounter>(RwLock<HashMap<K, M, RandomState>>);

impl<K, M> Default for SeriesCache<K, M> {
    fn default() -> SeriesCache<K, M> {
        SeriesCache(RwLock::default())
    }
}

impl<K: Hash + Eq, M: Clone> SeriesCache<K, M> {
    /// Gives a series to `act`; `look_up` finds it the first time.
    pub fn with<R>(&self, key: K, look_up: impl FnOnce(&K) -> M, act: impl FnOnce(&M) -> R) -> R {
        if let Some(series) = self.0.read().get(&key) {
            return act(series);
        }
        let series = look_up(&key);
        let done = act(&series);
        self.0.write().insert(key, series);
        done
    }
}
